//! Accepting a callback: it is accepted when the broker has confirmed all of it, or when the spool has
//! stored what the broker did not confirm in time.

use std::time::SystemTime;

use broker::Headers;
use thiserror::Error;
use trace::TraceSet;

use crate::chunks::{BrokerFailure, ChunkPublisher, NotPublished};
use crate::metrics::StoredAt;
use crate::request::Callback;
use crate::spool::{Spool, SpoolError};

/// Neither broker nor spool is known to have stored the whole callback. They may have stored parts: when
/// the client sends the callback again, these ids are looked up twice, which does no harm.
#[derive(Debug, Error)]
#[error("{broker}, and {spool}")]
pub(crate) struct NotAccepted {
    broker: BrokerFailure,
    spool: SpoolError,
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
        traces: &TraceSet,
    ) -> Result<StoredAt, NotAccepted> {
        let object_ids = callback.into_object_ids();
        if object_ids.is_empty() {
            return Ok(StoredAt::Broker);
        }
        let headers = Headers::of_callback(SystemTime::now(), traces.clone());
        let NotPublished { object_ids, reason } =
            match self.chunks.publish(object_ids, &headers).await {
                Ok(()) => return Ok(StoredAt::Broker),
                Err(not_published) => not_published,
            };
        match self.spool.append(object_ids, traces).await {
            Ok(()) => Ok(StoredAt::Spool),
            Err(spool) => Err(NotAccepted {
                broker: reason,
                spool,
            }),
        }
    }
}
