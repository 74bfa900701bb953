//! The spool: callbacks that the broker did not confirm in time, on this host's disk.
//!
//! One task owns the files. Callbacks that arrive while it writes are written together, with one
//! `fsync` for all, and each is answered once it is on the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use disk::{Disk, HostDisk};
use folders::survey;
use keeper::{Command, Keeper, show};
use lifecycle::{Dependency, Shutdown, VitalTask};
use log::{Depth, Log};
use messages::ObjectId;
use opentelemetry::trace::SpanBuilder;
use record::SpooledCallback;
use segment::{Removal, Segment};
use settings::{ByteSize, Value};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};
use trace::Traces;

use crate::metrics::Place;

#[cfg(test)]
mod crashes;
pub mod disk;
pub mod drain;
pub mod folders;
mod keeper;
pub mod log;
pub mod record;
pub mod segment;
#[cfg(test)]
mod simulation;

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
pub struct Spool<D: Disk = HostDisk> {
    disk: D,
    directory: PathBuf,
    dependency: Dependency,
    commands: mpsc::Sender<Command<D>>,
    depth: watch::Receiver<Depth>,
}

impl Spool {
    /// Starts the task that owns the files below `directory`. It ends when all clones are dropped, or
    /// when the time to drain is over. It tries a disk that fails again and again.
    #[must_use]
    pub fn start(
        directory: &SpoolDirectory,
        limit: ByteSize,
        dependency: Dependency,
        shutdown: &Shutdown,
    ) -> (Self, VitalTask) {
        Self::start_on(HostDisk, &directory.0, limit, dependency, shutdown)
    }
}

