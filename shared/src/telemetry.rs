//! Structured logs and metrics of a process.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format;

use crate::config::{Value, parse_with_envy};
use crate::log_writer::LogWriter;
use crate::trace::WithTrace;

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
        let directives: Vec<&str> = raw.split(',').map(str::trim).collect();
        for directive in &directives {
            let level = directive
                .rsplit_once('=')
                .map_or(*directive, |(_, level)| level);
            // A word that is no level would be taken for a target, which silences all others.
            if level.is_empty() || level.parse::<LevelFilter>().is_err() {
                return Err(format!(
                    "{level:?} is not a level: error, warn, info, debug, trace or off"
                ));
            }
        }
        let filter = directives.join(",");
        EnvFilter::try_new(&filter).map_err(|error| error.to_string())?;
        Ok(Self(filter))
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

crate::settings! {
    /// Settings of logs.
    pub struct LogSettings {
        /// Which log lines are written: a level (error, warn, info, debug, trace), or target=level
        /// pairs separated by commas. What lapin logs is logged once more, with what follows from it.
        pub log: LogFilter = "info,lapin=off",
        /// How log lines are written: text (for people) or json (for machines).
        pub log_format: LogFormat = "text",
    } with {}
}

/// How long a process that ends waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What writes the log, once it has begun.
static LOG: OnceLock<LogWriter> = OnceLock::new();

/// Begins to log to the standard output, panics included. Nothing waits for a line to be written:
/// the end of the process does, with [`finish_logs`].
///
/// # Errors
/// Logging has been begun before.
pub fn init_logs(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&settings.log.0).context("reading the log filter")?;
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Not by way of the library's `Stdout`, which keeps what could not be written and a lock.
    let output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let writer = LogWriter::start(output, |dropped| {
        tracing::warn!("{dropped} log lines were dropped");
    })
    .context("starting to write logs")?;
    let lines = writer.clone();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || lines.clone())
        .log_internal_errors(false);
    let format = format().with_target(false);
    let begun = match settings.log_format {
        LogFormat::Text => builder
            .event_format(WithTrace::text(format.with_ansi(colours)))
            .try_init(),
        LogFormat::Json => builder
            .json()
            .event_format(WithTrace::json(
                format.json().flatten_event(true).with_current_span(false),
            ))
            .try_init(),
    };
    begun.map_err(|error| anyhow::anyhow!("beginning to log: {error}"))?;
    LOG.get_or_init(|| writer);
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(panic = %panic, "a task panicked");
    }));
    Ok(())
}

/// Waits for the last lines to be written, for as long as that is worth it. What is cut off when the
/// process ends may complain, and is not logged any more.
pub fn finish_logs() {
    if let Some(writer) = LOG.get() {
        writer.finish(FLUSH_TIMEOUT);
    }
}

/// Writes to the standard error what has to be seen also where no log is begun. It is given up where
/// nobody reads it, or where it cannot be written.
pub fn write_to_stderr(text: &str) {
    let output = io::stderr().as_fd().try_clone_to_owned().map(File::from);
    let writer = output.and_then(|output| LogWriter::start(output, |_| {}));
    if let Ok(mut writer) = writer {
        drop(writeln!(writer, "{text}"));
        writer.flush(FLUSH_TIMEOUT);
    }
}

/// A duration as log lines give it: in milliseconds, to the microsecond.
#[must_use]
pub fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Upper bounds of histogram buckets for durations, in seconds.
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

/// The same for look-ups, most of which take 0.3 s to 4.3 s.
const FETCH_SECONDS: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0,
    4.5, 5.0, 10.0,
];

/// The same for what can be late by as long as a process is away.
const LATE_SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 900.0, 3_600.0,
];

/// The same for rows in a statement.
const ROWS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0,
];

/// Names, or ends of names, and their buckets; a whole name goes before an end.
fn buckets() -> [(Matcher, &'static [f64]); 5] {
    let full = |name: &str| Matcher::Full(name.to_owned());
    let suffix = |end: &str| Matcher::Suffix(end.to_owned());
    [
        (suffix("_seconds"), SECONDS),
        (full("fetch_duration_seconds"), FETCH_SECONDS),
        (full("consumer_lag_seconds"), LATE_SECONDS),
        (full("object_deletion_lateness_seconds"), LATE_SECONDS),
        (suffix("_rows"), ROWS),
    ]
}

/// The metrics of the process, as `/metrics` shows them.
#[derive(Clone, Debug)]
pub struct Exposition {
    handle: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Exposition {
    /// All of them, in Prometheus' text format.
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
        self.handle.render()
    }

    /// Takes up the samples that histograms keep until someone asks: without it they would grow.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Begins to collect metrics. A process has one recorder: a second call returns what the first did.
///
/// # Errors
/// Another recorder is installed already.
pub fn init_metrics() -> anyhow::Result<Exposition> {
    static EXPOSITION: OnceLock<Exposition> = OnceLock::new();
    if let Some(exposition) = EXPOSITION.get() {
        return Ok(exposition.clone());
    }
    let handle = buckets()
        .iter()
        .try_fold(PrometheusBuilder::new(), |builder, (name, bounds)| {
            builder.set_buckets_for_metric(name.clone(), bounds)
        })
        .and_then(PrometheusBuilder::install_recorder)
        .context("installing the metrics recorder")?;
    let process = metrics_process::Collector::default();
    process.describe();
    let exposition = Exposition { handle, process };
    Ok(EXPOSITION.get_or_init(|| exposition).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_filter_is_levels_and_targets_with_levels() {
        for (raw, filter) in [
            ("info", "info"),
            ("WARN\n", "WARN"),
            ("info, lapin=off", "info,lapin=off"),
            (" off ,fetcher::retry=trace ", "off,fetcher::retry=trace"),
        ] {
            assert_eq!(LogFilter::parse(raw).unwrap().show(), filter);
        }
    }

    #[test]
    fn a_log_filter_with_a_typo_is_refused_by_name() {
        for (raw, named) in [
            ("warning", "warning"),
            ("inof", "inof"),
            ("info,lapin", "lapin"),
            ("info,lapin=of", "of"),
            ("info,", ""),
            ("", ""),
        ] {
            let error = LogFilter::parse(raw).unwrap_err();
            assert!(error.starts_with(&format!("{named:?} ")), "{raw}: {error}");
        }
    }
}
