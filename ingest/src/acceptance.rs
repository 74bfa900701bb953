//! Making a callback safe: it is safe when the broker has confirmed all of it, or when what the broker
//! did not confirm in time is in the spool.

use broker::PublishError;
use metric_definitions::label;
use thiserror::Error;
use trace::Traces;

use crate::publisher::{ChunkPublisher, NotPublished};
use crate::request::Callback;
use crate::spool::{Spool, SpoolError};

/// Why a callback is not known to be safe. Parts of it may be: when it comes again, their ids are
/// looked up twice, which does no harm.
#[derive(Debug, Error)]
#[error("{broker}, and {spool}")]
pub struct UnsafeCallback {
    /// Why the broker does not have it.
    pub broker: BrokerReason,
    /// Why the spool does not.
    pub spool: SpoolError,
}

/// Why the broker does not have a callback.
#[derive(Debug, Error)]
pub enum BrokerReason {
    /// It was not asked, since there is no connection or it did not confirm lately.
    #[error("the broker is unavailable")]
    Unavailable,
    /// It was asked.
    #[error("{0}")]
    Unconfirmed(PublishError),
    /// It could not be asked, which is a defect.
    #[error("a chunk could not be encoded: {0}")]
    Encode(serde_json::Error),
}

label! {
    /// Where a callback is safe.
    pub enum SafeAt: "by" {
        /// All of it is at the broker.
        Broker = "broker",
        /// A part of it, or all of it, is in the spool.
        Spool = "spool",
    }
}

/// Makes callbacks safe.
#[derive(Clone, Debug)]
pub struct Acceptance {
    publisher: ChunkPublisher,
    spool: Spool,
}

impl Acceptance {
    /// What `publisher` does not publish in time goes to `spool`.
    #[must_use]
    pub fn new(publisher: ChunkPublisher, spool: Spool) -> Self {
        Self { publisher, spool }
    }

    /// Returns when every id of the callback is on the broker's disk or on this host's.
    ///
    /// # Errors
    /// [`UnsafeCallback`]: the callback must not be answered with success.
    pub async fn accept(
        &self,
        callback: Callback,
        traces: &Traces,
    ) -> Result<SafeAt, UnsafeCallback> {
        let object_ids = callback.into_object_ids();
        if object_ids.is_empty() {
            return Ok(SafeAt::Broker);
        }
        let (object_ids, broker) = if self.publisher.is_worth_a_try() {
            match self.publisher.publish(&object_ids, traces).await {
                Ok(()) => return Ok(SafeAt::Broker),
                Err(NotPublished::Unconfirmed { object_ids, reason }) => {
                    (object_ids, BrokerReason::Unconfirmed(reason))
                }
                Err(NotPublished::Encode(error)) => (object_ids, BrokerReason::Encode(error)),
            }
        } else {
            (object_ids, BrokerReason::Unavailable)
        };
        match self.spool.append(object_ids, traces).await {
            Ok(()) => Ok(SafeAt::Spool),
            Err(spool) => Err(UnsafeCallback { broker, spool }),
        }
    }
}
