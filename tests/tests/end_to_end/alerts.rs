//! The alerts that are deployed, on a real Prometheus that scrapes the binaries and the broker: none
//! fires while all is well, and each fault makes its own fire. And the dashboard has something to show.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tests::client::{ClientService, Reply, post_ids};
use tests::processes::{Process, address_in, configure};
use tests::proxy::{Network, Proxy};
use tests::servers::programs::{is_missing, may_skip};
use tests::servers::prometheus::{Job, Prometheus};
use tests::servers::variable;
use tests::wait::eventually;
use tests::world::World;

/// Whether there is no Prometheus, or the broker has no metrics.
fn cannot_watch() -> bool {
    let is_given = variable("TEST_AMQP_URL").is_some();
    let has_metrics = !is_given || variable("TEST_BROKER_METRICS_ADDRESS").is_some();
    is_missing("prometheus") || !has_metrics && may_skip("there are no metrics of the broker")
}

/// How long rows live here.
const OBJECT_TTL: Duration = Duration::from_secs(1);

/// The client service refuses to say anything about this id.
const REFUSED: i64 = 403;

/// The binaries, and a Prometheus that watches them.
struct Watched {
    _ingest: Process,
    fetcher: Process,
    janitor: Process,
    prometheus: Prometheus,
    /// Where callbacks are posted to.
    callbacks: SocketAddr,
    /// From `ingest` to the broker.
    way: Proxy,
    _client: ClientService,
}

impl Watched {
    async fn start(world: &mut World) -> Self {
        let client = ClientService::start(|id, _| match id {
            REFUSED => Reply::Status(403, None),
            _ => Reply::Online,
        })
        .await;
        let (way, by_way) = world.broker_proxy().await;
        // What goes to the spool, because the broker takes its time, is published twice.
        let of_ingest = [by_way, "--publish-timeout=30s".to_owned()];
        let mut ingest = start("ingest", world.ingest_flags(), &of_ingest).await;
        let of_fetcher = [
            format!("--client-url={}", client.url),
            format!("--object-ttl={}s", OBJECT_TTL.as_secs()),
        ];
        let config = configure::<fetcher::Config>(world.flags(), &[&of_fetcher[1]]);
        world.will_use(&fetcher::topology(&config));
        let fetcher = start("fetcher", world.flags(), &of_fetcher).await;
        // The sweep takes nothing that is merely late.
        let of_janitor = ["--sweep-interval=1s", "--sweep-grace=1m"].map(str::to_owned);
        let janitor = start("janitor", world.flags(), &of_janitor).await;
        let accepting = ingest.0.until_logged("accepting callbacks").await;
        let callbacks = address_in(&accepting);
        let mut jobs = vec![
            Job::new("ingest", ingest.1),
            Job::new("fetcher", fetcher.1),
            Job::new("janitor", janitor.1),
        ];
        jobs.extend(broker_jobs(world));
        Self {
            prometheus: Prometheus::start(&jobs).await,
            _ingest: ingest.0,
            fetcher: fetcher.0,
            janitor: janitor.0,
            callbacks,
            way,
            _client: client,
        }
    }

    /// Waits until all is well: so many rows have been stored, and deleted, and all work queues are consumed.
    async fn until_well(&self, rows: f64) {
        for metric in [
            "sum(callback_pipeline_objects_stored_total)",
            "sum(callback_pipeline_objects_deleted_total)",
        ] {
            let all = async || (self.prometheus.query(metric).await == [rows]).then_some(());
            eventually(&format!("{metric} to be {rows}"), all).await;
        }
        let consumed = "rabbitmq_detailed_queue_consumers > 0";
        let all = async || (self.prometheus.query(consumed).await.len() == 3).then_some(());
        eventually("all work queues to be consumed", all).await;
    }
}

/// Starts a binary; returns it and its admin address.
async fn start(binary: &str, mut flags: Vec<String>, more: &[String]) -> (Process, SocketAddr) {
    flags.extend_from_slice(more);
    flags.push("--admin-address=127.0.0.1:0".to_owned());
    if binary == "ingest" {
        flags.push("--listen-address=127.0.0.1:0".to_owned());
    }
    let mut started = Process::started(binary, &flags);
    let starting = started.until_logged("starting").await;
    (started, address_in(&starting))
}

