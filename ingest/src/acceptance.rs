//! Accepting a callback: it is accepted when the broker has confirmed all of it, or when the spool has
//! stored what the broker did not confirm in time.

use std::time::SystemTime;

use broker::{Headers, PublishError};
use thiserror::Error;
use trace::Traces;

use crate::chunks::{ChunkPublisher, NotPublished};
use crate::metrics::StoredAt;
use crate::request::Callback;
use crate::spool::{Spool, SpoolError};

/// Neither broker nor spool is known to have stored the whole callback. They may have stored parts: when
/// the client sends the callback again, these ids are looked up twice, which does no harm.
#[derive(Debug, Error)]
#[error("{broker}, and {spool}")]
pub(crate) struct NotAccepted {
    broker: BrokerReason,
    spool: SpoolError,
}

/// Why the broker has not stored a callback.
#[derive(Debug, Error)]
enum BrokerReason {
    /// Not tried, because there is no connection or the broker did not confirm lately.
    #[error("the broker is unavailable")]
    Unavailable,
    #[error("{0}")]
    Unconfirmed(PublishError),
    /// A defect.
    #[error("a chunk could not be encoded: {0}")]
    Encode(serde_json::Error),
}

/// Accepts callbacks.
#[derive(Clone, Debug)]
pub(crate) struct Acceptance {
    chunks: ChunkPublisher,
    spool: Spool,
}

impl Acceptance {
    pub(crate) fn new(chunks: ChunkPublisher, spool: Spool) -> Self {
        Self { chunks, spool }
    }

    /// Returns when every id of the callback is on the broker's disk or on this host's.
    ///
    /// # Errors
    /// [`NotAccepted`]: the callback must not be answered with success.
    pub(crate) async fn accept(
        &self,
        callback: Callback,
        traces: &Traces,
    ) -> Result<StoredAt, NotAccepted> {
        let object_ids = callback.into_object_ids();
        if object_ids.is_empty() {
            return Ok(StoredAt::Broker);
        }
        let (object_ids, broker) = if self.chunks.allow_attempt() {
            let headers = Headers::of_callback(SystemTime::now(), traces.clone());
            match self.chunks.publish(&object_ids, &headers).await {
                Ok(()) => return Ok(StoredAt::Broker),
                Err(NotPublished::Unconfirmed { object_ids, reason }) => {
                    (object_ids, BrokerReason::Unconfirmed(reason))
                }
                Err(NotPublished::Encode(error)) => (object_ids, BrokerReason::Encode(error)),
            }
        } else {
            (object_ids, BrokerReason::Unavailable)
        };
        match self.spool.append(object_ids, traces).await {
            Ok(()) => Ok(StoredAt::Spool),
            Err(spool) => Err(NotAccepted { broker, spool }),
        }
    }
}
