//! The metrics of a process, as Prometheus reads them.

use std::fmt::{Display, Error};
use std::sync::Arc;

use metric_definitions::{Description, register};
use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::process_metrics::ProcessMetrics;

/// The metrics of the process, as `/metrics` shows them.
#[derive(Clone, Debug)]
pub struct Exposition(Arc<Registry>);

/// How `/metrics` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, which all scrapers read.
    Text,
    /// `OpenMetrics`, which has exemplars.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for: `OpenMetrics` only if it is named, and not less welcome
    /// than text.
    #[must_use]
    pub fn accepted(header: &str) -> Self {
        let text = quality(header, "text/plain", "0.0.4");
        let open_metrics = quality(header, "application/openmetrics-text", "1.0.0");
        match open_metrics {
            Some(open) if open.is_named && open.quality > 0.0 => match text {
                Some(text) if text.quality > open.quality => Self::Text,
                _ => Self::OpenMetrics,
            },
            _ => Self::Text,
        }
    }

    /// Its `Content-Type`.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// How welcome a format is.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
struct Welcome {
    /// By its name, which counts for more than a range that it is in.
    is_named: bool,
    quality: f64,
}

/// How welcome a media type is by an `Accept` header; `None` if nothing in it matches.
fn quality(header: &str, media_type: &str, version: &str) -> Option<Welcome> {
    let welcomes = header.split(',').filter_map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next()?;
        let is_named = name.eq_ignore_ascii_case(media_type);
        let mut quality = 1.0;
        for (name, value) in parts.filter_map(|part| part.split_once('=')) {
            match name.to_ascii_lowercase().as_str() {
                "q" => quality = value.parse().unwrap_or(0.0),
                "version" if value.trim_matches('"') != version => return None,
                _ => {}
            }
        }
        (is_named || name == "*/*" || is_wildcard_of(name, media_type))
            .then_some(Welcome { is_named, quality })
    });
    welcomes.max_by(|one, other| {
        let order = one.partial_cmp(other);
        order.unwrap_or(std::cmp::Ordering::Equal)
    })
}

/// Whether a range is that of all types of the same kind, such as `text/*`.
fn is_wildcard_of(range: &str, media_type: &str) -> bool {
    let kind = range.strip_suffix("/*");
    kind.is_some_and(|kind| {
        let all = media_type.split('/').next();
        all.is_some_and(|all| all.eq_ignore_ascii_case(kind))
    })
}

impl Exposition {
    /// All of them.
    ///
    /// # Errors
    /// A metric cannot be written.
    pub fn render(&self, format: Format) -> Result<String, Error> {
        let mut written = String::new();
        match format {
            Format::Text => prometheus_text::encode(&mut written, &self.0)?,
            Format::OpenMetrics => text::encode(&mut written, &self.0)?,
        }
        Ok(written)
    }
}

/// Begins to collect metrics. `resource` says who the process is, as its spans do.
///
/// # Errors
/// Metrics are collected already.
pub fn init_metrics<'a, V: Display>(
    resource: impl IntoIterator<Item = (&'a str, V)>,
    of_the_process: impl IntoIterator<Item = &'a Description>,
) -> anyhow::Result<Exposition> {
    let mut registry = Registry::default();
    // OpenMetrics has it first.
    let target = Info::new(labels(resource));
    registry.register(
        "target",
        "Which process this is, as its spans say it",
        target,
    );
    register(&mut registry, of_the_process)?;
    registry.register_collector(Box::new(ProcessMetrics));
    Ok(Exposition(Arc::new(registry)))
}

/// Attributes as labels, by OpenTelemetry's rules: what a label's name cannot have becomes `_`, and values
/// whose names are the same then are joined.
fn labels<'a, V: Display>(
    attributes: impl IntoIterator<Item = (&'a str, V)>,
) -> Vec<(String, String)> {
    let mut labels: Vec<(String, String)> = Vec::new();
    let mut attributes: Vec<_> = attributes.into_iter().collect();
    attributes.sort_unstable_by_key(|(name, _)| *name);
    for (name, value) in attributes {
        let is_bad = |character: char| !character.is_ascii_alphanumeric();
        let mut name = name.replace(is_bad, "_");
        if name.starts_with(|first: char| first.is_ascii_digit()) {
            name.insert(0, '_');
        }
        match labels.iter_mut().find(|(other, _)| *other == name) {
            Some((_, values)) => {
                values.push(';');
                values.push_str(&value.to_string());
            }
            None => labels.push((name, value.to_string())),
        }
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_are_given_to_those_who_name_them() {
        for header in [
            "application/openmetrics-text",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "Application/OpenMetrics-Text;version=\"1.0.0\", text/plain",
            // Prometheus 2 and 3.
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,\
             text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            "text/plain;q=0.4, */*;q=0.9, application/openmetrics-text;q=0.5",
        ] {
            assert_eq!(Format::accepted(header), Format::OpenMetrics, "{header}");
        }
    }

    #[test]
    fn all_others_get_text() {
        for header in [
            "",
            "*/*",
            "text/*",
            "application/*",
            "application/json",
            "text/plain",
            "text/plain;version=0.0.4;q=0.5,application/openmetrics-text;q=0.4",
            "application/openmetrics-text;q=0.5,*/*",
            "application/openmetrics-text;q=0",
            "application/openmetrics-text;q=much",
            "application/openmetrics-text;version=2.0.0",
            ";;,=;q,",
        ] {
            assert_eq!(Format::accepted(header), Format::Text, "{header}");
        }
    }

    #[test]
    fn attributes_become_labels() {
        let attributes = [
            ("service.name", "a"),
            ("a-b", "1"),
            ("a.b", "2"),
            ("7", "x"),
        ];
        let labels = labels(attributes);
        let shown: Vec<_> = labels
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        assert_eq!(shown, [("_7", "x"), ("a_b", "1;2"), ("service_name", "a")]);
    }
}
