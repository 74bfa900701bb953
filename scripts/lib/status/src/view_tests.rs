use std::net::SocketAddr;
use std::time::{Duration, Instant};

use process::ProcessConfig;

use super::{text, worries};
use crate::exposition;
use crate::numbers::Numbers;
use crate::sample::{BROKER, Instance, Sample};

const QUEUES: &str = r#"
rabbitmq_detailed_queue_messages_ready{vhost="/",queue="objects.fetch"} 4
rabbitmq_detailed_queue_messages_unacked{vhost="/",queue="objects.fetch"} 5
rabbitmq_detailed_queue_consumers{vhost="/",queue="objects.fetch"} 2
rabbitmq_detailed_queue_consumers{vhost="/",queue="objects.delete"} 1
rabbitmq_detailed_queue_messages_ready{vhost="/",queue="objects.retry.1000"} 6
rabbitmq_detailed_queue_messages_ready{vhost="/",queue="objects.retry.5000"} 7
rabbitmq_detailed_queue_messages_ready{vhost="/",queue="objects.delete.delay.29750"} 8
rabbitmq_detailed_queue_messages_ready{vhost="/",queue="invoices.77"} 9"#;

/// A service, what it told before, and what it tells now.
type Part<'a> = (&'static str, Option<&'a str>, Option<&'a str>);

fn instance(service: &'static str, port: u16, asked: Instant, text: Option<&str>) -> Instance {
    Instance {
        service,
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        asked,
        series: text.map(exposition::read),
    }
}

/// The same parts 2 s apart, by service and what each told before and told now.
fn samples(parts: &[Part]) -> (Sample, Sample) {
    let start = Instant::now();
    let at = |seconds, told: fn(&Part) -> Option<String>| {
        let asked = start + Duration::from_secs(seconds);
        let numbered = parts.iter().zip(1..);
        let instances =
            numbered.map(|(part, port)| instance(part.0, port, asked, told(part).as_deref()));
        Sample(instances.collect())
    };
    (
        at(0, |part| part.1.map(str::to_owned)),
        at(2, |part| part.2.map(str::to_owned)),
    )
}

fn render(parts: &[Part], line: bool) -> String {
    let (before, now) = samples(parts);
    text(&Numbers::new(&before, &now, ""), line)
}

fn worries_of(parts: &[Part], prefix: &str) -> String {
    let (before, now) = samples(parts);
    worries(&Numbers::new(&before, &now, prefix))
}

const WELL: [Part<'static>; 4] = [
    (
        "ingest",
        Some(
            "callback_pipeline_callbacks_accepted_total 10\ncallback_pipeline_callback_ids_accepted_total 100",
        ),
        Some(
            "callback_pipeline_callbacks_accepted_total 15\ncallback_pipeline_callback_ids_accepted_total 200\ncallback_pipeline_dependency_up{dependency=\"broker\"} 1",
        ),
    ),
    (
        "fetcher",
        Some(
            "callback_pipeline_fetches_total{outcome=\"online\"} 2\ncallback_pipeline_fetches_total{outcome=\"timeout\"} 0\ncallback_pipeline_objects_stored_total 1",
        ),
        Some(
            "callback_pipeline_fetches_total{outcome=\"online\"} 4\ncallback_pipeline_fetches_total{outcome=\"timeout\"} 3\ncallback_pipeline_objects_stored_total 2\ncallback_pipeline_fetch_limit 512",
        ),
    ),
    (
        "janitor",
        Some("callback_pipeline_objects_deleted_total{by=\"message\"} 1"),
        Some(
            "callback_pipeline_objects_deleted_total{by=\"message\"} 1\ncallback_pipeline_objects_deleted_total{by=\"sweep\"} 3\ncallback_pipeline_object_deletion_last_lateness_seconds 0.0123",
        ),
    ),
    (BROKER, Some(QUEUES), Some(QUEUES)),
];

#[test]
fn the_table_has_rates_depths_and_replicas() {
    let expected = "\
accepted  2.5/s callbacks, 50/s ids; rejected 0/s; in flight 0; in the spool 0 KiB (ingest x 1)
queued    4 messages, 5 at work, 2 consumers; to retry 13; dead 0; unroutable 0; taken 0 ms after due
looked up 2.5/s; failed 1.5/s; in flight 0 of 512; joined 0/s (fetcher x 1)
stored    0.5/s rows; offline 0/s; gone 0/s
deleted   0/s rows; by sweep 3; late by 12 ms; batches to expire 8 (janitor x 1)
since     the start of the processes: 15 callbacks, 200 ids, 2 stored, 4 deleted, 0 given up
state     well";
    assert_eq!(render(&WELL, false), expected);
}

#[test]
fn the_line_has_the_same_numbers() {
    let expected = "accepted 2.5/s (15) | queued 4 | in flight 0 | stored 0.5/s (2) | deleted 0/s (4) | late by 12 ms";
    assert_eq!(render(&WELL, true), expected);
}

