//! Prometheus' text format, as far as the processes use it.

use std::collections::{BTreeMap, BTreeSet};

/// What `/metrics` answered, by the name of the metric.
#[derive(Debug, Default)]
pub struct Exposition(pub BTreeMap<String, Family>);

/// The labels of a sample, in the order of their names.
pub type Labels = BTreeMap<String, String>;

/// All samples of one metric.
#[derive(Debug, Default)]
pub struct Family {
    /// What its `HELP` line says.
    pub help: Option<String>,
    /// What its `TYPE` line says.
    pub kind: Option<String>,
    /// Labels and values; of a histogram, those of its `_count`.
    pub samples: BTreeMap<Labels, f64>,
}

impl Exposition {
    /// Reads an answer.
    ///
    /// # Panics
    /// It is not of this format, or has a sample twice.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut exposition = Self::default();
        let mut seen = BTreeSet::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap();
                exposition.family(name).help = Some(help.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                exposition.family(name).kind = Some(kind.to_owned());
            } else {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                assert!(seen.insert(sample), "{sample} is there twice");
                exposition.add(sample, value.parse().unwrap());
            }
        }
        exposition
    }

    /// The sum of the samples of a metric whose labels are among others `labels`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let samples = self.0.get(name).map(|family| family.samples.iter());
        let has = |sample: &Labels| {
            let mut wanted = labels.iter();
            wanted.all(|(name, value)| sample.get(*name).is_some_and(|has| has == value))
        };
        let found = samples.into_iter().flatten();
        found
            .filter(|(sample, _)| has(sample))
            .map(|(_, value)| value)
            .sum()
    }

    fn family(&mut self, name: &str) -> &mut Family {
        self.0.entry(name.to_owned()).or_default()
    }

    fn add(&mut self, sample: &str, value: f64) {
        let (name, labels) = match sample.split_once('{') {
            Some((name, labels)) => (name, read_labels(labels.strip_suffix('}').unwrap())),
            None => (sample, Labels::new()),
        };
        let is_histogram = |name: &str| {
            let kind = self.0.get(name).and_then(|family| family.kind.as_deref());
            kind == Some("histogram")
        };
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|base| is_histogram(base));
        match histogram {
            None => drop(self.family(name).samples.insert(labels, value)),
            Some(base) if name.ends_with("_count") => {
                self.family(base).samples.insert(labels, value);
            }
            Some(_) => {}
        }
    }
}

/// No value has a quote in it.
fn read_labels(labels: &str) -> Labels {
    labels
        .split_terminator('"')
        .collect::<Vec<_>>()
        .chunks(2)
        .map(|pair| {
            let name = pair[0].trim_start_matches(',').strip_suffix('=').unwrap();
            (name.to_owned(), pair[1].to_owned())
        })
        .collect()
}
