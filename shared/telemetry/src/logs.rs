//! The log of a process.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use settings::Value;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format;

use crate::log_lines::WithTrace;
use crate::log_writer::LogWriter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

impl Value for LogFormat {
    fn parse(raw: &str) -> Result<Self, String> {
        match raw {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(format!("{raw:?} is not text or json")),
        }
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
            // The library would take any other word for a target, and silence all other targets.
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

settings::settings! {
    /// Settings of logs.
    pub struct LogSettings {
        /// Which log lines are written: a level (error, warn, info, debug, trace), or
        /// target=level pairs separated by commas. lapin is off by default because the
        /// pipeline logs the same events, with their consequences.
        pub log: LogFilter = "info,lapin=off",
        /// How log lines are written: text (for people) or json (for machines).
        pub log_format: LogFormat = "text",
    } with {}
}

/// The targets that are never logged: at the level trace they write passwords.
const WITHHELD: &str = "lapin::io_loop=off,lapin::frames=off";

/// How long a process that ends waits for its last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Writes the log, once logging has begun.
static LOG: OnceLock<LogWriter> = OnceLock::new();

/// Begins to log to the standard output, panics included. Only the end of the process waits for lines
/// to be written, with [`finish_logs`].
///
/// # Errors
/// Logging has been begun before.
pub fn init_logs(settings: &LogSettings) -> anyhow::Result<()> {
    let filter = format!("{},{WITHHELD}", settings.log.0);
    let filter = EnvFilter::try_new(filter).context("reading the log filter")?;
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // `Stdout` of the standard library would keep what could not be written, and hold a lock.
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

/// Waits for the last lines to be written, for a second at most. Later lines are not logged: tasks that
/// are cut off when the process ends may complain.
pub fn finish_logs() {
    if let Some(writer) = LOG.get() {
        writer.finish(FLUSH_TIMEOUT);
    }
}

/// Writes to the standard error what must be seen even without a log. It gives up when nobody reads the
/// text within a second, or when it cannot be written.
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