#[test]
fn a_counter_that_started_again_counts_from_nought() {
    let mut parts = WELL;
    parts[0] = (
        "ingest",
        Some("callback_pipeline_callbacks_accepted_total 1000"),
        Some("callback_pipeline_callbacks_accepted_total 4"),
    );
    assert!(render(&parts, true).starts_with("accepted 2.0/s (4)"));
}

#[test]
fn a_replica_that_was_not_there_has_no_rate() {
    let mut parts = WELL.to_vec();
    parts.push((
        "ingest",
        None,
        Some("callback_pipeline_callbacks_accepted_total 5000"),
    ));
    assert!(render(&parts, true).starts_with("accepted 2.5/s (5015)"));
}

#[test]
fn what_does_not_answer_comes_first() {
    let parts = [
        ("ingest", None, None),
        (
            "fetcher",
            Some(""),
            Some("callback_pipeline_dependency_up{dependency=\"database\"} 0"),
        ),
        ("fetcher", None, None),
    ];
    assert_eq!(
        worries_of(&parts, ""),
        "no ingest answers, 1 fetcher of 2 does not answer, no janitor answers, database is down, \
         the broker does not say what is queued"
    );
    let line = render(&parts, true);
    assert!(line.starts_with("NO INGEST ANSWERS, "), "{line}");
    assert!(line.contains("| queued ? |"), "{line}");
    let table = render(&parts, false);
    assert!(table.contains("\nstate     No ingest answers, "), "{table}");
}

#[test]
fn what_piles_up_is_to_be_looked_at() {
    let mut parts = WELL;
    parts[0].1 = Some("callback_pipeline_callbacks_rejected_total{reason=\"overloaded\"} 1");
    parts[0].2 = Some(
        "callback_pipeline_callbacks_rejected_total{reason=\"overloaded\"} 2\ncallback_pipeline_spool_bytes{place=\"own\"} 3000\ncallback_pipeline_spool_bytes{place=\"others\"} 9000\ncallback_pipeline_spool_oldest_age_seconds 4.5",
    );
    parts[3].2 = Some(
        r#"rabbitmq_detailed_queue_messages_ready{queue="objects.dead"} 2
rabbitmq_detailed_queue_messages_ready{queue="objects.unroutable"} 3
rabbitmq_detailed_queue_consumers{queue="objects.delete"} 1"#,
    );
    assert_eq!(
        worries_of(&parts, ""),
        "nobody consumes objects.fetch, 2 dead letters, 3 unroutable messages, 3 KiB in the spool, the oldest \
         for 4.5 s, callbacks are rejected"
    );
}

#[test]
fn only_queues_with_the_prefix_count() {
    let silent = "the broker does not say what is queued";
    assert_eq!(worries_of(&WELL, "test."), silent);
    let prefixed = QUEUES.replace("queue=\"objects", "queue=\"test.objects");
    let mut parts = WELL;
    parts[3].2 = Some(&prefixed);
    assert_eq!(worries_of(&parts, "test."), "");
    assert_eq!(worries_of(&parts, ""), silent);
}

/// Metrics are named here as words in quotes with an underscore, those of the broker apart.
#[test]
fn every_metric_that_is_read_is_one_that_a_process_has() {
    let parts = [
        ingest::Config::METRICS,
        fetcher::Config::METRICS,
        janitor::Config::METRICS,
    ];
    let described: Vec<&str> = parts
        .into_iter()
        .flatten()
        .copied()
        .flatten()
        .map(|metric| metric.name)
        .collect();
    let source = concat!(include_str!("view.rs"), include_str!("numbers.rs"));
    let is_metric = |word: &&str| {
        word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
    };
    let of_broker = |word: &&str| word.starts_with("messages_") || word.starts_with("rabbitmq_");
    let words = source
        .split('"')
        .filter(is_metric)
        .filter(|word| !of_broker(word));
    let mut found = 0;
    for word in words {
        assert!(described.contains(&word), "{word}");
        found += 1;
    }
    assert!(found > 20, "only {found} words");
}

/// Where Prometheus finds the containers, the command does.
#[test]
fn the_usual_addresses_are_those_of_the_compose_file() {
    use clap::CommandFactory;
    let prometheus = include_str!("../../../../deploy/prometheus/prometheus.yml");
    let command = crate::Arguments::command();
    for service in ["ingest", "fetcher", "janitor"] {
        let argument = command
            .get_arguments()
            .find(|argument| argument.get_id() == service)
            .unwrap();
        let port = argument.get_default_values()[0]
            .to_str()
            .unwrap()
            .rsplit_once(':')
            .unwrap()
            .1;
        assert!(
            prometheus.contains(&format!("names: [{service}], type: A, port: {port},")),
            "{service}"
        );
    }
    assert!(prometheus.contains("rabbitmq:15692"));
}
