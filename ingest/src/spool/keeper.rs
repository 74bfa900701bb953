//! The task that owns the files of the spool.

use std::io;
use std::path::PathBuf;
use std::time::Instant;

use lifecycle::Dependency;
use tokio::sync::{mpsc, oneshot, watch};

use super::SpoolError;
use super::disk::{Disk, named};
use super::folders::{Claim, Claimed, Size};
use super::log::{Depth, Log};
use super::segment::{Removal, Segment};
use crate::metrics::{Place, SPOOL_BYTES, SPOOL_CALLBACKS_APPENDED, SPOOL_LIMIT, SPOOL_SEGMENTS};

/// Most callbacks that are written together.
pub(super) const GROUP: usize = 1_000;

/// What the task is asked for.
pub(super) enum Command<D: Disk> {
    Append {
        record: Vec<u8>,
        reply: oneshot::Sender<Result<(), SpoolError>>,
    },
    Oldest(oneshot::Sender<Option<Segment>>),
    Settle {
        path: PathBuf,
        removal: Removal,
        reply: oneshot::Sender<()>,
    },
    Claimed(oneshot::Sender<Claimed>),
    TakeUp {
        listed: Option<Vec<Segment>>,
        adopted: Vec<(Claim<D>, Vec<Segment>)>,
        reply: oneshot::Sender<()>,
    },
    Check(oneshot::Sender<()>),
}

/// Owns the files.
pub(super) struct Keeper<D: Disk> {
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
    /// The last one did not fit.
    Full,
    /// The last write failed, or there was none yet.
    Failed,
}

/// Records to be written, and who waits for each.
type Waiting = Vec<(Vec<u8>, oneshot::Sender<Result<(), SpoolError>>)>;

impl<D: Disk> Keeper<D> {
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

    /// Does what it is asked for, until nobody is left to ask.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command<D>>) {
        self.announce();
        self.check();
        let mut group = Vec::with_capacity(GROUP);
        while commands.blocking_recv_many(&mut group, GROUP) > 0 {
            let mut waiting = Waiting::new();
            for command in group.drain(..) {
                match command {
                    Command::Append { record, reply } => waiting.push((record, reply)),
                    command => self.obey(command),
                }
            }
            self.append(waiting);
        }
    }

    fn obey(&mut self, command: Command<D>) {
        match command {
            Command::Append { record, reply } => self.append(vec![(record, reply)]),
            Command::Oldest(reply) => answer(reply, self.log.oldest(Instant::now())),
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
                answer(reply, ());
            }
            Command::Claimed(reply) => answer(reply, self.log.claimed()),
            Command::TakeUp {
                listed,
                adopted,
                reply,
            } => {
                self.log.take_up(listed, adopted);
                self.announce();
                answer(reply, ());
            }
            Command::Check(reply) => {
                self.check();
                answer(reply, ());
            }
        }
    }

    /// Tries a disk that failed again. A disk that only was slow may have been declared down.
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

    /// Notes how writing went.
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

    /// Writes all that fit with one `fsync`.
    fn append(&mut self, waiting: Waiting) {
        let mut room = self.limit.saturating_sub(self.log.depth().own.bytes);
        let mut records = Vec::new();
        let mut taken = Vec::new();
        // Who has given up meanwhile has been answered without it.
        for (record, reply) in waiting.into_iter().filter(|(_, reply)| !reply.is_closed()) {
            if let Some(left) = room.checked_sub(record.len() as u64) {
                room = left;
                records.extend_from_slice(&record);
                taken.push(reply);
            } else {
                self.state = State::Full;
                self.dependency.down(&SpoolError::Full);
                answer(reply, Err(SpoolError::Full));
            }
        }
        if !taken.is_empty() {
            self.write(&records, taken);
        }
    }

    fn write(&mut self, records: &[u8], taken: Vec<oneshot::Sender<Result<(), SpoolError>>>) {
        let count = taken.len() as u64;
        let result = self.log.append(records);
        // Before anybody is answered, so that what is safe is also counted.
        self.announce();
        self.note(&result);
        if result.is_ok() {
            SPOOL_CALLBACKS_APPENDED.increment(count);
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

/// Shows how much lies below the directory, and where.
pub(super) fn show(place: Place, size: Size) {
    #[expect(
        clippy::cast_precision_loss,
        reason = "gauges are floating-point numbers"
    )]
    {
        SPOOL_BYTES.of(&place).set(size.bytes as f64);
        SPOOL_SEGMENTS.of(&place).set(size.segments as f64);
    }
}

/// Nobody may wait any more: a client that hung up, or a time that is over.
fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}
