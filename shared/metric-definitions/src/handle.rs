//! What a metric is counted with: one series. Without a registry they count nothing. Clones share a series.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::{counter, gauge};

use crate::exemplar::Exemplar;
use crate::families::{Family, SeriesLabels};

pub(crate) type CounterSeries = counter::Counter;
pub(crate) type GaugeSeries = gauge::Gauge<f64, AtomicU64>;
pub(crate) type HistogramSeries = HistogramWithExemplars<Exemplar>;

/// Handle of a counter.
#[derive(Clone, Debug, Default)]
pub struct Counter(Option<CounterSeries>);

/// Handle of a gauge.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Option<GaugeSeries>);

/// Handle of a histogram.
#[derive(Clone, Debug, Default)]
pub struct Histogram(Option<HistogramSeries>);

impl Counter {
    /// Adds to it.
    pub fn increment(&self, by: u64) {
        if let Self(Some(series)) = self {
            series.inc_by(by);
        }
    }
}

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: impl Value) {
        if let Self(Some(series)) = self {
            series.set(value.in_base_units());
        }
    }

    /// Adds to it.
    pub fn increment(&self, by: impl Value) {
        if let Self(Some(series)) = self {
            series.inc_by(by.in_base_units());
        }
    }

    /// Takes from it.
    pub fn decrement(&self, by: impl Value) {
        if let Self(Some(series)) = self {
            series.dec_by(by.in_base_units());
        }
    }
}

impl Histogram {
    /// Adds an observation.
    pub fn record(&self, value: impl Value) {
        self.record_in(value, None);
    }

    /// Adds an observation, and its trace if that is recorded.
    pub fn record_in(&self, value: impl Value, exemplar: Option<Exemplar>) {
        if let Self(Some(series)) = self {
            // The library cannot write a time before 1970.
            let now = exemplar.map(|_| SystemTime::now());
            let now = now.filter(|now| *now >= UNIX_EPOCH);
            series.observe(value.in_base_units(), exemplar, now);
        }
    }

    /// Adds the same observation many times, and its trace if that is recorded.
    pub fn record_many(&self, value: impl Value, times: u64, exemplar: Option<Exemplar>) {
        let value = value.in_base_units();
        for first in (0..times).map(|time| time == 0) {
            self.record_in(value, exemplar.filter(|_| first));
        }
    }
}

/// What a gauge can be set to, and a histogram can observe.
pub trait Value {
    /// As a metric shows it; durations in seconds.
    fn in_base_units(self) -> f64;
}

impl Value for f64 {
    fn in_base_units(self) -> f64 {
        self
    }
}

impl Value for i32 {
    fn in_base_units(self) -> f64 {
        self.into()
    }
}

impl Value for u32 {
    fn in_base_units(self) -> f64 {
        self.into()
    }
}

impl Value for Duration {
    fn in_base_units(self) -> f64 {
        self.as_secs_f64()
    }
}

/// A handle of one of the kinds.
pub trait Handle: Default {
    /// The handle of the series with these labels, if the family is of this kind; from then on it is shown.
    fn find(family: &Family, labels: &SeriesLabels) -> Option<Self>;
}

impl Handle for Counter {
    fn find(family: &Family, labels: &SeriesLabels) -> Option<Self> {
        match family {
            Family::Counter(family) => Some(Self(Some(family.get_or_create_owned(labels)))),
            _ => None,
        }
    }
}

impl Handle for Gauge {
    fn find(family: &Family, labels: &SeriesLabels) -> Option<Self> {
        match family {
            Family::Gauge(family) => Some(Self(Some(family.get_or_create_owned(labels)))),
            _ => None,
        }
    }
}

impl Handle for Histogram {
    fn find(family: &Family, labels: &SeriesLabels) -> Option<Self> {
        match family {
            Family::Histogram(family) => Some(Self(Some(family.get_or_create_owned(labels)))),
            _ => None,
        }
    }
}
