//! Draining the spool: its callbacks go to the broker, the oldest first.

use std::time::{Duration, SystemTime};

use futures::StreamExt;
use futures::stream;
use shared::shutdown::Shutdown;
use shared::trace::Traces;

use crate::publisher::ChunkPublisher;
use crate::spool::Spool;
use crate::spool::record::{Records, SpooledCallback};
use crate::spool::segment::{Removal, Segment};

/// How many chunks are published at once. Less than the publisher's window, of which the callbacks that
/// arrive meanwhile need their part.
const WINDOW: usize = 400;

/// Publishes what is in the spool, until the shut-down.
pub async fn drain(spool: &Spool, publisher: &ChunkPublisher, shutdown: &Shutdown) {
    let work = async {
        while let Some(segment) = spool.oldest().await {
            drain_segment(spool, publisher, segment).await;
        }
    };
    tokio::select! {
        () = work => {}
        // What was published of a segment is published again by the next run.
        () = shutdown.begun() => {}
    }
}

async fn drain_segment(spool: &Spool, publisher: &ChunkPublisher, segment: Segment) {
    let path = segment.path().display().to_string();
    let removal = match read(segment).await {
        Ok(content) => {
            publish(publisher, &content.callbacks).await;
            content.removal
        }
        Err(error) => {
            tracing::error!(%error, segment = path, "a segment of the spool cannot be read");
            Removal::Leave
        }
    };
    spool.remove_oldest(removal).await;
}

/// A segment's callbacks, and what is to become of it.
struct Content {
    callbacks: Vec<SpooledCallback>,
    removal: Removal,
}

async fn read(segment: Segment) -> std::io::Result<Content> {
    let reading = tokio::task::spawn_blocking(move || Ok(parse(&segment.read()?)));
    reading.await.unwrap_or_else(|error| Err(error.into()))
}

fn parse(segment: &[u8]) -> Content {
    let records = Records::read(segment);
    let mut content = Content {
        callbacks: Vec::with_capacity(records.readable.len()),
        removal: if records.damaged == 0 {
            Removal::Delete
        } else {
            Removal::SetAside
        },
    };
    for record in records.readable {
        match record.callback() {
            Ok(callback) => content.callbacks.push(callback),
            Err(error) => {
                tracing::error!(%error, "a callback in the spool waits for another version of ingest");
                content.removal = Removal::Leave;
            }
        }
    }
    content
}

async fn publish(publisher: &ChunkPublisher, callbacks: &[SpooledCallback]) {
    let chunks: Vec<_> = callbacks
        .iter()
        .flat_map(|callback| {
            let traces = Traces::from_traceparent(callback.traceparent.clone());
            let queue = publisher.queue(callback.object_ids.len());
            let chunks = publisher.split(&callback.object_ids);
            chunks.map(move |chunk| (queue, chunk.to_vec(), traces.clone()))
        })
        .collect();
    stream::iter(chunks)
        .map(|(queue, chunk, traces)| publisher.publish_until_confirmed(queue, chunk, traces))
        .buffered(WINDOW)
        .for_each(async |()| {})
        .await;
    metrics::counter!("spool_callbacks_drained_total").increment(callbacks.len() as u64);
}

/// Says how much waits in the spool, for how long, and how fast it is drained, until the shut-down.
pub async fn report(spool: &Spool, shutdown: &Shutdown) {
    const INTERVAL: Duration = Duration::from_secs(1);
    const LINES: u64 = 10;
    let (mut ticks, mut before) = (0, spool.depth());
    while shutdown.sleep(INTERVAL).await {
        let now = spool.depth();
        let age = now
            .oldest
            .and_then(|oldest| SystemTime::now().duration_since(oldest).ok());
        metrics::gauge!("spool_oldest_age_seconds").set(age.unwrap_or_default());
        ticks += 1;
        if ticks % LINES == 0 {
            spool.check().await;
        }
        let turned = (now.callbacks == 0) != (before.callbacks == 0);
        if !turned && (now.callbacks == 0 || ticks % LINES != 0) {
            continue;
        }
        tracing::info!(
            callbacks = now.callbacks,
            bytes = now.bytes,
            oldest_s = age.unwrap_or_default().as_secs(),
            drained = now.drained - before.drained,
            "{}",
            if now.callbacks == 0 {
                "the spool is drained"
            } else {
                "callbacks wait in the spool"
            }
        );
        before = now;
    }
}
