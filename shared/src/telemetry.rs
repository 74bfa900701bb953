//! Structured logs and metrics of a process.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;

use crate::config::{Value, parse_with_envy};

/// How log lines are written.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl Value for LogFormat {
    fn parse(raw: &str) -> Result<Self, String> {
        parse_with_envy(raw)
    }

    fn show(&self) -> String {
        format!("{self:?}").to_lowercase()
    }
}

/// Which log lines are written: a level, or `target=level` pairs separated by commas.
#[derive(Clone, Debug)]
pub struct LogFilter(String);

impl Value for LogFilter {
    fn parse(raw: &str) -> Result<Self, String> {
        EnvFilter::try_new(raw).map_err(|error| error.to_string())?;
        Ok(Self(raw.to_owned()))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

crate::settings! {
    /// Settings of logs.
    pub struct LogSettings {
        /// Which log lines are written: a level (error, warn, info, debug, trace), or target=level
        /// pairs separated by commas. What lapin, deadpool and refinery log is logged once more, with what
        /// follows from it.
        pub log: LogFilter = "info,lapin=off,deadpool=off,refinery_core=off",
        /// How log lines are written: text (for people) or json (for machines).
        pub log_format: LogFormat = "text",
    } with {}
}

/// Begins to log to the standard output, panics included.
///
/// # Errors
/// Logging has been begun before.
pub fn init_logs(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log.0).context("reading the log filter")?;
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(colours);
    let begun = match settings.log_format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("beginning to log: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(panic = %panic, "a task panicked");
    }));
    Ok(())
}

/// A duration as log lines give it: in milliseconds, to the microsecond.
#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Upper bounds of histogram buckets for durations, in seconds.
const SECONDS: [f64; 16] = [
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// Begins to collect metrics. A process has one recorder: a second call returns the handle of the
/// first.
///
/// # Errors
/// Another recorder is installed already.
pub fn init_metrics() -> anyhow::Result<PrometheusHandle> {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    if let Some(handle) = HANDLE.get() {
        return Ok(handle.clone());
    }
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
        .and_then(PrometheusBuilder::install_recorder)
        .context("installing the metrics recorder")?;
    Ok(HANDLE.get_or_init(|| handle).clone())
}
