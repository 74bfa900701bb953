//! Making a callback safe: its ids go to the broker in chunks, and it is safe when the broker has
//! confirmed every one of them.

use std::num::NonZeroU16;
use std::time::Duration;

use futures::future::join_all;
use shared::messages::{FetchChunk, Headers};
use shared::publisher::{Publication, PublishError, Publisher};
use shared::topology::Queue;
use thiserror::Error;

use crate::request::Callback;

/// Why a callback is not known to be safe.
#[derive(Debug, Error)]
pub enum UnsafeCallback {
    /// A chunk was not confirmed. Others may have been: when the callback comes again, their ids
    /// are looked up twice, which does no harm.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A chunk could not be encoded.
    #[error("a chunk could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Publishes callbacks.
#[derive(Clone, Debug)]
pub struct CallbackPublisher {
    publisher: Publisher,
    chunk_size: NonZeroU16,
    timeout: Duration,
}

impl CallbackPublisher {
    /// Publishes chunks of `chunk_size` ids; a callback is to be confirmed within `timeout`.
    #[must_use]
    pub fn new(publisher: Publisher, chunk_size: NonZeroU16, timeout: Duration) -> Self {
        Self {
            publisher,
            chunk_size,
            timeout,
        }
    }

    /// Returns when every id of the callback is on the broker's disk.
    ///
    /// # Errors
    /// [`UnsafeCallback`]: the callback must not be answered with success.
    pub async fn publish(&self, callback: Callback) -> Result<(), UnsafeCallback> {
        let chunks = callback
            .object_ids()
            .chunks(self.chunk_size.get().into())
            .map(publication);
        let publications = chunks.collect::<Result<Vec<_>, _>>()?;
        let count = publications.len();
        let publishing = publications
            .into_iter()
            .map(|chunk| self.publisher.publish(chunk, self.timeout));
        join_all(publishing)
            .await
            .into_iter()
            .collect::<Result<(), _>>()?;
        metrics::counter!("callback_chunks_published_total").increment(count as u64);
        Ok(())
    }
}

fn publication(ids: &[shared::messages::ObjectId]) -> Result<Publication, serde_json::Error> {
    let chunk = FetchChunk {
        object_ids: ids.to_vec(),
    };
    Publication::new(Queue::Fetch, &chunk, Headers::default())
}
