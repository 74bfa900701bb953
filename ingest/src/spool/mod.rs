//! The spool: callbacks that the broker did not confirm in time, on this host's disk.
//!
//! One task owns the files. Callbacks that arrive while it writes are written together, with one
//! `fsync` for all, and each is answered once it is on the disk.
//!
//! ```text
//! SPOOL_DIRECTORY/
//!   0/                                a folder for each replica
//!     lock                            its lock claims the folder
//!     00000000000000000000.segment    records one after the other; no more than 1 MiB and the last write
//!     00000000000000000001.segment
//!   1/
//!   damaged/                          segments with unreadable parts, for an operator
//!     0-00000000000000000000.segment
//!
//! record
//!   +-----------+---------+---------+---------------+----------------------------------+
//!   | marker    | length  | CRC-32  | accepted at   | callback                         |
//!   | CB "sp1"  |         |         | ms since 1970 | {"version":1,"object_ids":[...]} |
//!   | 4 bytes   | 4 bytes | 4 bytes | 8 bytes       |                                  |
//!   +-----------+---------+---------+---------------+----------------------------------+
//!                                   |<---- length bytes, checked by the CRC-32 ------->|
//! ```
//!
//! Numbers are little-endian. The marker lets a reader find the next record after unreadable bytes, so
//! damage costs only the records that it hits.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use lifecycle::{Dependency, Shutdown, VitalTask};
use messages::ObjectId;
use opentelemetry::trace::SpanBuilder;
use settings::ByteSize;
use tokio::sync::{mpsc, oneshot, watch};
use trace::TraceSet;

use self::depth::Depth;
use self::disk::{Disk, HostDisk};
use self::log::Log;
use self::record::SpooledCallback;
use self::removal::Removal;
use self::segment::Segment;
use self::survey::survey;
use self::writer::{Append, Command, SpoolWriter};
use crate::config::SpoolDirectory;

mod claim;
#[cfg(test)]
mod crashes;
mod depth;
mod disk;
pub(crate) mod drain;
mod error;
mod log;
mod record;
mod removal;
mod segment;
#[cfg(test)]
mod simulation;
mod survey;
mod writer;

pub(crate) use error::SpoolError;

/// Maximum number of callbacks that wait for the disk while others are written. Few, because they may be
/// large, and their clients give up.
const WAITING: usize = 100;

/// How long a callback waits for the disk. Its client has long given up by then.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Callbacks on the disk. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Spool<D: Disk = HostDisk> {
    disk: D,
    directory: PathBuf,
    dependency: Dependency,
    commands: mpsc::Sender<Command<D>>,
    depth: watch::Receiver<Depth>,
}

impl Spool {
    /// Starts the task that owns the files below `directory`. It ends when all clones are dropped, or when
    /// the time to drain is over. It keeps trying a disk that fails.
    pub(crate) fn start(
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
        let writer = SpoolWriter::new(log, limit, dependency.clone(), announced);
        let (stop, left) = (shutdown.clone(), depth.clone());
        let work = async move {
            tokio::select! {
                // A panic has been logged. It ends this task, and with it the process.
                _ = tokio::task::spawn_blocking(|| writer.run(receiver)) => {}
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

    /// Gives up this clone, and waits until `spooling`, the task from [`Spool::start`], has ended.
    pub(crate) async fn close(self, spooling: VitalTask) {
        drop(self);
        spooling.finished().await;
    }

    /// Returns when the callback is on the disk.
    ///
    /// # Errors
    /// [`SpoolError`]: it is not known to be there.
    pub(crate) async fn append(
        &self,
        object_ids: Vec<ObjectId>,
        traces: &TraceSet,
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
        let append = self.ask(|reply| Command::Append(Append { record, reply }));
        match tokio::time::timeout(TIMEOUT, append).await {
            Ok(result) => result.unwrap_or(Err(SpoolError::Disk)),
            Err(_) => Err(SpoolError::Timeout),
        }
    }

    fn depth(&self) -> Depth {
        *self.depth.borrow()
    }

    /// Waits for a segment that can be drained, and seals it. `None` when the task has ended.
    async fn seal_oldest(&self) -> Option<Segment> {
        const PAUSE: Duration = Duration::from_secs(1);
        let mut depth = self.depth.clone();
        loop {
            depth.wait_for(|depth| depth.segments() > 0).await.ok()?;
            if let Some(segment) = self.ask(Command::SealOldest).await? {
                return Some(segment);
            }
            // Every segment is delayed.
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Removes a drained segment, or delays it, as `removal` says.
    async fn settle(&self, segment: Segment, removal: Removal) {
        let path = segment.path().to_owned();
        let settle = |reply| Command::Settle {
            path,
            removal,
            reply,
        };
        self.ask(settle).await;
    }

    /// Tries a disk that failed, so that health is right also when nothing is appended.
    async fn check(&self) {
        let checked = tokio::time::timeout(TIMEOUT, self.ask(Command::Check));
        if checked.await.is_err() {
            self.dependency.down(&SpoolError::Timeout);
        }
    }

    /// Finds what earlier runs and other replicas have left, for this task to drain.
    ///
    /// # Errors
    /// The disk fails. The next search may find more.
    async fn search(&self) -> io::Result<()> {
        let Some(claimed) = self.ask(Command::ListClaimed).await else {
            return Ok(());
        };
        let (disk, directory) = (self.disk.clone(), self.directory.clone());
        let surveying = tokio::task::spawn_blocking(move || survey(&disk, &directory, &claimed));
        let survey = surveying.await.map_err(io::Error::other)??;
        self.ask(|reply| Command::TakeUp { survey, reply }).await;
        Ok(())
    }

    /// Sends a command and waits for the reply; `None` when the task has ended.
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
mod tests;
