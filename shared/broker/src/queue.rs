//! The queues of the pipeline.

use std::time::Duration;

use settings::Value;

use crate::delay::Delay;

/// What the names of exchanges and queues begin with: nothing, or a word that keeps several
/// pipelines on one broker apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePrefix(pub(crate) String);

impl Value for QueuePrefix {
    fn parse(raw: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if raw.starts_with("amq.") {
            Err("the broker keeps names that begin with amq. for itself".to_owned())
        } else if raw.len() <= 100 && raw.chars().all(allowed) {
            Ok(Self(raw.to_owned()))
        } else {
            Err("not at most 100 letters, digits, dots, dashes and underscores".to_owned())
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The queue that a message is for. The routing key is the queue's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Chunks of ids to look up.
    Fetch,
    /// The chunks of huge callbacks. Other callbacks do not wait behind them.
    Bulk,
    /// Chunks to look up again after a delay.
    Retry(Delay),
    /// Batches of rows that are about to expire.
    Delete,
    /// Batches of rows that expire soon after a delay.
    DeleteDelay(Delay),
    /// Messages that were given up, with their reason, for an operator.
    Dead,
    /// Messages that were published while their queue did not exist, for an operator.
    Unroutable,
}

impl Queue {
    /// How long messages stay in it before they are due.
    #[must_use]
    pub fn delay(self) -> Duration {
        match self {
            Self::Retry(delay) | Self::DeleteDelay(delay) => delay.as_duration(),
            Self::Fetch | Self::Bulk | Self::Delete | Self::Dead | Self::Unroutable => {
                Duration::ZERO
            }
        }
    }
}
