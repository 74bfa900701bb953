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
