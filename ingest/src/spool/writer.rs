//! The task that owns the files of the spool.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use lifecycle::Dependency;
use tokio::sync::{mpsc, oneshot, watch};

use super::depth::{Depth, show};
use super::disk::{Disk, named};
use super::error::SpoolError;
use super::log::Log;
use super::removal::Removal;
use super::segment::Segment;
use super::survey::{ClaimedFolders, Survey};
use crate::metrics::{Place, SPOOL_CALLBACKS_APPENDED, SPOOL_LIMIT};

/// Maximum number of callbacks that are written together.
pub(super) const GROUP: usize = 1_000;

/// A request to the task.
pub(super) enum Command<D: Disk> {
    Append(Append),
    SealOldest(oneshot::Sender<Option<Segment>>),
    Settle {
        path: PathBuf,
        removal: Removal,
        reply: oneshot::Sender<()>,
    },
    ListClaimed(oneshot::Sender<ClaimedFolders>),
    TakeUp {
        survey: Survey<D>,
        reply: oneshot::Sender<()>,
    },
    Check(oneshot::Sender<()>),
}

/// A record to be written, and the reply that its caller waits for.
pub(super) struct Append {
    pub(super) record: Vec<u8>,
    pub(super) reply: oneshot::Sender<Result<(), SpoolError>>,
}

/// Owns the files, and writes them.
pub(super) struct SpoolWriter<D: Disk> {
    log: Log<D>,
    limit: u64,
    dependency: Dependency,
    depth: watch::Sender<Depth>,
    state: State,
}

/// Whether callbacks can be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Well,
    /// The last callback did not fit.
    Full,
    /// The last write failed, or there was no write yet.
    Failed,
}

impl<D: Disk> SpoolWriter<D> {
    pub(super) fn new(
        log: Log<D>,
        limit: u64,
        dependency: Dependency,
        depth: watch::Sender<Depth>,
    ) -> Self {
        Self {
            log,
            limit,
            dependency,
            depth,
            state: State::Failed,
        }
    }

    /// Executes commands until every [`Spool`](super::Spool) is dropped.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command<D>>) {
        self.announce();
        self.check();
        let mut group = Vec::with_capacity(GROUP);
        while commands.blocking_recv_many(&mut group, GROUP) > 0 {
            let mut waiting = Vec::new();
            for command in group.drain(..) {
                match command {
                    Command::Append(append) => waiting.push(append),
                    command => self.execute(command),
                }
            }
            self.append(waiting);
        }
    }

    fn execute(&mut self, command: Command<D>) {
        match command {
            Command::Append(append) => self.append(vec![append]),
            Command::SealOldest(reply) => send(reply, self.log.seal_oldest(Instant::now())),
            Command::Settle {
                path,
                removal,
                reply,
            } => {
                self.log.settle(&path, removal, Instant::now());
                self.announce();
                if self.state == State::Full {
                    // There is room again.
                    self.note(&Ok(()));
                }
                send(reply, ());
            }
            Command::ListClaimed(reply) => send(reply, self.log.claimed()),
            Command::TakeUp { survey, reply } => {
                show(Place::Others, survey.others);
                show(Place::Damaged, survey.damaged);
                self.log.take_up(survey);
                self.announce();
                send(reply, ());
            }
            Command::Check(reply) => {
                self.check();
                send(reply, ());
            }
        }
    }

    /// Tries a disk that failed. A disk that was only slow may have been declared down.
    fn check(&mut self) {
        match self.state {
            State::Well => self.dependency.up(),
            State::Full => {}
            State::Failed => {
                let checked = self.log.check();
                self.note(&checked);
            }
        }
    }

    fn note(&mut self, result: &io::Result<()>) {
        match result {
            Ok(()) => {
                self.state = State::Well;
                self.dependency.up();
            }
            Err(error) => {
                self.state = State::Failed;
                self.dependency.down(&named("SPOOL_DIRECTORY", error));
            }
        }
    }

    /// Writes all records that fit, with one `fsync`.
    fn append(&mut self, waiting: Vec<Append>) {
        let mut room = self.limit.saturating_sub(self.log.depth().own.bytes);
        let mut records = Vec::new();
        let mut taken = Vec::new();
        // Skip callers that have timed out; they have their answer.
        let waiting = waiting.into_iter();
        for Append { record, reply } in waiting.filter(|append| !append.reply.is_closed()) {
            if let Some(left) = room.checked_sub(record.len() as u64) {
                room = left;
                records.extend_from_slice(&record);
                taken.push(reply);
            } else {
                self.state = State::Full;
                self.dependency.down(&SpoolError::Full);
                send(reply, Err(SpoolError::Full));
            }
        }
        if !taken.is_empty() {
            self.write(&records, taken);
        }
    }

    fn write(&mut self, records: &[u8], taken: Vec<oneshot::Sender<Result<(), SpoolError>>>) {
        let count = taken.len() as u64;
        let result = self.log.append(records);
        // Before the replies, so that every stored callback is counted.
        self.announce();
        self.note(&result);
        if result.is_ok() {
            SPOOL_CALLBACKS_APPENDED.increment(count);
        }
        for reply in taken {
            send(
                reply,
                result.as_ref().map(|&()| ()).map_err(|_| SpoolError::Disk),
            );
        }
    }

    fn announce(&self) {
        let depth = self.log.depth();
        show(Place::Own, depth.own);
        show(Place::Adopted, depth.adopted);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a gauge is a floating-point number"
        )]
        SPOOL_LIMIT.set(self.limit as f64);
        self.depth.send_replace(depth);
    }
}

/// Replies to a caller, unless it has given up: its client hung up, or its time is over.
fn send<T>(reply: oneshot::Sender<T>, value: T) {
    drop(reply.send(value));
}
