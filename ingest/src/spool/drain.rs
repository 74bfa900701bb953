//! Drains the spool: publishes its callbacks, the oldest first.

use std::ops::Range;
use std::time::{Duration, SystemTime};

use broker::Headers;
use futures::StreamExt;
use futures::stream;
use lifecycle::Shutdown;
use trace::TraceSet;

use super::Spool;
use super::disk::Disk;
use super::record::{Records, SpooledCallback};
use super::removal::Removal;
use super::segment::{End, Segment};
use crate::chunks::ChunkPublisher;
use crate::metrics::{SPOOL_CALLBACKS_DRAINED, SPOOL_OLDEST_AGE, SPOOL_READS_FAILED};

/// Maximum number of chunks that are published at once. Less than the window of the broker's publisher,
/// which new callbacks need too.
const WINDOW: usize = 400;

/// Searches, drains and reports until the shut-down.
pub(crate) async fn run(spool: &Spool, chunks: &ChunkPublisher, shutdown: &Shutdown) {
    let work = async {
        tokio::join!(drain(spool, chunks), search(spool), report(spool));
    };
    tokio::select! {
        () = work => {}
        // The next run publishes the whole segment again.
        () = shutdown.begun() => {}
    }
}

async fn drain(spool: &Spool, chunks: &ChunkPublisher) {
    while let Some(segment) = spool.seal_oldest().await {
        let removal = match segment.settled {
            Some(removal) => removal,
            None => drain_segment(spool, chunks, &segment).await,
        };
        spool.settle(segment, removal).await;
    }
}

async fn drain_segment(spool: &Spool, chunks: &ChunkPublisher, segment: &Segment) -> Removal {
    match read(spool.disk, segment.clone()).await {
        Ok(content) => {
            publish(chunks, &content.callbacks).await;
            content.removal
        }
        Err(error) => {
            SPOOL_READS_FAILED.increment(1);
            tracing::error!(%error, "a segment of the spool cannot be read; it is tried again");
            Removal::TryAgain
        }
    }
}

/// A segment's callbacks, and what is to become of it.
pub(super) struct Content {
    /// With the time at which each was accepted, if it makes sense.
    pub(super) callbacks: Vec<(SpooledCallback, Option<SystemTime>)>,
    pub(super) removal: Removal,
}

async fn read<D: Disk>(disk: D, segment: Segment) -> std::io::Result<Content> {
    let reading =
        tokio::task::spawn_blocking(move || Ok(parse(&segment, disk.read(segment.path())?)));
    reading.await.unwrap_or_else(|error| Err(error.into()))
}

pub(super) fn parse(segment: &Segment, mut bytes: Vec<u8>) -> Content {
    let written = usize::try_from(segment.bytes).unwrap_or(usize::MAX);
    if segment.end == End::Known {
        bytes.truncate(written);
    }
    let records = Records::read(&bytes);
    let mut damaged = records.damaged;
    match records.cut_off {
        Some(cut_off) if segment.end == End::MayBeCutOff => {
            warn_of_cut_off_write(segment, &cut_off);
        }
        cut_off => damaged.extend(cut_off),
    }
    if bytes.len() < written {
        damaged.push(bytes.len()..written);
    }
    let mut content = Content {
        callbacks: Vec::with_capacity(records.readable.len()),
        removal: Removal::Delete,
    };
    if !damaged.is_empty() {
        warn_of_damage(segment, &damaged);
        content.removal = Removal::SetAside;
    }
    for record in records.readable {
        match record.callback() {
            Ok(callback) => content.callbacks.push((callback, record.accepted_at())),
            Err(error) => {
                tracing::error!(%error, "a callback in the spool waits for another version of ingest");
                content.removal = Removal::Leave;
            }
        }
    }
    content
}

fn warn_of_cut_off_write(segment: &Segment, bytes: &Range<usize>) {
    tracing::warn!(
        segment = %segment.path().display(),
        offset = bytes.start,
        bytes = bytes.len(),
        "the spool ends in a write that was cut off before its callback was answered; it is dropped"
    );
}

fn warn_of_damage(segment: &Segment, damaged: &[Range<usize>]) {
    tracing::error!(
        segment = %segment.path().display(),
        offset = damaged.first().map(|first| first.start),
        places = damaged.len(),
        bytes = damaged.iter().map(Range::len).sum::<usize>(),
        "the spool is damaged: callbacks in these bytes cannot be read"
    );
}

async fn publish(chunks: &ChunkPublisher, callbacks: &[(SpooledCallback, Option<SystemTime>)]) {
    let to_publish: Vec<_> = callbacks
        .iter()
        .flat_map(|(callback, accepted_at)| {
            let headers = Headers {
                accepted_at: *accepted_at,
                ..Headers::first_try(TraceSet::from_traceparent(callback.traceparent.clone()))
            };
            let queue = chunks.queue(callback.object_ids.len());
            let split = chunks.split(&callback.object_ids);
            split.map(move |chunk| (queue, chunk.to_vec(), headers.clone()))
        })
        .collect();
    stream::iter(to_publish)
        .map(|(queue, chunk, headers)| chunks.publish_until_confirmed(queue, chunk, headers))
        .buffered(WINDOW)
        .for_each(async |()| {})
        .await;
    SPOOL_CALLBACKS_DRAINED.increment(callbacks.len() as u64);
}

/// Finds what earlier runs left at once, and what other replicas leave within a minute.
async fn search(spool: &Spool) {
    const INTERVAL: Duration = Duration::from_secs(10);
    loop {
        if let Err(error) = spool.search().await {
            tracing::warn!(%error, "the spool cannot be searched for what is left; it is tried again");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Logs and measures how much waits in the spool, and for how long.
async fn report(spool: &Spool) {
    const INTERVAL: Duration = Duration::from_secs(1);
    const LINES: u64 = 10;
    let mut before = spool.depth();
    for tick in 1_u64.. {
        tokio::time::sleep(INTERVAL).await;
        spool.check().await;
        let now = spool.depth();
        let age = now
            .oldest
            .and_then(|oldest| SystemTime::now().duration_since(oldest).ok());
        SPOOL_OLDEST_AGE.set(age.unwrap_or_default());
        let turned = (now.segments() == 0) != (before.segments() == 0);
        if turned || (now.segments() > 0 && tick % LINES == 0) {
            tracing::info!(
                bytes = now.bytes(),
                segments = now.segments(),
                oldest_s = age.unwrap_or_default().as_secs(),
                "{}",
                if now.segments() == 0 {
                    "the spool is drained"
                } else {
                    "callbacks wait in the spool"
                }
            );
        }
        before = now;
    }
}
