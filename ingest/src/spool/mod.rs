//! The spool: callbacks that the broker did not confirm in time, on this host's disk.
//!
//! One task owns the files. Callbacks that arrive while it writes are written together, with one
//! `fsync` for all, and each is answered once it is on the disk.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::SpanBuilder;
use shared::config::{ByteSize, Value};
use shared::health::Dependency;
use shared::messages::ObjectId;
use shared::shutdown::{Shutdown, VitalTask};
use shared::trace::Traces;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use keeper::{Command, Keeper};
use log::{Depth, Log};
use record::SpooledCallback;
use segment::{Removal, Segment};

pub mod drain;
pub mod folders;
mod keeper;
pub mod log;
pub mod record;
pub mod segment;

/// How many callbacks may wait for the disk beside those that are being written. Few, for they may be
/// large, and their clients give up.
const WAITING: usize = 100;

/// How long a callback waits for the disk. Its client has long given up by then.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The folder of the spool.
#[derive(Clone, Debug)]
pub struct SpoolDirectory(pub PathBuf);

impl Value for SpoolDirectory {
    fn parse(raw: &str) -> Result<Self, String> {
        if raw.is_empty() {
            return Err("no folder".to_owned());
        }
        Ok(Self(raw.into()))
    }

    fn show(&self) -> String {
        self.0.display().to_string()
    }
}

/// Why a callback is not in the spool.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// It would be larger than its limit.
    #[error("the spool is full")]
    Full,
    /// The disk is full or fails.
    #[error("the spool cannot be written")]
    Disk,
    /// The disk does not answer.
    #[error("the spool takes too long")]
    Timeout,
    /// A callback could not be written as bytes.
    #[error("a callback could not be encoded: {0}")]
    Encode(#[from] serde_json::Error),
}

impl SpoolError {
    /// The kind of failure, as traces name it.
    fn kind(&self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Disk => "disk",
            Self::Timeout => "timeout",
            Self::Encode(_) => "encode",
        }
    }
}

/// Callbacks on the disk. Clones share it.
#[derive(Clone, Debug)]
pub struct Spool {
    commands: mpsc::Sender<Command>,
    depth: watch::Receiver<Depth>,
}

impl Spool {
    /// Takes up what earlier runs left in `directory`, and starts the task that owns the files. It ends
    /// when all clones are dropped, or when the time to drain is over.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub fn start(
        directory: &SpoolDirectory,
        limit: ByteSize,
        dependency: Dependency,
        shutdown: &Shutdown,
    ) -> io::Result<(Self, VitalTask)> {
        let log = Log::open(&directory.0)?;
        dependency.up();
        let depth = log.depth();
        if depth.callbacks > 0 {
            tracing::info!(
                callbacks = depth.callbacks,
                bytes = depth.bytes,
                "the spool holds callbacks of an earlier run"
            );
        }
        let (commands, receiver) = mpsc::channel(WAITING);
        let (announced, watched) = watch::channel(depth);
        let keeper = Keeper::new(log, limit.bytes() as u64, dependency, announced);
        let stop = shutdown.clone();
        let work = async move {
            tokio::select! {
                // A panic has been logged, and ends the task, which the process notices.
                _ = tokio::task::spawn_blocking(|| keeper.run(receiver)) => {}
                // A disk that does not answer must not hold up the end.
                () = stop.closing() => {}
            }
        };
        let spool = Self {
            commands,
            depth: watched,
        };
        Ok((spool, VitalTask::spawn("spool", shutdown, work)))
    }

    /// Returns when the callback is on the disk.
    ///
    /// # Errors
    /// [`SpoolError`]: it is not known to be there.
    pub async fn append(
        &self,
        object_ids: Vec<ObjectId>,
        traces: &Traces,
    ) -> Result<(), SpoolError> {
        let mut span = traces.start(|| SpanBuilder::from_name("append spool"));
        let callback = SpooledCallback {
            object_ids,
            traceparent: span.traces().to_traceparent(),
        };
        let appended = self.append_untraced(&callback).await;
        if let Err(error) = &appended {
            span.fail(error.kind(), error);
        }
        appended
    }

    async fn append_untraced(&self, callback: &SpooledCallback) -> Result<(), SpoolError> {
        let record = record::frame(callback, SystemTime::now())?;
        let append = self.ask(|reply| Command::Append { record, reply });
        match tokio::time::timeout(TIMEOUT, append).await {
            Ok(result) => result.unwrap_or(Err(SpoolError::Disk)),
            Err(_) => Err(SpoolError::Timeout),
        }
    }

    /// What is in it.
    #[must_use]
    fn depth(&self) -> Depth {
        *self.depth.borrow()
    }

    /// Waits until there is something in it, and returns the segment that is drained next. `None` when
    /// the task has ended.
    async fn oldest(&self) -> Option<Segment> {
        let mut depth = self.depth.clone();
        loop {
            depth.wait_for(|depth| depth.callbacks > 0).await.ok()?;
            if let Some(segment) = self.oldest_now().await {
                return Some(segment);
            }
        }
    }

    async fn oldest_now(&self) -> Option<Segment> {
        self.ask(Command::Oldest).await?
    }

    /// Has a disk that failed tried again, so that health is right also when nothing is appended.
    async fn check(&self) {
        // With the task the disk is gone, too.
        drop(self.commands.send(Command::Check).await);
    }

    async fn remove_oldest(&self, removal: Removal) {
        self.ask(|reply| Command::RemoveOldest { removal, reply })
            .await;
    }

    /// `None` when the task has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use shared::health::Health;
    use tempfile::TempDir;

    use super::*;

    /// In memory, where the system has a place for such: a busy disk can take longer than `TIMEOUT`.
    fn folder() -> TempDir {
        TempDir::new_in("/dev/shm")
            .or_else(|_| TempDir::new())
            .unwrap()
    }

    fn start(directory: &TempDir, limit: &str, health: &Health) -> Spool {
        let directory = SpoolDirectory(directory.path().to_owned());
        let limit = <ByteSize as Value>::parse(limit).unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(1));
        let (spool, _) =
            Spool::start(&directory, limit, health.dependency("spool"), &shutdown).unwrap();
        spool
    }

    async fn append(spool: &Spool) -> Result<(), SpoolError> {
        spool.append(vec![ObjectId(1)], &Traces::default()).await
    }

    #[tokio::test]
    async fn a_disk_that_works_again_is_noticed_without_a_callback() {
        let (directory, health) = (folder(), Health::default());
        let spool = start(&directory, "1MiB", &health);
        let folder = directory.path().join("0");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(append(&spool).await, Err(SpoolError::Disk)));
        spool.check().await;
        assert!(spool.oldest_now().await.is_none() && !health.is_ready());
        std::fs::create_dir(&folder).unwrap();
        spool.check().await;
        assert!(spool.oldest_now().await.is_none() && health.is_ready());
        assert!(append(&spool).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_spool_is_well_again_when_a_segment_is_drained() {
        let (directory, health) = (folder(), Health::default());
        let spool = start(&directory, "60B", &health);
        assert!(append(&spool).await.is_ok());
        assert!(matches!(append(&spool).await, Err(SpoolError::Full)));
        assert!(!health.is_ready());
        assert!(spool.oldest().await.is_some());
        spool.remove_oldest(Removal::Delete).await;
        assert!(health.is_ready());
        assert_eq!(spool.depth().callbacks, 0);
        assert!(append(&spool).await.is_ok());
    }
}
