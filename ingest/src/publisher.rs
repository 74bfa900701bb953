//! The way to the broker: a callback's ids go there in chunks.

use std::num::{NonZeroU16, NonZeroUsize};
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Brake, Headers, Publication, PublishError, Publisher, Queue};
use futures::future::join_all;
use lifecycle::Dependency;
use messages::{FetchChunk, ObjectId};
use thiserror::Error;
use trace::Traces;

use crate::config::Config;
use crate::metrics::CHUNKS_PUBLISHED;

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
    /// Callbacks with more ids are huge.
    bulk_ids: NonZeroUsize,
    /// How long the broker may take for a callback.
    publish_timeout: Duration,
    /// On since a message was not confirmed in time.
    brake: Arc<Brake>,
}

impl ChunkPublisher {
    /// Publishes as `config` says; `broker` tells whether there is a connection.
    #[must_use]
    pub fn new(publisher: Publisher, broker: Dependency, config: &Config) -> Self {
        Self {
            publisher,
            broker,
            chunk_size: config.chunk_size,
            bulk_ids: config.bulk_ids,
            publish_timeout: config.publish_timeout,
            brake: Arc::default(),
        }
    }

    /// Whether the broker is to be asked to confirm something in time: there is a connection that it
    /// does not block, and what it was asked last it confirmed in time. Otherwise whoever asks first
    /// after a second is told yes, so that not all are held up by a broker that is slow, or hangs.
    #[must_use]
    pub fn is_worth_a_try(&self) -> bool {
        self.broker.is_up() && self.brake.lets_pass()
    }

    /// Publishes each chunk once, and returns when all are confirmed.
    ///
    /// # Errors
    /// [`NotPublished`]: which ids the broker is not known to have.
    pub async fn publish(
        &self,
        object_ids: &[ObjectId],
        traces: &Traces,
    ) -> Result<(), NotPublished> {
        let queue = self.queue(object_ids.len());
        let publications = self
            .split(object_ids)
            .map(|chunk| publication(queue, chunk, traces.clone()));
        let publishing = publications
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .map(|publication| self.publisher.publish(publication, self.publish_timeout));
        let results = join_all(publishing).await;
        let mut unconfirmed = Vec::new();
        let mut last_error = None;
        for (chunk, result) in self.split(object_ids).zip(results) {
            match result {
                Ok(()) => CHUNKS_PUBLISHED.increment(1),
                Err(error) => {
                    unconfirmed.extend_from_slice(chunk);
                    last_error = Some(error);
                }
            }
        }
        self.brake.note(last_error.is_none());
        match last_error {
            None => Ok(()),
            Some(reason) => Err(NotPublished::Unconfirmed {
                object_ids: unconfirmed,
                reason,
            }),
        }
    }

    /// The queue for the chunks of a callback of `ids` ids.
    #[must_use]
    pub fn queue(&self, ids: usize) -> Queue {
        if ids > self.bulk_ids.get() {
            Queue::Bulk
        } else {
            Queue::Fetch
        }
    }

    /// Publishes the ids of a chunk to `queue` until they are confirmed, however long that takes. A confirm that
    /// a callback could not have waited for is no reason to try callbacks again: each would be
    /// published, and again from the spool.
    pub async fn publish_until_confirmed(
        &self,
        queue: Queue,
        chunk: Vec<ObjectId>,
        traces: Traces,
    ) {
        match publication(queue, &chunk, traces) {
            Ok(publication) => {
                let started = Instant::now();
                self.publisher.publish_until_confirmed(publication).await;
                CHUNKS_PUBLISHED.increment(1);
                self.brake.note(started.elapsed() <= self.publish_timeout);
            }
            Err(error) => tracing::error!(%error, "ids could not be encoded"),
        }
    }

    /// The chunks that ids are published in.
    pub fn split<'a>(&self, object_ids: &'a [ObjectId]) -> impl Iterator<Item = &'a [ObjectId]> {
        object_ids.chunks(self.chunk_size.get().into())
    }
}

fn publication(
    queue: Queue,
    chunk: &[ObjectId],
    traces: Traces,
) -> Result<Publication, serde_json::Error> {
    let chunk = FetchChunk {
        object_ids: chunk.to_vec(),
    };
    Publication::new(queue, &chunk, Headers::first_try(traces))
}
