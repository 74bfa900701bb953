//! The spool: callbacks that the broker did not confirm in time, on this host's disk.
//!
//! One task owns the files. Callbacks that arrive while it writes are written together, with one
//! `fsync` for all, and each is answered once it is on the disk.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use shared::config::{ByteSize, Value};
use shared::health::Dependency;
use shared::messages::ObjectId;
use shared::shutdown::{Shutdown, VitalTask};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot, watch};

use log::{Depth, Log};
use segment::{Removal, Segment};

pub mod drain;
pub mod folders;
pub mod log;
pub mod record;
pub mod segment;

/// Most callbacks that are written together.
const GROUP: usize = 1_000;

/// How long a callback waits for the disk. Its client has long given up by then.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The folder of the spool.
#[derive(Clone, Debug)]
pub struct SpoolDirectory(pub PathBuf);

impl Value for SpoolDirectory {
    fn parse(raw: &str) -> Result<Self, String> {
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

enum Command {
    Append {
        record: Vec<u8>,
        reply: oneshot::Sender<Result<(), SpoolError>>,
    },
    Oldest(oneshot::Sender<Option<Segment>>),
    RemoveOldest {
        removal: Removal,
        reply: oneshot::Sender<io::Result<()>>,
    },
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
        let (commands, receiver) = mpsc::channel(GROUP);
        let (announced, watched) = watch::channel(depth);
        let keeper = Keeper {
            log,
            limit: limit.bytes() as u64,
            dependency,
            depth: announced,
        };
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
    pub async fn append(&self, object_ids: Vec<ObjectId>) -> Result<(), SpoolError> {
        let record = record::frame(object_ids, SystemTime::now())?;
        let append = self.ask(|reply| Command::Append { record, reply });
        match tokio::time::timeout(TIMEOUT, append).await {
            Ok(result) => result.unwrap_or(Err(SpoolError::Disk)),
            Err(_) => Err(SpoolError::Timeout),
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.depth.borrow().callbacks == 0
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
            if let Some(segment) = self.ask(Command::Oldest).await? {
                return Some(segment);
            }
        }
    }

    async fn remove_oldest(&self, removal: Removal) -> io::Result<()> {
        let removed = self.ask(|reply| Command::RemoveOldest { removal, reply });
        removed
            .await
            .unwrap_or_else(|| Err(io::Error::other("the spool has ended")))
    }

    /// `None` when the task has ended.
    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.ok()?;
        answer.await.ok()
    }
}

/// Owns the files.
struct Keeper {
    log: Log,
    limit: u64,
    dependency: Dependency,
    depth: watch::Sender<Depth>,
}

type Waiting = Vec<(Vec<u8>, oneshot::Sender<Result<(), SpoolError>>)>;

impl Keeper {
    fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.announce();
        let mut group = Vec::with_capacity(GROUP);
        while commands.blocking_recv_many(&mut group, GROUP) > 0 {
            let mut waiting = Waiting::new();
            for command in group.drain(..) {
                match command {
                    Command::Append { record, reply } => waiting.push((record, reply)),
                    Command::Oldest(reply) => answer(reply, self.log.oldest()),
                    Command::RemoveOldest { removal, reply } => {
                        let removed = self.log.remove_oldest(removal);
                        self.announce();
                        answer(reply, removed);
                    }
                }
            }
            self.append(waiting);
        }
    }

    /// Writes all that fit with one `fsync`.
    fn append(&mut self, waiting: Waiting) {
        let mut room = self.limit.saturating_sub(self.log.depth().bytes);
        let mut records = Vec::new();
        let mut taken = Vec::new();
        for (record, reply) in waiting {
            if let Some(left) = room.checked_sub(record.len() as u64) {
                room = left;
                records.extend_from_slice(&record);
                taken.push(reply);
            } else {
                self.dependency.down(&SpoolError::Full);
                answer(reply, Err(SpoolError::Full));
            }
        }
        if !taken.is_empty() {
            self.write(&records, taken);
        }
        // Before anybody is answered, so that who then asks whether the spool is empty is told no.
        self.announce();
    }

    fn write(&mut self, records: &[u8], taken: Vec<oneshot::Sender<Result<(), SpoolError>>>) {
        let count = taken.len() as u64;
        let result = self.log.append(records, count);
        self.announce();
        match &result {
            Ok(()) => {
                self.dependency.up();
                metrics::counter!("spool_callbacks_appended_total").increment(count);
            }
            Err(error) => self.dependency.down(error),
        }
        for reply in taken {
            answer(
                reply,
                result.as_ref().map(|&()| ()).map_err(|_| SpoolError::Disk),
            );
        }
    }

    fn announce(&self) {
        let depth = self.log.depth();
        #[expect(
            clippy::cast_precision_loss,
            reason = "gauges are floating-point numbers"
        )]
        {
            metrics::gauge!("spool_bytes").set(depth.bytes as f64);
            metrics::gauge!("spool_callbacks").set(depth.callbacks as f64);
        }
        self.depth.send_replace(depth);
    }
}

/// Nobody may wait any more: a client that hung up, or a time that is over.
fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}
