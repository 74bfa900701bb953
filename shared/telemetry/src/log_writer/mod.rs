//! Writes log lines in a thread, so that no work waits for the reader of the log. Lines that find no
//! place, or that cannot be written, are counted; their number is logged once writing works again.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use metric_definitions::Counter;
use parking_lot::{Condvar, Mutex};

/// What is counted of the lines that were dropped.
pub const LOG_LINES_DROPPED: Counter = Counter::<()>::new(
    "callback_pipeline_log_lines_dropped_total",
    "Log lines that nobody read in time, or that could not be written, as on a full disk.",
);

/// Bytes of the lines that may wait; further lines are dropped.
const QUEUE_BYTES: usize = 4 << 20;

/// Takes lines and returns at once. Clones share one queue and one thread.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was queued.
    filled: Condvar,
    /// Everything that was queued has been dealt with.
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Vec<u8>>,
    /// Bytes of all `lines`.
    bytes: usize,
    /// Whether a line was taken and is not written or dropped yet.
    is_writing: bool,
    /// Whether further lines are ignored.
    is_closed: bool,
    /// Dropped lines that no log line has mentioned yet.
    dropped: u64,
}

impl LogWriter {
    /// Starts the thread, which writes to `output`. It calls `say` with the number of dropped lines
    /// after a line was written, while there is room for another one.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(crate) fn start(
        output: impl Write + Send + 'static,
        say: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let writer = Self(Arc::clone(&shared));
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || shared.write_lines(Output::new(output), say))?;
        Ok(writer)
    }

    /// Waits until everything that was queued is written or dropped, but no longer than `limit`.
    pub(crate) fn flush(&self, limit: Duration) {
        let is_busy = |queue: &mut Queue| queue.is_writing || !queue.lines.is_empty();
        let mut queue = self.0.queue.lock();
        self.0.emptied.wait_while_for(&mut queue, is_busy, limit);
    }

    /// The same, and takes no line from then on.
    pub(crate) fn finish(&self, limit: Duration) {
        self.flush(limit);
        self.0.queue.lock().is_closed = true;
    }
}

impl Write for LogWriter {
    /// Queues a whole line.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.0.queue.lock();
        if queue.is_closed {
            return Ok(line.len());
        }
        if queue.bytes > 0 && queue.bytes + line.len() > QUEUE_BYTES {
            queue.drop_line();
        } else {
            queue.bytes += line.len();
            queue.lines.push_back(line.to_owned());
            // Where the thread is at work it looks again by itself.
            if !queue.is_writing {
                self.0.filled.notify_one();
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn write_lines(&self, mut output: Output<impl Write>, say: impl Fn(u64)) {
        loop {
            let line = self.next();
            let is_written = output.write_line(&line).is_ok();
            let dropped = self.queue.lock().after_line(is_written);
            // The thread counts as writing meanwhile, so that a flush waits for this line too.
            if dropped > 0 {
                say(dropped);
            }
        }
    }

    /// Waits for the next line.
    fn next(&self) -> Vec<u8> {
        let mut queue = self.queue.lock();
        loop {
            if let Some(line) = queue.lines.pop_front() {
                queue.bytes -= line.len();
                queue.is_writing = true;
                return line;
            }
            queue.is_writing = false;
            self.emptied.notify_all();
            self.filled.wait(&mut queue);
        }
    }
}

impl Queue {
    fn drop_line(&mut self) {
        self.dropped += 1;
        LOG_LINES_DROPPED.increment(1);
    }

    /// How many dropped lines to log now: none while the reader only just keeps up.
    fn after_line(&mut self, is_written: bool) -> u64 {
        if !is_written {
            self.drop_line();
            0
        } else if self.bytes <= QUEUE_BYTES / 2 {
            std::mem::take(&mut self.dropped)
        } else {
            0
        }
    }
}

/// Where lines are written to.
struct Output<W> {
    to: W,
    /// Whether the last line was cut off.
    is_torn: bool,
}

impl<W: Write> Output<W> {
    fn new(to: W) -> Self {
        Self { to, is_torn: false }
    }

    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_some(b"\n")?;
            self.is_torn = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            let written = self.write_some(rest)?;
            self.is_torn = true;
            rest = &rest[written..];
        }
        self.is_torn = false;
        self.to.flush()
    }

    /// Writes a part. An output that does not block is tried again after a pause.
    #[expect(clippy::disallowed_methods, reason = "the thread is the log's own")]
    fn write_some(&mut self, part: &[u8]) -> io::Result<usize> {
        const PAUSE: Duration = Duration::from_millis(10);
        loop {
            match self.to.write(part) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => thread::sleep(PAUSE),
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests;
