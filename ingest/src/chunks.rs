//! Publishing the ids of callbacks to the broker, in chunks.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::{Brake, Headers, Publication, PublishError, Publisher, Queue};
use futures::future::join_all;
use lifecycle::{Dependency, VitalTask};
use messages::{FetchChunk, ObjectId};
use thiserror::Error;

use crate::config::Config;
use crate::metrics::CHUNKS_PUBLISHED;
use crate::spread::Spread;

/// The broker is not known to have stored these ids. It may have stored them.
#[derive(Debug)]
pub(crate) struct NotPublished {
    pub(crate) object_ids: Vec<ObjectId>,
    pub(crate) reason: BrokerFailure,
}

/// Why the broker has not stored all of a callback.
#[derive(Debug, Error)]
pub(crate) enum BrokerFailure {
    /// Not tried, because there is no connection or the broker did not confirm lately.
    #[error("the broker is unavailable")]
    Unavailable,
    /// Why it did not confirm the last of the chunks.
    #[error("{0}")]
    Unconfirmed(PublishError),
    /// A defect. Nothing was published.
    #[error("a chunk could not be encoded: {0}")]
    Encode(serde_json::Error),
}

/// Publishes ids in chunks. Clones share one channel.
#[derive(Clone, Debug)]
pub(crate) struct ChunkPublisher {
    broker_publisher: Publisher,
    broker_health: Dependency,
    spread: Spread,
    /// A callback with more ids goes to the bulk queue.
    bulk_ids: NonZeroUsize,
    /// How long the broker may take to confirm a callback.
    publish_timeout: Duration,
    /// On while the last message was not confirmed in time.
    brake: Arc<Brake>,
}

impl ChunkPublisher {
    pub(crate) fn new(
        broker_publisher: Publisher,
        broker_health: Dependency,
        config: &Config,
    ) -> Self {
        Self {
            broker_publisher,
            broker_health,
            spread: Spread::new(config.chunk_size.get().into()),
            bulk_ids: config.bulk_ids,
            publish_timeout: config.publish_timeout,
            brake: Arc::default(),
        }
    }

    /// Decides whether a callback is published, or goes to the spool without an attempt. Without a
    /// connection it goes to the spool. While the broker confirms in time, it is published. After a
    /// time-out the brake works like a half-open breaker: once a second it lets one callback pass as a
    /// probe, so that a broker that is slow or hangs does not hold up the others.
    fn allow_attempt(&self) -> bool {
        self.broker_health.is_up() && self.brake.lets_pass()
    }

    /// Publishes each chunk of a callback once, and returns when all are confirmed.
    ///
    /// # Errors
    /// [`NotPublished`]: which ids the broker did not confirm.
    pub(crate) async fn publish(
        &self,
        object_ids: Vec<ObjectId>,
        headers: &Headers,
    ) -> Result<(), NotPublished> {
        if !self.allow_attempt() {
            let reason = BrokerFailure::Unavailable;
            return Err(NotPublished { object_ids, reason });
        }
        let queue = self.queue(object_ids.len());
        let (chunks, _in_flight) = self.spread.split(&object_ids);
        let publications = chunks
            .clone()
            .map(|chunk| publication(queue, chunk, headers.clone()));
        let publications = match publications.collect::<Result<Vec<_>, _>>() {
            Ok(publications) => publications.into_iter(),
            Err(error) => {
                let reason = BrokerFailure::Encode(error);
                return Err(NotPublished { object_ids, reason });
            }
        };
        let publish = |publication| {
            let limit = self.publish_timeout;
            self.broker_publisher.publish(publication, limit)
        };
        let results = join_all(publications.map(publish)).await;
        let mut unconfirmed = Vec::new();
        let mut last_error = None;
        for (chunk, result) in chunks.zip(results) {
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
            Some(error) => Err(NotPublished {
                object_ids: unconfirmed,
                reason: BrokerFailure::Unconfirmed(error),
            }),
        }
    }

    /// The queue for the chunks of a callback of `ids` ids.
    pub(crate) fn queue(&self, ids: usize) -> Queue {
        if ids > self.bulk_ids.get() {
            Queue::Bulk
        } else {
            Queue::Fetch
        }
    }

    /// Publishes the ids of a chunk to `queue` until they are confirmed, however long that takes. A confirm
    /// that comes too late for a callback does not release the brake: callbacks would be published in vain,
    /// and again from the spool.
    pub(crate) async fn publish_until_confirmed(
        &self,
        queue: Queue,
        chunk: Vec<ObjectId>,
        headers: Headers,
    ) {
        match publication(queue, &chunk, headers) {
            Ok(publication) => {
                let (started, _in_flight) = (Instant::now(), self.spread.one_more());
                self.broker_publisher
                    .publish_until_confirmed(publication)
                    .await;
                CHUNKS_PUBLISHED.increment(1);
                self.brake.note(started.elapsed() <= self.publish_timeout);
            }
            Err(error) => tracing::error!(%error, "ids could not be encoded"),
        }
    }

    /// Splits the ids of a callback that has waited in the spool, and others with it.
    pub(crate) fn split<'a>(
        &self,
        object_ids: &'a [ObjectId],
    ) -> impl Iterator<Item = &'a [ObjectId]> {
        object_ids.chunks(self.spread.max())
    }

    /// Closes the publisher: see [`Publisher::close`].
    pub(crate) async fn close(self, publishing: VitalTask) {
        self.broker_publisher.close(publishing).await;
    }
}

fn publication(
    queue: Queue,
    chunk: &[ObjectId],
    headers: Headers,
) -> Result<Publication, serde_json::Error> {
    let chunk = FetchChunk {
        object_ids: chunk.to_vec(),
    };
    Publication::new(queue, &chunk, headers)
}
