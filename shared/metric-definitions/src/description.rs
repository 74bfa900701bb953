use crate::label::{Pair, Values};

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

/// Entry of a metric in the catalogue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Description {
    /// Name, in base units.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// What it says.
    pub help: &'static str,
    /// Upper bounds of the buckets of a histogram.
    pub buckets: &'static [f64],
    pub(crate) labels: &'static [Values],
    /// Further values of its one label.
    pub(crate) further: &'static [&'static str],
    /// The only values that its one label has here, unless there are none.
    pub(crate) only: &'static [&'static str],
    /// Values that its one label never has here.
    pub(crate) except: &'static [&'static str],
    /// Whether it is 0 until something happens.
    pub(crate) from_zero: bool,
}

impl Description {
    pub(crate) const fn new(
        kind: Kind,
        name: &'static str,
        help: &'static str,
        labels: &'static [Values],
    ) -> Self {
        Self {
            name,
            kind,
            help,
            buckets: &[],
            labels,
            further: &[],
            only: &[],
            except: &[],
            from_zero: true,
        }
    }

    /// The same with further values of its one label, which the type of the label does not know.
    #[must_use]
    pub const fn with_values(self, further: &'static [&'static str]) -> Self {
        Self { further, ..self }
    }

    /// Its labels, each with the values that it can have: none if they are not known beforehand.
    #[must_use]
    pub fn labels(&self) -> Vec<(&'static str, Vec<&'static str>)> {
        let values = |values: &'static [&'static str]| {
            let all = values.iter().chain(self.further).copied();
            all.filter(|value| self.has(value)).collect()
        };
        let labels = self.labels.iter();
        labels.map(|(name, all)| (*name, values(all))).collect()
    }

    fn has(&self, value: &'static str) -> bool {
        let Self { only, except, .. } = self;
        (only.is_empty() || only.contains(&value)) && !except.contains(&value)
    }

    /// Whether these are values that its labels can have.
    pub(crate) fn knows(&self, labels: &[Pair]) -> bool {
        let known = |((_, value), (_, values)): (&Pair, &(_, Vec<_>))| {
            values.is_empty() || values.contains(value)
        };
        labels.iter().zip(&self.labels()).all(known)
    }

    /// The combinations of the labels' values that are shown from the start: one if there are no labels,
    /// none if one of them can have any value.
    pub(crate) fn shown_from_the_start(&self) -> Vec<Vec<Pair>> {
        let mut combinations = vec![Vec::new()];
        if !self.from_zero {
            combinations.clear();
        }
        for (label, values) in self.labels() {
            let longer = combinations.iter().flat_map(|shorter: &Vec<Pair>| {
                let last = values.iter().map(move |value| (label, *value));
                last.map(|last| shorter.iter().copied().chain([last]).collect())
            });
            combinations = longer.collect();
        }
        combinations
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(labels: &'static [Values]) -> Description {
        Description::new(Kind::Counter, "some_total", "Some.", labels)
    }

    fn combinations(description: Description) -> Vec<String> {
        let shown = |labels: Vec<Pair>| {
            let pairs = labels.iter().map(|(name, value)| format!("{name}={value}"));
            pairs.collect::<Vec<_>>().join(",")
        };
        let combinations = description.shown_from_the_start().into_iter();
        combinations.map(shown).collect()
    }

    #[test]
    fn every_combination_of_known_values_is_shown_from_the_start() {
        assert_eq!(combinations(some(&[])), [""]);
        let two: &[Values] = &[("a", &["1", "2"]), ("b", &["x", "y"])];
        assert_eq!(
            combinations(some(two)),
            ["a=1,b=x", "a=1,b=y", "a=2,b=x", "a=2,b=y"]
        );
    }

    #[test]
    fn a_label_that_can_have_any_value_is_shown_when_it_has_one() {
        assert!(combinations(some(&[("a", &["1"]), ("version", &[])])).is_empty());
        let unset = Description {
            from_zero: false,
            ..some(&[])
        };
        assert!(combinations(unset).is_empty());
    }

    #[test]
    fn a_metric_has_the_values_that_it_is_said_to_have() {
        let any = some(&[("a", &[])]);
        assert_eq!(combinations(any.with_values(&["1", "2"])), ["a=1", "a=2"]);
        let except = Description {
            except: &["1"],
            ..some(&[("a", &["1", "2"])])
        };
        assert_eq!(combinations(except), ["a=2"]);
        let only = Description {
            only: &["1"],
            ..some(&[("a", &["1", "2"])])
        };
        assert_eq!(combinations(only), ["a=1"]);
        let label = |value| [("a", value)];
        assert!(except.knows(&label("2")) && !except.knows(&label("1")));
        assert!(any.knows(&label("1")));
    }
}
