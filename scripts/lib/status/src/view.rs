//! The numbers in words: a table, or one line.

use crate::numbers::Numbers;

/// What there is to be seen, as a table or as a line.
pub(crate) fn text(numbers: &Numbers, line: bool) -> String {
    if line {
        self::line(numbers)
    } else {
        table(numbers)
    }
}

/// What an operator has to look at, the gravest first; empty when all is well.
pub(crate) fn worries(numbers: &Numbers) -> String {
    let services = ["ingest", "fetcher", "janitor"].into_iter();
    let mut worries: Vec<String> = services
        .filter_map(|service| silent(numbers, service))
        .collect();
    worries.extend(numbers.down().iter().map(|name| format!("{name} is down")));
    if numbers.broker_answers() {
        for queue in ["objects.fetch", "objects.delete"] {
            if numbers.queue("consumers", queue) == 0.0 {
                worries.push(format!("nobody consumes {queue}"));
            }
        }
        for (queue, what) in [
            ("objects.dead", "dead letters"),
            ("objects.unroutable", "unroutable messages"),
        ] {
            let ready = numbers.queue("messages_ready", queue);
            if ready > 0.0 {
                worries.push(format!("{ready:.0} {what}"));
            }
        }
    } else {
        worries.push("the broker does not say what is queued".to_owned());
    }
    if spooled_kib(numbers) > 0.0 {
        let age = seconds(numbers.largest("callback_pipeline_spool_oldest_age_seconds"));
        worries.push(format!(
            "{:.0} KiB in the spool, the oldest for {age}",
            spooled_kib(numbers)
        ));
    }
    if numbers
        .rate("callback_pipeline_callbacks_rejected_total")
        .is_some_and(|rate| rate > 0.0)
    {
        worries.push("callbacks are rejected".to_owned());
    }
    worries.join(", ")
}

fn silent(numbers: &Numbers, service: &str) -> Option<String> {
    match numbers.replicas(service) {
        (0, _) => Some(format!("no {service} answers")),
        (_, 0) => None,
        (answer, silent) => {
            let all = answer + silent;
            Some(format!("{silent} {service} of {all} does not answer"))
        }
    }
}

fn table(numbers: &Numbers) -> String {
    let rows = [
        ("accepted", accepted(numbers)),
        ("queued", queued(numbers)),
        ("looked up", looked_up(numbers)),
        ("stored", stored(numbers)),
        ("deleted", deleted(numbers)),
        ("since", since(numbers)),
        ("state", state(numbers)),
    ];
    rows.map(|(part, what)| format!("{part:9} {what}"))
        .join("\n")
}

fn accepted(numbers: &Numbers) -> String {
    format!(
        "{} callbacks, {} ids; rejected {}; in flight {:.0}; in the spool {:.0} KiB {}",
        rate(numbers, "callback_pipeline_callbacks_accepted_total"),
        rate(numbers, "callback_pipeline_callback_ids_accepted_total"),
        rate(numbers, "callback_pipeline_callbacks_rejected_total"),
        numbers.total("callback_pipeline_callbacks_in_flight"),
        spooled_kib(numbers),
        replicas(numbers, "ingest"),
    )
}

/// What the replicas have to drain.
fn spooled_kib(numbers: &Numbers) -> f64 {
    let places = ["own", "adopted"].iter();
    let bytes =
        places.map(|place| numbers.labelled("callback_pipeline_spool_bytes", "place", place));
    (bytes.sum::<f64>() / 1024.0).ceil()
}

fn queued(numbers: &Numbers) -> String {
    format!(
        "{} messages, {:.0} at work, {:.0} consumers; to retry {}; dead {}; unroutable {}; taken {} after due",
        waiting(numbers, "objects.fetch"),
        numbers.queue("messages_unacked", "objects.fetch"),
        numbers.queue("consumers", "objects.fetch"),
        waiting(numbers, "objects.retry"),
        waiting(numbers, "objects.dead"),
        waiting(numbers, "objects.unroutable"),
        seconds(numbers.largest("callback_pipeline_consumer_last_lag_seconds")),
    )
}

