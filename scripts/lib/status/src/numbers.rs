//! Sums and rates of two samples.

use std::collections::BTreeSet;

use crate::exposition::Series;
use crate::sample::{BROKER, Instance, Sample};

/// Two samples, the later one with rates since the earlier one.
pub(crate) struct Numbers<'a> {
    before: &'a Sample,
    now: &'a Sample,
    queue_prefix: &'a str,
}

impl<'a> Numbers<'a> {
    pub(crate) fn new(before: &'a Sample, now: &'a Sample, queue_prefix: &'a str) -> Self {
        Self {
            before,
            now,
            queue_prefix,
        }
    }

    fn series(&self, name: &str) -> impl Iterator<Item = (&'a Instance, &'a Series)> {
        let all = self.now.0.iter().flat_map(|instance| {
            let series = instance.series.iter().flatten();
            series.map(move |series| (instance, series))
        });
        all.filter(move |(_, series)| series.name == name)
    }

    /// The sum over all replicas and labels.
    pub(crate) fn total(&self, name: &str) -> f64 {
        self.sum(name, |_| true)
    }

    /// The sum over all replicas of what has this label.
    pub(crate) fn labelled(&self, name: &str, label: &str, value: &str) -> f64 {
        self.sum(name, |series| series.label(label) == value)
    }

    fn sum(&self, name: &str, includes: impl Fn(&Series) -> bool) -> f64 {
        let series = self.series(name).map(|(_, series)| series);
        series
            .filter(|series| includes(series))
            .map(|series| series.value)
            .fold(0.0, |sum, value| sum + value)
    }

    /// The largest of all replicas.
    pub(crate) fn largest(&self, name: &str) -> f64 {
        let values = self.series(name).map(|(_, series)| series.value);
        values.reduce(f64::max).unwrap_or_default()
    }

    /// How much it grows in a second; `None` before there are two samples of any replica.
    pub(crate) fn rate(&self, name: &str) -> Option<f64> {
        self.rate_where(name, |_| true)
    }

    /// The rate of what `includes` holds for.
    pub(crate) fn rate_where(&self, name: &str, includes: impl Fn(&Series) -> bool) -> Option<f64> {
        let both = |instance: &Instance| {
            self.earlier(instance)
                .is_some_and(|before| before.series.is_some() && instance.series.is_some())
        };
        let has_rates = self
            .now
            .0
            .iter()
            .any(|instance| instance.service != BROKER && both(instance));
        let rates = self
            .series(name)
            .filter(|(_, series)| includes(series))
            .filter_map(|(instance, series)| self.rate_of(instance, series));
        has_rates.then(|| rates.fold(0.0, |sum, rate| sum + rate))
    }

    /// Only of what was there before: a replica that was not has counted since its own start.
    fn rate_of(&self, instance: &Instance, series: &Series) -> Option<f64> {
        let earlier = self.earlier(instance)?;
        let mut candidates = earlier.series.iter().flatten();
        let before = candidates
            .find(|before| before.name == series.name && before.labels == series.labels)?;
        // A counter that is smaller than before started again with its process.
        let grown = if series.value < before.value {
            series.value
        } else {
            series.value - before.value
        };
        Some(grown / (instance.asked - earlier.asked).as_secs_f64())
    }

    fn earlier(&self, instance: &Instance) -> Option<&Instance> {
        let mut all = self.before.0.iter();
        all.find(|before| before.service == instance.service && before.address == instance.address)
    }

    /// Replicas of a service that answer, and those that do not.
    pub(crate) fn replicas(&self, service: &str) -> (usize, usize) {
        let all = self
            .now
            .0
            .iter()
            .filter(|instance| instance.service == service);
        let (answer, silent): (Vec<_>, Vec<_>) =
            all.partition(|instance| instance.series.is_some());
        (answer.len(), silent.len())
    }

    /// Whether the broker tells of the pipeline's queues.
    pub(crate) fn broker_answers(&self) -> bool {
        let mut ready = self.series("rabbitmq_detailed_queue_messages_ready");
        ready.any(|(_, series)| self.queue_of(series).is_some())
    }

    /// A number of a queue; of queues that differ by their delay alone, the sum.
    pub(crate) fn queue(&self, number: &str, queue: &str) -> f64 {
        let name = format!("rabbitmq_detailed_queue_{number}");
        self.sum(&name, |series| self.queue_of(series) == Some(queue))
    }

    fn queue_of<'s>(&self, series: &'s Series) -> Option<&'s str> {
        let name = series.label("queue").strip_prefix(self.queue_prefix)?;
        let base = name.trim_end_matches(|character: char| character.is_ascii_digit());
        let name = match base.strip_suffix('.') {
            Some(base) if base.len() + 1 < name.len() => base,
            _ => name,
        };
        name.starts_with("objects.").then_some(name)
    }

    /// Dependencies that some replica does not reach.
    pub(crate) fn down(&self) -> BTreeSet<&'a str> {
        let down = self
            .series("callback_pipeline_dependency_up")
            .filter(|(_, series)| series.value == 0.0);
        down.map(|(_, series)| series.label("dependency")).collect()
    }
}
