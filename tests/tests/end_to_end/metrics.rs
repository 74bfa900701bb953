//! What the binaries show on `/metrics` is what the catalogue says, by Prometheus' conventions.

use std::net::SocketAddr;
use std::process::Stdio;

use http::StatusCode;
use metric_definitions::{Description, Kind};
use process::{ProcessConfig, ask};
use tests::client::{Exposition, Family, post, post_ids};
use tests::processes::{Process, address_in};
use tests::servers::programs;
use tests::wait::eventually;
use tests::world::World;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::binaries::started;

/// An even id, which is online, that no number among the metrics can be taken for.
const ID: i64 = 7_654_321_234_567_890;

/// All four binaries, connected to each other.
struct Pipeline {
    ingest: SocketAddr,
    /// In the order of a callback, with their admin addresses.
    binaries: Vec<(&'static str, SocketAddr)>,
    running: Vec<Process>,
}

impl Pipeline {
    async fn start(world: &mut World) -> Self {
        let mut pipeline = Self {
            ingest: SocketAddr::from(([127, 0, 0, 1], 0)),
            binaries: Vec::new(),
            running: Vec::new(),
        };
        let accepting = Some("accepting callbacks");
        pipeline.ingest = pipeline.add(world, "ingest", &[], accepting).await;
        let mock = [
            &format!("--callback-url=http://{}/callback", pipeline.ingest),
            "--callback-interval=1h",
            "--latency-min=1ms",
            "--latency-max=1ms",
        ];
        let answering = Some("answering look-ups");
        let mock = pipeline.add(world, "mock-client", &mock, answering).await;
        let fetcher = [&format!("--client-url=http://{mock}"), "--object-ttl=1s"];
        pipeline.add(world, "fetcher", &fetcher, None).await;
        pipeline
            .add(
                world,
                "janitor",
                &["--sweep-interval=200ms", "--sweep-grace=1m"],
                None,
            )
            .await;
        pipeline
    }

    /// Starts a binary, and returns the address in the line of its log that has `serving`, or else
    /// that of its admin port.
    async fn add(
        &mut self,
        world: &mut World,
        binary: &'static str,
        flags: &[&str],
        serving: Option<&str>,
    ) -> SocketAddr {
        let flags: Vec<&str> = flags.iter().copied().chain(["--log-format=json"]).collect();
        let mut started = started(world, binary, &flags).await;
        let admin = address_in(&started.lines[0]);
        self.binaries.push((binary, admin));
        let serving = match serving {
            Some(text) => address_in(&started.until_logged(text).await),
            None => admin,
        };
        self.running.push(started);
        serving
    }

    /// Brings callbacks from their start to the deletion of their rows, and one that is refused.
    async fn drive(&self) {
        for (binary, admin) in &self.binaries {
            eventually(&format!("readiness of {binary}"), async || {
                (ask(*admin, "/readyz").await.unwrap().0 == StatusCode::OK).then_some(())
            })
            .await;
        }
        post_ids(self.ingest, &[ID, ID + 1]).await;
        assert_eq!(post(self.ingest, "{").await.status, StatusCode::BAD_REQUEST);
        let deleted = [("by", "message")];
        self.until_shown(
            "janitor",
            "callback_pipeline_objects_deleted_total",
            &deleted,
        )
        .await;
        self.until_shown("janitor", "callback_pipeline_sweep_duration_seconds", &[])
            .await;
        // What it follows from has survived the delay queue.
        self.until_shown("janitor", "callback_pipeline_consumer_lag_seconds", &[])
            .await;
    }

    async fn until_shown(&self, binary: &str, name: &str, labels: &[(&str, &str)]) {
        eventually(name, async || {
            let shown = Exposition::read(&self.scrape(binary).await);
            (shown.sum(name, labels) > 0.0).then_some(())
        })
        .await;
    }