fn looked_up(numbers: &Numbers) -> String {
    let failed = numbers.rate_where("callback_pipeline_fetches_total", |fetch| {
        !["online", "offline", "gone"].contains(&fetch.label("outcome"))
    });
    format!(
        "{}; failed {}; in flight {:.0} of {:.0}; joined {} {}",
        rate(numbers, "callback_pipeline_fetches_total"),
        per_second(failed),
        numbers.total("callback_pipeline_fetches_in_flight"),
        numbers.total("callback_pipeline_fetch_limit"),
        rate(numbers, "callback_pipeline_fetches_joined_total"),
        replicas(numbers, "fetcher"),
    )
}

fn stored(numbers: &Numbers) -> String {
    format!(
        "{} rows; offline {}; gone {}",
        rate(numbers, "callback_pipeline_objects_stored_total"),
        rate(numbers, "callback_pipeline_objects_offline_total"),
        rate(numbers, "callback_pipeline_objects_gone_total"),
    )
}

fn deleted(numbers: &Numbers) -> String {
    format!(
        "{} rows; by sweep {:.0}; late by {}; batches to expire {} {}",
        rate(numbers, "callback_pipeline_objects_deleted_total"),
        numbers.labelled("callback_pipeline_objects_deleted_total", "by", "sweep"),
        seconds(numbers.largest("callback_pipeline_object_deletion_last_lateness_seconds")),
        waiting(numbers, "objects.delete.delay"),
        replicas(numbers, "janitor"),
    )
}

fn since(numbers: &Numbers) -> String {
    format!(
        "the start of the processes: {:.0} callbacks, {:.0} ids, {:.0} stored, {:.0} deleted, {:.0} given up",
        numbers.total("callback_pipeline_callbacks_accepted_total"),
        numbers.total("callback_pipeline_callback_ids_accepted_total"),
        numbers.total("callback_pipeline_objects_stored_total"),
        numbers.total("callback_pipeline_objects_deleted_total"),
        numbers.total("callback_pipeline_dead_letters_total"),
    )
}

fn state(numbers: &Numbers) -> String {
    let worries = worries(numbers);
    let mut characters = worries.chars();
    match characters.next() {
        Some(first) => first.to_uppercase().chain(characters).collect(),
        None => "well".to_owned(),
    }
}

/// The worries come first: the rest may be cut off.
fn line(numbers: &Numbers) -> String {
    let worries = worries(numbers).to_uppercase();
    let and = if worries.is_empty() { "" } else { " | " };
    format!(
        "{worries}{and}accepted {} ({:.0}) | queued {} | in flight {:.0} | stored {} ({:.0}) | deleted {} ({:.0}) \
         | late by {}",
        rate(numbers, "callback_pipeline_callbacks_accepted_total"),
        numbers.total("callback_pipeline_callbacks_accepted_total"),
        waiting(numbers, "objects.fetch"),
        numbers.total("callback_pipeline_fetches_in_flight"),
        rate(numbers, "callback_pipeline_objects_stored_total"),
        numbers.total("callback_pipeline_objects_stored_total"),
        rate(numbers, "callback_pipeline_objects_deleted_total"),
        numbers.total("callback_pipeline_objects_deleted_total"),
        seconds(numbers.largest("callback_pipeline_object_deletion_last_lateness_seconds")),
    )
}

fn waiting(numbers: &Numbers, queue: &str) -> String {
    if numbers.broker_answers() {
        format!("{:.0}", numbers.queue("messages_ready", queue))
    } else {
        "?".to_owned()
    }
}

fn replicas(numbers: &Numbers, service: &str) -> String {
    format!("({service} x {})", numbers.replicas(service).0)
}

fn rate(numbers: &Numbers, name: &str) -> String {
    per_second(numbers.rate(name))
}

fn per_second(rate: Option<f64>) -> String {
    match rate {
        None => "-/s".to_owned(),
        Some(rate) if rate < 0.05 => "0/s".to_owned(),
        Some(rate) if rate < 9.95 => format!("{rate:.1}/s"),
        Some(rate) => format!("{rate:.0}/s"),
    }
}

fn seconds(value: f64) -> String {
    if value < 1.0 {
        format!("{:.0} ms", 1000.0 * value)
    } else if value < 100.0 {
        format!("{value:.1} s")
    } else {
        format!("{value:.0} s")
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
