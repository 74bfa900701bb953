//! Prometheus' text format, as far as the processes use it.

use std::collections::{BTreeMap, BTreeSet};

use status::exposition::{Labels, Series, series};

/// What `/metrics` answered, by the name of the metric.
#[derive(Debug, Default)]
pub struct Exposition(pub BTreeMap<String, Family>);

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
                let series = series(line).unwrap();
                let sample = (series.name.clone(), series.labels.clone());
                assert!(seen.insert(sample), "{series:?} is there twice");
                exposition.add(series);
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

    fn add(&mut self, series: Series) {
        let Series {
            name,
            labels,
            value,
        } = series;
        let is_histogram = |name: &str| {
            let kind = self.0.get(name).and_then(|family| family.kind.as_deref());
            kind == Some("histogram")
        };
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|end| name.strip_suffix(end))
            .filter(|base| is_histogram(base));
        match histogram {
            None => drop(self.family(&name).samples.insert(labels, value)),
            Some(base) if name.ends_with("_count") => {
                self.family(base).samples.insert(labels, value);
            }
            Some(_) => {}
        }
    }
}
