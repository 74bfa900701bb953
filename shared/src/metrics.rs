//! The catalogue of metrics: what each is called, what it says, and which values its labels have.
//!
//! A process describes those that it has at its boot, and shows them from zero on: Prometheus does
//! not see the first increment of a counter that appears with it.

use metrics::{Gauge, Label};

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by their size.
    Histogram,
}

impl Kind {
    /// Its name in Prometheus' text format.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label, and the values that it can have; an empty list where they are not known beforehand.
pub type Values = (&'static str, &'static [&'static str]);

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Name, in base units.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// What it says.
    pub help: &'static str,
    /// Its labels.
    pub labels: &'static [Values],
    /// Whether it is 0 until something happens.
    from_zero: bool,
}

impl Description {
    /// A counter, which begins at 0.
    #[must_use]
    pub const fn counter(name: &'static str, help: &'static str) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            help,
            labels: &[],
            from_zero: true,
        }
    }

    /// A gauge, which is not there until it is set.
    #[must_use]
    pub const fn gauge(name: &'static str, help: &'static str) -> Self {
        Self {
            kind: Kind::Gauge,
            from_zero: false,
            ..Self::counter(name, help)
        }
    }

    /// A histogram, which begins without observations.
    #[must_use]
    pub const fn histogram(name: &'static str, help: &'static str) -> Self {
        Self {
            kind: Kind::Histogram,
            ..Self::counter(name, help)
        }
    }

    /// The same with labels.
    #[must_use]
    pub const fn by(self, labels: &'static [Values]) -> Self {
        Self { labels, ..self }
    }

    /// The same for a gauge that is 0 until something happens.
    #[must_use]
    pub const fn from_zero(self) -> Self {
        Self {
            from_zero: true,
            ..self
        }
    }

    fn describe(&self) {
        match self.kind {
            Kind::Counter => metrics::describe_counter!(self.name, self.help),
            Kind::Gauge => metrics::describe_gauge!(self.name, self.help),
            Kind::Histogram => metrics::describe_histogram!(self.name, self.help),
        }
    }

    fn show_zero(&self) {
        for labels in self.combinations() {
            match self.kind {
                Kind::Counter => metrics::counter!(self.name, labels).increment(0),
                Kind::Gauge => metrics::gauge!(self.name, labels).set(0),
                Kind::Histogram => drop(metrics::histogram!(self.name, labels)),
            }
        }
    }

    /// Every combination of the labels' values: one if there are no labels, none if one of them can
    /// have any value.
    fn combinations(&self) -> Vec<Vec<Label>> {
        let mut combinations = vec![Vec::new()];
        for (label, values) in self.labels {
            let longer = combinations.iter().flat_map(|shorter: &Vec<Label>| {
                values.iter().map(|value| {
                    let last = Label::from_static_parts(label, value);
                    shorter.iter().cloned().chain([last]).collect()
                })
            });
            combinations = longer.collect();
        }
        combinations
    }
}

/// Says what the metrics mean, and shows those that are 0 until something happens.
pub fn announce<'a>(descriptions: impl IntoIterator<Item = &'a Description>) {
    for description in descriptions {
        description.describe();
        if description.from_zero {
            description.show_zero();
        }
    }
}

/// Counts something in a gauge for as long as it goes on, also when it is given up or panics.
pub struct InFlight(Gauge);

