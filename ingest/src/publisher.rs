//! The way to the broker: a callback's ids go there in chunks.

use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use shared::health::Dependency;
use shared::messages::{FetchChunk, Headers, ObjectId};
use shared::publisher::{Publication, PublishError, Publisher};
use shared::topology::Queue;
use thiserror::Error;

/// Why ids are not known to be at the broker.
#[derive(Debug, Error)]
pub enum NotPublished {
    /// The chunks with these ids were not confirmed. The broker may have them nevertheless.
    #[error("{reason}")]
    Unconfirmed {
        /// The ids of all those chunks.
        object_ids: Vec<ObjectId>,
        /// Why the last of them was not.
        reason: PublishError,
    },
    /// A chunk could not be encoded, which is a defect; nothing was published.
    #[error("a chunk could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

/// Publishes ids in chunks. Clones share one channel.
#[derive(Clone, Debug)]
pub struct ChunkPublisher {
    publisher: Publisher,
    broker: Dependency,
    chunk_size: NonZeroU16,
    /// How long the broker may take before a message is published again.
    broker_timeout: Duration,
    /// Whether the last message that was to be confirmed in time was.
    confirms: Arc<AtomicBool>,
}

impl ChunkPublisher {
    /// Publishes chunks of `chunk_size` ids; `broker` tells whether there is a connection.
    #[must_use]
    pub fn new(
        publisher: Publisher,
        broker: Dependency,
        chunk_size: NonZeroU16,
        broker_timeout: Duration,
    ) -> Self {
        Self {
            publisher,
            broker,
            chunk_size,
            broker_timeout,
            confirms: Arc::new(AtomicBool::new(true)),
        }
    }

    /// Whether there is a connection that the broker does not block.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.broker.is_up()
    }

    /// Whether a confirm can be expected in time.
    #[must_use]
    pub fn is_confirming(&self) -> bool {
        self.is_connected() && self.confirms.load(Ordering::Relaxed)
    }

    /// Publishes each chunk once, and returns when all are confirmed.
    ///
    /// # Errors
    /// [`NotPublished`]: which ids the broker is not known to have.
    pub async fn publish(
        &self,
        object_ids: &[ObjectId],
        timeout: Duration,
    ) -> Result<(), NotPublished> {
        let chunks = self.chunks(object_ids)?;
        let publishing = chunks
            .into_iter()
            .map(|chunk| self.publisher.publish(chunk, timeout));
        let results = join_all(publishing).await;
        let mut unconfirmed = Vec::new();
        let mut last_error = None;
        for (chunk, result) in self.split(object_ids).zip(results) {
            match result {
                Ok(()) => metrics::counter!("callback_chunks_published_total").increment(1),
                Err(error) => {
                    unconfirmed.extend_from_slice(chunk);
                    last_error = Some(error);
                }
            }
        }
        self.confirms.store(last_error.is_none(), Ordering::Relaxed);
        match last_error {
            None => Ok(()),
            Some(reason) => Err(NotPublished::Unconfirmed {
                object_ids: unconfirmed,
                reason,
            }),
        }
    }

    /// Publishes all ids until they are confirmed, however long that takes.
    pub async fn publish_until_confirmed(&self, object_ids: Vec<ObjectId>) {
        match self.chunks(&object_ids) {
            Ok(chunks) => {
                let publishing = chunks.into_iter().map(|chunk| {
                    self.publisher
                        .publish_until_confirmed(chunk, self.broker_timeout)
                });
                let count = join_all(publishing).await.len() as u64;
                metrics::counter!("callback_chunks_published_total").increment(count);
                self.confirms.store(true, Ordering::Relaxed);
            }
            Err(error) => tracing::error!(%error, "ids could not be encoded"),
        }
    }

    fn split<'a>(&self, object_ids: &'a [ObjectId]) -> impl Iterator<Item = &'a [ObjectId]> {
        object_ids.chunks(self.chunk_size.get().into())
    }

    fn chunks(&self, object_ids: &[ObjectId]) -> Result<Vec<Publication>, serde_json::Error> {
        let publication = |ids: &[ObjectId]| {
            let chunk = FetchChunk {
                object_ids: ids.to_vec(),
            };
            Publication::new(Queue::Fetch, &chunk, Headers::default())
        };
        self.split(object_ids).map(publication).collect()
    }
}
