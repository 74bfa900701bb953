//! The task that owns the files of the spool.

use std::io;

use shared::health::Dependency;
use tokio::sync::{mpsc, oneshot, watch};

use super::SpoolError;
use super::log::{Depth, Log};
use super::segment::{Removal, Segment};

/// Most callbacks that are written together.
pub(super) const GROUP: usize = 1_000;

/// What the task is asked for.
pub(super) enum Command {
    Append {
        record: Vec<u8>,
        reply: oneshot::Sender<Result<(), SpoolError>>,
    },
    Oldest(oneshot::Sender<Option<Segment>>),
    RemoveOldest {
        removal: Removal,
        reply: oneshot::Sender<()>,
    },
    Check,
}

/// Owns the files.
pub(super) struct Keeper {
    log: Log,
    limit: u64,
    dependency: Dependency,
    depth: watch::Sender<Depth>,
    /// Whether the last write did.
    disk_failed: bool,
}

/// Records to be written, and who waits for each.
type Waiting = Vec<(Vec<u8>, oneshot::Sender<Result<(), SpoolError>>)>;

impl Keeper {
    pub(super) fn new(
        log: Log,
        limit: u64,
        dependency: Dependency,
        depth: watch::Sender<Depth>,
    ) -> Self {
        Self {
            log,
            limit,
            dependency,
            depth,
            disk_failed: false,
        }
    }

    /// Does what it is asked for, until nobody is left to ask.
    pub(super) fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        self.announce();
        let mut group = Vec::with_capacity(GROUP);
        while commands.blocking_recv_many(&mut group, GROUP) > 0 {
            let mut waiting = Waiting::new();
            for command in group.drain(..) {
                match command {
                    Command::Append { record, reply } => waiting.push((record, reply)),
                    Command::Oldest(reply) => answer(reply, self.log.oldest()),
                    Command::RemoveOldest { removal, reply } => {
                        self.remove_oldest(removal);
                        answer(reply, ());
                    }
                    Command::Check => self.check(),
                }
            }
            self.append(waiting);
        }
    }

    fn remove_oldest(&mut self, removal: Removal) {
        self.log.remove_oldest(removal);
        self.announce();
        if !self.disk_failed {
            // There is room again.
            self.dependency.up();
        }
    }

    fn check(&mut self) {
        if self.disk_failed {
            let checked = self.log.check();
            self.note(&checked);
        }
    }

    /// Notes how writing went.
    fn note(&mut self, result: &io::Result<()>) {
        self.disk_failed = result.is_err();
        match result {
            Ok(()) => self.dependency.up(),
            Err(error) => self.dependency.down(error),
        }
    }

    /// Writes all that fit with one `fsync`.
    fn append(&mut self, waiting: Waiting) {
        let mut room = self.limit.saturating_sub(self.log.depth().bytes);
        let mut records = Vec::new();
        let mut taken = Vec::new();
        // Who has given up meanwhile has been answered without it.
        for (record, reply) in waiting.into_iter().filter(|(_, reply)| !reply.is_closed()) {
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
    }

    fn write(&mut self, records: &[u8], taken: Vec<oneshot::Sender<Result<(), SpoolError>>>) {
        let count = taken.len() as u64;
        let result = self.log.append(records, count);
        // Before anybody is answered, so that what is safe is also counted.
        self.announce();
        self.note(&result);
        if result.is_ok() {
            metrics::counter!("spool_callbacks_appended_total").increment(count);
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
            metrics::gauge!("spool_limit_bytes").set(self.limit as f64);
            metrics::gauge!("spool_callbacks").set(depth.callbacks as f64);
        }
        self.depth.send_replace(depth);
    }
}

/// Nobody may wait any more: a client that hung up, or a time that is over.
fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    drop(reply.send(answer));
}