/// Both of RabbitMQ's, with what belongs to this test only: others use the broker too.
fn broker_jobs(world: &World) -> [Job; 2] {
    let metrics = world
        .broker_metrics
        .expect("the broker's metrics can be read");
    let keep = |name: &'static str, action: &str, label: &str, regex: &str, more: &str| Job {
        more: format!(
            "    metric_relabel_configs:\n      \
             - {{action: {action}, source_labels: [{label}], regex: '{regex}'}}\n{more}"
        ),
        ..Job::new(name, metrics)
    };
    let queues = format!("{}.*", world.prefix().replace('.', "[.]"));
    let detailed = "    metrics_path: /metrics/detailed\n    \
                    params: {family: [queue_coarse_metrics, queue_consumer_count]}\n";
    [
        keep(
            "rabbitmq",
            "drop",
            "__name__",
            "rabbitmq_global_messages_unroutable.*",
            "",
        ),
        keep("rabbitmq-queues", "keep", "queue", &queues, detailed),
    ]
}

/// Grafana's own variables in the expressions of the dashboard, and those of the dashboard when all is chosen.
const VARIABLES: [(&str, &str); 5] = [
    ("$__rate_interval", "5m"),
    ("$__range", "5m"),
    ("$namespace", ".*"),
    ("$job", ".*"),
    ("$instance", ".*"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_panel_has_something_to_show() {
    if cannot_watch() {
        return;
    }
    let world = &mut World::new().await;
    let watched = Watched::start(world).await;
    post_ids(watched.callbacks, &[2, 4, 6]).await;
    watched.until_well(3.0).await;
    let dashboard = include_str!("../../../deploy/grafana/dashboards/pipeline.json");
    let dashboard: Value = serde_json::from_str(dashboard).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels
        .filter_map(|panel| panel["targets"].as_array())
        .flatten();
    for target in targets {
        let mut expression = target["expr"].as_str().unwrap().to_owned();
        for (variable, value) in VARIABLES {
            expression = expression.replace(variable, value);
        }
        // What shows failures only, and while all is well nothing.
        if expression.ends_with("> 0") {
            continue;
        }
        let shows =
            async || (!watched.prometheus.query(&expression).await.is_empty()).then_some(());
        eventually(&format!("a value of {expression}"), shows).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_alert_fires_while_all_is_well_and_each_fault_makes_its_own_fire() {
    if cannot_watch() {
        return;
    }
    let world = &mut World::new().await;
    let watched = Watched::start(world).await;
    let prometheus = &watched.prometheus;
    post_ids(watched.callbacks, &[2, 4, 6]).await;
    watched.until_well(3.0).await;
    // Where the machine stood still, rows were late, and these alerts are right.
    let right = [
        ("0.1", "ErrorBudgetBurnsFast"),
        ("0.1", "ErrorBudgetBurnsSlowly"),
        ("1.0", "DeletionsLate"),
    ];
    let none = async || {
        let mut firing = prometheus.firing().await;
        for (bound, name) in right {
            let late = format!(
                "callback_pipeline_object_deletion_lateness_seconds_bucket{{le='{bound}'}} < 3"
            );
            if !prometheus.query(&late).await.is_empty() {
                firing.retain(|alert| alert["alertname"] != name);
            }
        }
        firing.is_empty().then_some(())
    };
    eventually("no alert to fire", none).await;

    let queue = |name: &str| format!("{}{name}", world.prefix());
    post_ids(watched.callbacks, &[REFUSED]).await;
    let dead = queue("objects.dead");
    prometheus
        .until_fires("DeadLetters", ("queue", &dead))
        .await;

    watched.janitor.signal("STOP").await;
    post_ids(watched.callbacks, &[8]).await;
    prometheus
        .until_fires("ProcessMissing", ("job", "janitor"))
        .await;
    let late = format!(
        "select count(*) from objects where id = 8 and expires_at < now() - interval '{} s'",
        3 * OBJECT_TTL.as_secs()
    );
    let is_late = async || (world.database.number(&late).await == 1).then_some(());
    eventually("the row to be late", is_late).await;
    watched.janitor.signal("CONT").await;
    prometheus
        .until_fires("DeletionsLate", ("job", "janitor"))
        .await;

    watched.way.set(Network::Cut);
    prometheus
        .until_fires("BrokerDown", ("job", "ingest"))
        .await;
    post_ids(watched.callbacks, &[10]).await;
    prometheus
        .until_fires("SpoolNotEmpty", ("job", "ingest"))
        .await;
    watched.way.set(Network::Pass);

    watched.fetcher.signal("KILL").await;
    let fetch = queue("objects.fetch");
    prometheus
        .until_fires("ProcessMissing", ("job", "fetcher"))
        .await;
    prometheus
        .until_fires("NoConsumers", ("queue", &fetch))
        .await;
    let stuck: Vec<i64> = (1_000..1_050).collect();
    post_ids(watched.callbacks, &stuck).await;
    prometheus
        .until_fires("ErrorBudgetBurnsFast", ("objective", "ids"))
        .await;
}