impl InFlight {
    /// From now on there is one more.
    #[must_use]
    pub fn in_gauge(gauge: Gauge) -> Self {
        gauge.increment(1);
        Self(gauge)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

/// Of every process.
pub const PROCESS: &[Description] = &[
    Description::gauge(
        "build_info",
        "Always 1; the labels say which process of which version this is.",
    )
    .by(&[("process", &[]), ("version", &[])]),
    Description::counter(
        "log_lines_dropped_total",
        "Log lines that nobody read in time, or that could not be written, as on a full disk.",
    ),
    Description::counter(
        "trace_spans_exported_total",
        "Spans that the collector has taken.",
    ),
    Description::counter(
        "trace_spans_dropped_total",
        "Spans that the collector did not take, or that found no place among those that wait for it.",
    ),
];

/// Of every process that depends on something; which dependencies there are is its own.
pub const DEPENDENCY_UP: Description = Description::gauge(
    "dependency_up",
    "Whether what the process depends on is reachable: 1 or 0.",
);

/// Of HTTP servers, which admin ports are too.
pub const HTTP_SERVER: &[Description] = &[
    Description::counter(
        "http_connections_refused_total",
        "Connections above the limit that were answered 503 and closed.",
    ),
    Description::counter(
        "http_connections_displaced_total",
        "Connections that were closed to make room for others, since their clients sent nothing.",
    ),
    Description::counter(
        "http_requests_malformed_total",
        "Requests that were answered 400 or 431, since their head is not HTTP, is too large, or names no host.",
    ),
    Description::counter(
        "http_requests_panicked_total",
        "Requests that were answered 500 because of a defect, which the log describes.",
    ),
];

const ROLES: &[Values] = &[("role", &["publisher", "consumer"])];

/// Of processes that are connected to the broker.
pub const BROKER: &[Description] = &[
    Description::counter(
        "broker_connections_opened_total",
        "Connections to the broker that were opened.",
    )
    .by(ROLES),
    Description::counter(
        "broker_connection_failures_total",
        "Connections to the broker that failed, or could not be opened.",
    )
    .by(ROLES),
    Description::gauge(
        "broker_confirms_in_flight",
        "Messages that were published and are not confirmed yet.",
    )
    .from_zero(),
    Description::histogram(
        "broker_confirm_duration_seconds",
        "How long it took until a message was sent and the broker had confirmed or refused it.",
    ),
    Description::counter(
        "broker_publishes_total",
        "Messages published, by what the broker said in time. What is not confirmed is published \
         again, or goes to the spool, and counts each time.",
    )
    .by(&[(
        "outcome",
        &["confirmed", "refused", "unconfirmed", "blocked"],
    )]),
];

/// Of processes that consume a queue.
pub const CONSUMER: &[Description] = &[
    Description::histogram(
        "consumer_lag_seconds",
        "How long messages had been due when they were taken: the time since they were published, \
         less their delay. The clocks of two hosts are compared.",
    ),
    Description::gauge(
        "consumer_last_lag_seconds",
        "How long the message that was taken last had been due.",
    ),
    Description::counter(
        "messages_consumed_total",
        "Messages worked on, by what became of them. One that comes again counts again.",
    )
    .by(&[("outcome", &["done", "requeued", "dead"])]),
];

/// Of processes that consume a queue; which reasons there are is their own.
pub const DEAD_LETTERS: Description = Description::counter(
    "dead_letters_total",
    "Messages published to objects.dead, by the kind of reason.",
);

/// Of processes that are connected to the database.
pub const DATABASE: &[Description] = &[
    Description::counter(
        "database_connections_opened_total",
        "Connections to the database that were opened.",
    ),
    Description::counter(
        "database_conflicts_total",
        "Statements that lost against a concurrent one and were tried again at once.",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn combinations(labels: &'static [Values]) -> Vec<String> {
        let description = Description::counter("some_total", "Some.").by(labels);
        let shown = |labels: Vec<Label>| {
            let pairs: Vec<String> = labels
                .iter()
                .map(|label| format!("{}={}", label.key(), label.value()))
                .collect();
            pairs.join(",")
        };
        description.combinations().into_iter().map(shown).collect()
    }

    #[test]
    fn every_combination_of_known_values_is_shown_from_the_start() {
        assert_eq!(combinations(&[]), [""]);
        let two: &[Values] = &[("a", &["1", "2"]), ("b", &["x", "y"])];
        assert_eq!(
            combinations(two),
            ["a=1,b=x", "a=1,b=y", "a=2,b=x", "a=2,b=y"]
        );
    }

    #[test]
    fn a_label_that_can_have_any_value_is_shown_when_it_has_one() {
        assert!(combinations(&[("a", &["1"]), ("version", &[])]).is_empty());
    }
}
