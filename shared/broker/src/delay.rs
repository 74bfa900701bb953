//! The delay of a queue.

use std::time::Duration;

use settings::Value;

/// How long messages stay in a delay queue: whole milliseconds, 1 ms to 49 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delay(u32);

impl Delay {
    /// In milliseconds, as the broker's arguments have it.
    #[must_use]
    pub fn as_millis(self) -> u32 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }

    /// The delay less `lead`, but at least half of the delay.
    #[must_use]
    pub fn shorter_by(self, lead: Duration) -> Self {
        let lead = u32::try_from(lead.as_millis()).unwrap_or(u32::MAX);
        Self(self.0 - lead.min(self.0 / 2))
    }
}

impl Value for Delay {
    fn parse(raw: &str) -> Result<Self, String> {
        let duration = <Duration as Value>::parse(raw)?;
        let millis =
            u32::try_from(duration.as_millis()).map_err(|_| "longer than 49 days".to_owned())?;
        if millis == 0 || duration.subsec_nanos() % 1_000_000 != 0 {
            return Err("not a whole number of milliseconds, from 1ms".to_owned());
        }
        Ok(Self(millis))
    }

    fn show(&self) -> String {
        self.as_duration().show()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_that_the_broker_cannot_hold_is_refused() {
        for raw in ["0s", "1500us", "50days", "soon", "-1s"] {
            assert!(<Delay as Value>::parse(raw).is_err(), "{raw} was accepted");
        }
    }
}
