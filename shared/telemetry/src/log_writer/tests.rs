use std::cell::RefCell;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::*;

const BOUND: Duration = Duration::from_mins(1);

/// Writes one line for each permission to do so, or fails.
struct Gate {
    permits: Receiver<io::Result<usize>>,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // Without anybody who permits, everything is.
        let most = self.permits.recv().unwrap_or(Ok(usize::MAX))?;
        let written = &bytes[..most.min(bytes.len())];
        self.written.lock().extend(written);
        Ok(written.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stage {
    writer: LogWriter,
    permits: SyncSender<io::Result<usize>>,
    written: Arc<Mutex<Vec<u8>>>,
}

/// A writer whose thread says how many lines were dropped as a line.
fn stage() -> Stage {
    let (permits, permitted) = sync_channel(0);
    let written = Arc::default();
    let gate = Gate {
        permits: permitted,
        written: Arc::clone(&written),
    };
    let (give, given) = sync_channel::<LogWriter>(1);
    let own = RefCell::new(None);
    let say = move |dropped| {
        let mut own = own.borrow_mut();
        let writer: &mut LogWriter = own.get_or_insert_with(|| given.recv().unwrap());
        writeln!(writer, "dropped {dropped}").unwrap();
    };
    let writer = LogWriter::start(gate, say).unwrap();
    give.send(writer.clone()).unwrap();
    Stage {
        writer,
        permits,
        written,
    }
}

impl Stage {
    fn write(&mut self, line: &str) {
        self.writer.write_all(line.as_bytes()).unwrap();
    }

    /// Lets everything be written, and returns what was.
    fn end(self) -> String {
        drop(self.permits);
        self.writer.flush(BOUND);
        let written = self.written.lock();
        String::from_utf8(written.clone()).unwrap()
    }
}

#[test]
fn lines_beyond_the_queue_are_dropped_at_once_and_spoken_of_once() {
    let mut stage = stage();
    let line = format!("{}\n", "x".repeat(1_023));
    // One is being written, and 4,096 fit into the queue, whichever comes first.
    for _ in 0..6_000 {
        stage.write(&line);
    }
    let written = stage.end();
    let kept = written.matches(&line).count();
    assert!((4_096..=4_097).contains(&kept), "{kept}");
    assert_eq!(written.matches("dropped").count(), 1);
    assert!(written.contains(&format!("dropped {}\n", 6_000 - kept)));
}

#[test]
fn lines_that_cannot_be_written_are_dropped_and_spoken_of_once_it_works_again() {
    let mut stage = stage();
    for line in ["one\n", "two\n", "three\n"] {
        stage.write(line);
    }
    for _ in 0..2 {
        let full = Err(ErrorKind::StorageFull.into());
        stage.permits.send(full).unwrap();
    }
    assert_eq!(stage.end(), "three\ndropped 2\n");
}

#[test]
fn a_line_that_was_cut_off_does_not_run_into_the_next() {
    let mut stage = stage();
    stage.write("one\n");
    stage.write("two\n");
    stage.permits.send(Ok(2)).unwrap();
    let full = Err(ErrorKind::StorageFull.into());
    stage.permits.send(full).unwrap();
    assert_eq!(stage.end(), "on\ntwo\ndropped 1\n");
}

#[test]
fn an_output_that_would_block_is_waited_for() {
    let mut stage = stage();
    stage.write("one\n");
    let blocked = Err(ErrorKind::WouldBlock.into());
    stage.permits.send(blocked).unwrap();
    assert_eq!(stage.end(), "one\n");
}

#[test]
fn a_flush_ends_also_where_nothing_can_be_written() {
    let mut stage = stage();
    stage.write("one\n");
    stage.writer.flush(Duration::from_millis(20));
    assert!(stage.written.lock().is_empty());
    assert_eq!(stage.end(), "one\n");
}

#[test]
fn what_comes_after_the_end_is_of_no_interest() {
    let mut stage = stage();
    stage.write("one\n");
    stage.writer.finish(Duration::from_millis(20));
    stage.write("two\n");
    assert_eq!(stage.end(), "one\n");
}
