//! The Prometheus of a test, with the alerts that are deployed.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use http::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::client::send;
use crate::servers::programs;
use crate::wait::{BOUND, eventually};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus");

/// What is scraped, as a part of Prometheus' configuration.
#[derive(Debug)]
pub struct Job {
    /// Name, by which the alerts know it.
    pub name: &'static str,
    /// Where it is.
    pub target: String,
    /// More lines of its configuration.
    pub more: String,
}

impl Job {
    /// A process with its metrics in the usual place.
    #[must_use]
    pub fn new(name: &'static str, target: SocketAddr) -> Self {
        Self {
            name,
            target: target.to_string(),
            more: String::new(),
        }
    }
}

/// A Prometheus that scrapes and evaluates each second. It is killed when dropped.
pub struct Prometheus {
    address: SocketAddr,
    _child: Child,
    _folder: TempDir,
}

impl Prometheus {
    /// Starts it, and waits until it has scraped every job.
    pub async fn start(jobs: &[Job]) -> Self {
        let folder = TempDir::new().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write("prometheus.yml", &configuration(jobs));
        for file in ["objectives.yml", "alerts.yml"] {
            let rules = std::fs::read_to_string(Path::new(RULES).join(file)).unwrap();
            write(file, &impatient(&rules));
        }
        let mut child =
            Command::new(programs::find("prometheus").expect("Prometheus is not installed"))
                .arg("--config.file=prometheus.yml")
                .arg("--storage.tsdb.path=data")
                .arg("--enable-feature=exemplar-storage")
                .arg("--web.listen-address=127.0.0.1:0")
                .current_dir(folder.path())
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
        let address = listening(&mut child).await;
        let prometheus = Self {
            address,
            _child: child,
            _folder: folder,
        };
        eventually("Prometheus to be ready", async || {
            let answer = send(address, Method::GET, "/-/ready", "").await;
            answer.status.is_success().then_some(())
        })
        .await;
        eventually("every job to be scraped", async || {
            let up = prometheus.query("up == 1").await;
            (up.len() == jobs.len()).then_some(())
        })
        .await;
        prometheus
    }

    /// The values of the series that an expression has now, without those that are not a number.
    pub async fn query(&self, expression: &str) -> Vec<f64> {
        let data = self.ask("query", expression).await;
        let series = data["result"].as_array().unwrap();
        let values = series.iter().map(|series| series["value"][1].as_str());
        let values = values.map(|value| value.unwrap().parse::<f64>().unwrap());
        values.filter(|value| !value.is_nan()).collect()
    }

    /// The labels of all exemplars that it has of the series in an expression.
    pub async fn exemplars(&self, expression: &str) -> Vec<Value> {
        let data = self.ask("query_exemplars", expression).await;
        let series = data.as_array().unwrap().iter();
        let exemplars = series.flat_map(|series| series["exemplars"].as_array().unwrap());
        exemplars.map(|one| one["labels"].clone()).collect()
    }

    /// What its API says about an expression.
    async fn ask(&self, what: &str, expression: &str) -> Value {
        let mut path = format!("/api/v1/{what}?query=");
        for byte in expression.bytes() {
            write!(path, "%{byte:02X}").unwrap();
        }
        let mut answer = send(self.address, Method::GET, &path, "").await.body;
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
        answer["data"].take()
    }

    /// The labels of the alerts that fire now.
    pub async fn firing(&self) -> Vec<Value> {
        let answer = send(self.address, Method::GET, "/api/v1/alerts", "")
            .await
            .body;
        let alerts = answer["data"]["alerts"].as_array().unwrap();
        let firing = alerts.iter().filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"].clone()).collect()
    }

    /// Waits until an alert fires that has this value in this label.
    pub async fn until_fires(&self, name: &str, (label, value): (&str, &str)) {
        eventually(&format!("{name} with {label} {value}"), async || {
            let firing = self.firing().await;
            let fires = |alert: &Value| alert["alertname"] == name && alert[label] == value;
            firing.iter().any(fires).then_some(())
        })
        .await;
    }
}

fn configuration(jobs: &[Job]) -> String {
    let mut text = "global: {scrape_interval: 1s, evaluation_interval: 1s}\n\
                    rule_files: [objectives.yml, alerts.yml]\n\
                    scrape_configs:\n"
        .to_owned();
    for Job { name, target, more } in jobs {
        let job = format!(
            "  - job_name: {name}\n    static_configs: [{{targets: ['{target}']}}]\n{more}"
        );
        text.push_str(&job);
    }
    text
}

/// The alerts, firing after two seconds where they would wait for minutes. Nothing else is changed.
fn impatient(alerts: &str) -> String {
    let lines = alerts.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) if indent.trim().is_empty() => format!("{indent}for: 2s\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}

/// The address that it says it listens on.
async fn listening(child: &mut Child) -> SocketAddr {
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut read = Vec::new();
    let address = timeout(BOUND, async {
        while let Some(line) = log.next_line().await.unwrap() {
            let address = line
                .rsplit_once("msg=\"Listening on\"")
                .map(|(_, rest)| rest);
            if let Some((_, address)) = address.and_then(|rest| rest.split_once("address=")) {
                return address.trim().parse().unwrap();
            }
            read.push(line);
        }
        panic!("Prometheus does not start: {read:#?}");
    });
    let address = address.await.expect("Prometheus starts in time");
    // Its log has nowhere else to go, and it would wait for a reader.
    tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
    address
}