    async fn scrape(&self, binary: &str) -> String {
        let mut binaries = self.binaries.iter();
        let (_, admin) = binaries.find(|(name, _)| *name == binary).unwrap();
        let (status, body) = ask(*admin, "/metrics").await.unwrap();
        assert_eq!(status, StatusCode::OK);
        String::from_utf8(body.into()).unwrap()
    }
}

fn catalogue(binary: &str) -> Vec<Description> {
    let parts = match binary {
        "ingest" => ingest::Config::METRICS,
        "fetcher" => fetcher::Config::METRICS,
        "janitor" => janitor::Config::METRICS,
        _ => mock_client::Config::METRICS,
    };
    parts.concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_binary_shows_the_metrics_of_the_catalogue_and_no_others() {
    let world = &mut World::new().await;
    let pipeline = Pipeline::start(world).await;
    pipeline.drive().await;
    for (binary, _) in &pipeline.binaries {
        let text = pipeline.scrape(binary).await;
        for id in [ID, ID + 1] {
            assert!(!text.contains(&id.to_string()), "{binary}: {text}");
        }
        let shown = Exposition::read(&text);
        let catalogue = catalogue(binary);
        for (name, family) in &shown.0 {
            let listed = catalogue.iter().find(|listed| listed.name == name);
            match listed {
                Some(listed) => assert_is(family, listed),
                None => assert!(
                    name.starts_with("process_") || name == "target_info",
                    "{binary} shows {name}"
                ),
            }
        }
        for listed in &catalogue {
            let family = shown.0.get(listed.name);
            assert!(
                family.is_some_and(|family| shows_all(family, listed)),
                "{binary}: {} is {family:?}",
                listed.name
            );
        }
    }
}

/// The family is of the listed type, and has no labels or values that are not listed.
fn assert_is(family: &Family, listed: &Description) {
    let name = listed.name;
    assert_eq!(family.help.as_deref(), Some(listed.help), "{name}");
    assert_eq!(family.kind.as_deref(), Some(listed.kind.name()), "{name}");
    for labels in family.samples.keys() {
        assert_eq!(labels.len(), listed.labels().len(), "{name}: {labels:?}");
        for (label, values) in listed.labels() {
            let value = labels.get(label).map_or("", String::as_str);
            let is_known = values.is_empty() || values.contains(&value);
            assert!(!value.is_empty() && is_known, "{name}: {labels:?}");
        }
    }
}

/// A counter, or a histogram, is there for all its labels' values; a gauge for one at least.
fn shows_all(family: &Family, listed: &Description) -> bool {
    let combinations: usize = listed
        .labels()
        .iter()
        .map(|(_, values)| values.len())
        .product();
    match listed.kind {
        Kind::Counter | Kind::Histogram => family.samples.len() == combinations,
        Kind::Gauge => !family.samples.is_empty(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_finds_nothing_to_complain_about() {
    if programs::is_missing("promtool") {
        return;
    }
    let world = &mut World::new().await;
    let pipeline = Pipeline::start(world).await;
    pipeline.drive().await;
    for (binary, _) in &pipeline.binaries {
        let text = pipeline.scrape(binary).await;
        let mut promtool = Command::new(programs::find("promtool").unwrap())
            .args(["check", "metrics"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // Dropped with the statement, which ends what promtool reads.
        promtool
            .stdin
            .take()
            .unwrap()
            .write_all(text.as_bytes())
            .await
            .unwrap();
        let output = promtool.wait_with_output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(
            output.status.success() && said.is_empty(),
            "{binary}: {said}\n{text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_metrics_there_are_none() {
    let world = &mut World::new().await;
    let flags = ["--metrics=false", "--log-format=json"];
    let janitor = started(world, "janitor", &flags).await;
    let admin = address_in(&janitor.lines[0]);
    let (status, body) = ask(admin, "/metrics").await.unwrap();
    assert_eq!((status, body.as_ref()), (StatusCode::OK, &b""[..]));
}
