use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::sync::OnceLock;

use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder};
use prometheus_client::metrics::family::{self, MetricConstructor};
use prometheus_client::registry::{Registry, Unit};

use crate::description::{Description, Kind};
use crate::handle::{CounterSeries, GaugeSeries, Handle, HistogramSeries};
use crate::label::Pair;

/// The metrics of this process, once they are registered.
static FAMILIES: OnceLock<Families> = OnceLock::new();

/// By name.
type Families = HashMap<&'static str, Family>;

type Of<M, C = fn() -> M> = family::Family<SeriesLabels, M, C>;

/// The labels of a series.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SeriesLabels(Vec<Pair>);

impl EncodeLabelSet for SeriesLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)
    }
}

/// All series of a metric.
pub enum Family {
    Counter(Of<CounterSeries>),
    Gauge(Of<GaugeSeries>),
    Histogram(Of<HistogramSeries, Buckets>),
}

/// Makes histograms with these upper bounds.
#[derive(Clone)]
pub struct Buckets(&'static [f64]);

impl MetricConstructor<HistogramSeries> for Buckets {
    fn new_metric(&self) -> HistogramSeries {
        HistogramSeries::new(self.0.iter().copied())
    }
}

impl Family {
    fn new(description: &Description) -> Self {
        match description.kind {
            Kind::Counter => Self::Counter(Of::default()),
            Kind::Gauge => Self::Gauge(Of::default()),
            Kind::Histogram => {
                let buckets = Buckets(description.buckets);
                Self::Histogram(Of::new_with_constructor(buckets))
            }
        }
    }

    fn register(&self, registry: &mut Registry, description: &Description) {
        match self {
            Self::Counter(family) => add(registry, description, family.clone()),
            Self::Gauge(family) => add(registry, description, family.clone()),
            Self::Histogram(family) => add(registry, description, family.clone()),
        }
    }

    /// Shows a series from the start.
    fn show(&self, labels: &SeriesLabels) {
        match self {
            Self::Counter(family) => drop(family.get_or_create(labels)),
            Self::Gauge(family) => drop(family.get_or_create(labels)),
            Self::Histogram(family) => drop(family.get_or_create(labels)),
        }
    }
}

/// The library adds the ends of names, `_total` and the unit, and the full stop of the help.
fn add(
    registry: &mut Registry,
    description: &Description,
    family: impl EncodeMetric + Send + Sync + Debug + 'static,
) {
    let Description { name, help, .. } = description;
    let name = name.strip_suffix("_total").unwrap_or(name);
    let help = help.strip_suffix('.').unwrap_or(help);
    let units = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
    let mut units = units.into_iter();
    match units.find_map(|(end, unit)| name.strip_suffix(end).map(|name| (name, unit))) {
        Some((name, unit)) => registry.register_with_unit(name, help, unit, family),
        None => registry.register(name, help, family),
    }
}

fn families<'a>(
    registry: &mut Registry,
    descriptions: impl IntoIterator<Item = &'a Description>,
) -> Families {
    let mut families = Families::new();
    for description in descriptions {
        let family = Family::new(description);
        family.register(registry, description);
        for labels in description.shown_from_the_start() {
            family.show(&SeriesLabels(labels));
        }
        families.insert(description.name, family);
    }
    families
}

/// Begins to count these metrics, and shows those that are 0 until something happens.
///
/// # Errors
/// This process counts others already.
pub fn register<'a>(
    registry: &mut Registry,
    descriptions: impl IntoIterator<Item = &'a Description>,
) -> Result<(), RegisteredBefore> {
    let families = families(registry, descriptions);
    FAMILIES.set(families).map_err(|_| RegisteredBefore)
}

/// The metrics of a process are registered once.
#[derive(Debug, thiserror::Error)]
#[error("metrics have been registered before")]
pub struct RegisteredBefore;

/// The handle of a metric's series with these labels. It counts nothing if no metrics are registered.
pub(crate) fn find<H: Handle>(name: &str, labels: Vec<Pair>) -> H {
    let Some(families) = FAMILIES.get() else {
        return H::default();
    };
    let labels = SeriesLabels(labels);
    let handle = families
        .get(name)
        .and_then(|family| H::find(family, &labels));
    debug_assert!(handle.is_some(), "{name} is not registered as such");
    handle.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::{prometheus_text, text};

    use super::*;
    use crate::exemplar::Exemplar;
    use crate::handle::{Counter, Gauge, Histogram};
    use crate::metric::{self, Metric};

    const SPENT: metric::Counter = Metric::<Counter, ()>::new("spent_seconds_total", "Spent.");
    const DEPTH: metric::Gauge = Metric::<Gauge, ()>::new("depth", "Depth.");
    const TOOK: metric::Histogram =
        Metric::<Histogram, ()>::new("took_seconds", "Took.", &[0.1, 1.0]);

    fn some() -> (Registry, Families) {
        let mut registry = Registry::default();
        let all = [SPENT.description(), DEPTH.description(), TOOK.description()];
        let families = families(&mut registry, &all);
        (registry, families)
    }

    fn handle<H: Handle>(families: &Families, name: &str) -> H {
        H::find(&families[name], &SeriesLabels(Vec::new())).unwrap()
    }

    fn open_metrics(registry: &Registry) -> String {
        let mut written = String::new();
        text::encode(&mut written, registry).unwrap();
        written
    }

    #[test]
    fn a_counter_s_family_has_no_total_in_open_metrics_and_has_it_in_text() {
        let (registry, families) = some();
        handle::<Counter>(&families, "spent_seconds_total").increment(2);
        let begin = "# HELP spent_seconds Spent.\n# TYPE spent_seconds counter\n\
                     # UNIT spent_seconds seconds\nspent_seconds_total 2\n";
        let written = open_metrics(&registry);
        assert!(written.starts_with(begin), "{written}");
        let mut text = String::new();
        prometheus_text::encode(&mut text, &registry).unwrap();
        let begin = "# HELP spent_seconds_total Spent.\n# TYPE spent_seconds_total counter\n\
                     spent_seconds_total 2\n";
        assert!(text.starts_with(begin), "{text}");
    }

    #[test]
    fn a_gauge_is_not_there_until_it_is_set() {
        let (registry, families) = some();
        assert!(!open_metrics(&registry).contains("depth"));
        handle::<Gauge>(&families, "depth").set(7);
        assert!(open_metrics(&registry).contains("\ndepth 7.0\n"));
    }

    #[test]
    fn the_last_recorded_trace_of_each_bucket_is_its_exemplar() {
        let (registry, families) = some();
        let took: Histogram = handle(&families, "took_seconds");
        let exemplar = |trace_id| {
            let span_id = 0xb;
            Some(Exemplar { trace_id, span_id })
        };
        took.record_in(0.2, exemplar(1));
        took.record_many(0.3, 3, exemplar(0xa));
        took.record(0.5);
        took.record(7);
        let written = open_metrics(&registry);
        let found = |end: &str| {
            let line = format!("took_seconds_bucket{{le=\"{end}\"}} ");
            let mut lines = written.lines();
            lines.find_map(|shown| shown.strip_prefix(&line)).unwrap()
        };
        assert_eq!(found("0.1"), "0");
        let recorded =
            "5 # {trace_id=\"0000000000000000000000000000000a\",span_id=\"000000000000000b\"} 0.3 ";
        assert!(found("1.0").starts_with(recorded), "{written}");
        assert_eq!(found("+Inf"), "6");
    }
}