impl<D: Disk> Spool<D> {
    fn start_on(
        disk: D,
        directory: &Path,
        limit: ByteSize,
        dependency: Dependency,
        shutdown: &Shutdown,
    ) -> (Self, VitalTask) {
        let log = Log::new(disk.clone(), directory.to_owned());
        let (commands, receiver) = mpsc::channel(WAITING);
        let (announced, depth) = watch::channel(log.depth());
        let limit = limit.bytes() as u64;
        let keeper = Keeper::new(log, limit, dependency.clone(), announced);
        let (stop, left) = (shutdown.clone(), depth.clone());
        let work = async move {
            tokio::select! {
                // A panic has been logged, and ends the task, which the process notices.
                _ = tokio::task::spawn_blocking(|| keeper.run(receiver)) => {}
                // A disk that does not answer must not hold up the end.
                () = stop.closing() => warn_of_what_is_left(*left.borrow()),
            }
        };
        let spool = Self {
            disk,
            directory: directory.to_owned(),
            dependency,
            commands,
            depth,
        };
        (spool, VitalTask::spawn("spool", shutdown, work))
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

    /// Waits until there is something in it that can be drained, and returns the segment that is
    /// drained next. `None` when the task has ended.
    async fn oldest(&self) -> Option<Segment> {
        const PAUSE: Duration = Duration::from_secs(1);
        let mut depth = self.depth.clone();
        loop {
            depth.wait_for(|depth| depth.segments() > 0).await.ok()?;
            if let Some(segment) = self.ask(Command::Oldest).await? {
                return Some(segment);
            }
            // All that is there is to be tried again later.
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn settle(&self, segment: Segment, removal: Removal) {
        let path = segment.path().to_owned();
        let settle = |reply| Command::Settle {
            path,
            removal,
            reply,
        };
        self.ask(settle).await;
    }

    /// Has a disk that failed tried again, so that health is right also when nothing is appended.
    async fn check(&self) {
        let checked = tokio::time::timeout(TIMEOUT, self.ask(Command::Check));
        if checked.await.is_err() {
            self.dependency.down(&SpoolError::Timeout);
        }
    }

    /// Takes up what earlier runs and others left below the directory, and finds out how much there is.
    ///
    /// # Errors
    /// The disk fails. What could not be read is found another time.
    async fn search(&self) -> io::Result<()> {
        let Some(claimed) = self.ask(Command::Claimed).await else {
            return Ok(());
        };
        let (disk, directory) = (self.disk.clone(), self.directory.clone());
        let surveying = tokio::task::spawn_blocking(move || survey(&disk, &directory, &claimed));
        let survey = surveying.await.map_err(io::Error::other)??;
        show(Place::Others, survey.others);
        show(Place::Damaged, survey.damaged);
        let (listed, adopted) = (survey.listed, survey.adopted);
        let take_up = |reply| Command::TakeUp {
            listed,
            adopted,
            reply,
        };
        self.ask(take_up).await;
        Ok(())
    }

    /// `None` when the task has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command<D>) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

fn warn_of_what_is_left(depth: Depth) {
    tracing::warn!(
        bytes = depth.bytes(),
        segments = depth.segments(),
        "the disk of the spool did not answer in time; what is in the spool waits for the next start"
    );
}

#[cfg(test)]
mod tests {
    use lifecycle::Health;
    use tempfile::TempDir;

    use super::simulation::SimulatedDisk;
    use super::*;

    /// In memory, where the system has a place for such: a busy disk can take longer than `TIMEOUT`.
    fn folder() -> TempDir {
        TempDir::new_in("/dev/shm")
            .or_else(|_| TempDir::new())
            .unwrap()
    }

    fn start(directory: &TempDir, limit: &str, health: &Health) -> Spool {
        let directory = SpoolDirectory(directory.path().join("spool"));
        let limit = <ByteSize as Value>::parse(limit).unwrap();
        let shutdown = Shutdown::new(Duration::from_secs(1));
        Spool::start(&directory, limit, health.dependency("spool"), &shutdown).0
    }

    async fn append<D: Disk>(spool: &Spool<D>) -> Result<(), SpoolError> {
        spool.append(vec![ObjectId(1)], &Traces::default()).await
    }

    #[tokio::test]
    async fn a_disk_that_works_again_is_noticed_without_a_callback() {
        let (directory, health) = (folder(), Health::default());
        let in_the_way = directory.path().join("spool");
        std::fs::write(&in_the_way, "").unwrap();
        let spool = start(&directory, "1MiB", &health);
        assert!(matches!(append(&spool).await, Err(SpoolError::Disk)));
        spool.check().await;
        assert!(!health.is_ready());
        assert!(
            health.lines().contains("SPOOL_DIRECTORY"),
            "{}",
            health.lines()
        );
        std::fs::remove_file(&in_the_way).unwrap();
        spool.check().await;
        assert!(health.is_ready());
        assert!(append(&spool).await.is_ok());
    }

    #[tokio::test]
    async fn a_full_spool_is_well_again_when_a_segment_is_drained() {
        let (directory, health) = (folder(), Health::default());
        let spool = start(&directory, "60B", &health);
        assert!(append(&spool).await.is_ok());
        assert!(matches!(append(&spool).await, Err(SpoolError::Full)));
        spool.check().await;
        assert!(!health.is_ready());
        let segment = spool.oldest().await.unwrap();
        spool.settle(segment, Removal::Delete).await;
        assert!(health.is_ready());
        assert_eq!(spool.depth().segments(), 0);
        assert!(append(&spool).await.is_ok());
    }

    #[tokio::test]
    async fn what_was_adopted_takes_no_room() {
        let (directory, health) = (folder(), Health::default());
        let gone = start(&directory, "60B", &health);
        assert!(append(&gone).await.is_ok());
        let spool = start(&directory, "60B", &health);
        spool.check().await;
        drop(gone);
        // The other one ends by itself.
        while spool.depth().adopted.segments == 0 {
            spool.search().await.unwrap();
        }
        assert!(append(&spool).await.is_ok());
    }

    #[tokio::test]
    async fn a_disk_that_hangs_is_named_and_does_not_hold_up_the_end() {
        let (disk, health) = (SimulatedDisk::new(0, 0.0, None), Health::default());
        let shutdown = Shutdown::new(Duration::from_millis(100));
        let (dependency, directory) = (health.dependency("spool"), Path::new("/spool"));
        let limit = <ByteSize as Value>::parse("1MiB").unwrap();
        let (spool, task) = Spool::start_on(disk.clone(), directory, limit, dependency, &shutdown);
        assert!(append(&spool).await.is_ok() && health.is_ready());
        let hang = disk.hang();
        assert!(matches!(append(&spool).await, Err(SpoolError::Timeout)));
        spool.check().await;
        assert!(
            health.lines().contains("takes too long"),
            "{}",
            health.lines()
        );
        shutdown.begin();
        task.finished().await;
        drop(hang);
    }

    #[tokio::test]
    async fn a_disk_that_hung_is_well_again_when_it_answers() {
        let (disk, health) = (SimulatedDisk::new(0, 0.0, None), Health::default());
        let shutdown = Shutdown::new(Duration::from_millis(100));
        let (dependency, directory) = (health.dependency("spool"), Path::new("/spool"));
        let limit = <ByteSize as Value>::parse("1MiB").unwrap();
        let (spool, _) = Spool::start_on(disk.clone(), directory, limit, dependency, &shutdown);
        let hang = disk.hang();
        spool.check().await;
        assert!(!health.is_ready());
        drop(hang);
        spool.check().await;
        assert!(health.is_ready());
    }
}
