use crate::handle::Gauge;

/// Counts something in a gauge while it goes on; also when it is cancelled or panics.
pub struct InFlight(Gauge);

impl InFlight {
    /// Adds one to the gauge until the value is dropped.
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
