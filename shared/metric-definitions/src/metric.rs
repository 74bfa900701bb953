use std::marker::PhantomData;

use crate::description::{Description, Kind};
use crate::exemplar::Exemplar;
use crate::families::find;
use crate::handle::{self, Handle, Value};
use crate::label::{Label, Labels};

/// A metric whose handles are of type `H`, with the labels `L`.
pub struct Metric<H, L = ()> {
    description: Description,
    types: PhantomData<fn(&L) -> H>,
}

/// Only ever grows. It is 0 from the start on.
pub type Counter<L = ()> = Metric<handle::Counter, L>;
/// Goes up and down. It is not there until it is set.
pub type Gauge<L = ()> = Metric<handle::Gauge, L>;
/// Counts observations by their size. It begins without observations.
pub type Histogram<L = ()> = Metric<handle::Histogram, L>;

impl<L: Labels> Counter<L> {
    /// A counter of this name, and what it says.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self::defined(Description::new(Kind::Counter, name, help, L::ALL))
    }
}

impl<L: Labels> Gauge<L> {
    /// A gauge of this name, and what it says.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str) -> Self {
        Self::defined(Description {
            from_zero: false,
            ..Description::new(Kind::Gauge, name, help, L::ALL)
        })
    }

    /// The same for a gauge that is 0 until something happens.
    #[must_use]
    pub const fn from_zero(mut self) -> Self {
        self.description.from_zero = true;
        self
    }
}

impl<L: Labels> Histogram<L> {
    /// A histogram of this name, what it says, and the upper bounds of its buckets.
    #[must_use]
    pub const fn new(name: &'static str, help: &'static str, buckets: &'static [f64]) -> Self {
        Self::defined(Description {
            buckets,
            ..Description::new(Kind::Histogram, name, help, L::ALL)
        })
    }
}

impl<H, L> Metric<H, L> {
    const fn defined(description: Description) -> Self {
        Self {
            description,
            types: PhantomData,
        }
    }

    /// The same metric where it has other labels.
    #[must_use]
    pub const fn by<M: Labels>(self) -> Metric<H, M> {
        Metric::defined(Description {
            labels: M::ALL,
            ..self.description
        })
    }

    /// The same with only those values of its label.
    #[must_use]
    pub const fn only(mut self, values: &'static [&'static str]) -> Self {
        self.description.only = values;
        self
    }

    /// The same without those values of its label that it never has.
    #[must_use]
    pub const fn except(mut self, values: &'static [&'static str]) -> Self {
        self.description.except = values;
        self
    }

    /// The entry in the catalogue.
    #[must_use]
    pub const fn description(&self) -> Description {
        self.description
    }
}

impl<H: Handle, L: Labels> Metric<H, L> {
    /// The handle for these values of the labels. To find it takes time: keep it where that counts.
    pub fn of(&self, labels: &L) -> H {
        let pairs = labels.pairs();
        debug_assert!(
            self.description.knows(&pairs),
            "{} has no {pairs:?}",
            self.description.name
        );
        find(self.description.name, pairs)
    }
}

impl<H: Handle, L: Label> Metric<H, L> {
    /// The handles for all values of the label, in the order of [`Label::VALUES`].
    #[must_use]
    pub fn each(&self) -> Vec<H> {
        let values = L::VALUES.iter();
        values
            .map(|value| find(self.description.name, vec![(L::NAME, *value)]))
            .collect()
    }
}

impl<H: Handle> Metric<H> {
    /// The handle. To find it takes time: keep it where that counts.
    #[must_use]
    pub fn handle(&self) -> H {
        self.of(&())
    }
}

impl Counter {
    /// Adds to it.
    pub fn increment(&self, by: u64) {
        self.handle().increment(by);
    }
}

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: impl Value) {
        self.handle().set(value);
    }
}

impl Histogram {
    /// Adds an observation.
    pub fn record(&self, value: impl Value) {
        self.handle().record(value);
    }

    /// Adds an observation, and its trace if that is recorded.
    pub fn record_in(&self, value: impl Value, exemplar: Option<Exemplar>) {
        self.handle().record_in(value, exemplar);
    }
}

/// Defines metrics, and the list of their descriptions: `NAME: Type = "name"`, then `in` and the
/// buckets of a histogram, then what else holds for it. The doc comment is the metric's help text.
/// The list begins with `shared` metrics, if there are any, which are defined elsewhere.
#[macro_export]
macro_rules! metrics {
    (
        $(#[$about:meta])*
        $list_visibility:vis $LIST:ident $(= [$($shared:expr),+ $(,)?])?;
        $(
            $(#[doc = $help:literal])+
            $visibility:vis $METRIC:ident: $Type:ty = $name:literal
                $(in $buckets:expr)? $(, $method:ident($($argument:expr)?))*;
        )+
    ) => {
        $(
            $(#[doc = $help])+
            $visibility const $METRIC: $Type =
                <$Type>::new($name, concat!($($help),+).trim_ascii_start() $(, $buckets)?)
                    $(.$method($($argument)?))*;
        )+

        $(#[$about])*
        $list_visibility const $LIST: &[$crate::Description] =
            &[$($($shared,)+)? $($METRIC.description()),+];
    };
}
