//! What the command prints.

use std::io::{ErrorKind, Write};

use serde_json::json;

use crate::arguments::Arguments;
use crate::letter::Letter;
use crate::queue_reader::QueueReader;

/// Prints a text. A reader that has left, as `head` does, is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{}", text.trim_end()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// A line about messages that did not come, or nothing.
pub(crate) fn missing_line(missing: u32) -> String {
    if missing == 0 {
        return String::new();
    }
    format!("{missing} of them did not come: another consumer has them, or the management UI\n")
}

/// The text with its control characters escaped. Reasons quote what others chose, and nothing in them may
/// move the cursor.
pub(crate) fn printable(text: &str) -> String {
    let escape = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// What `replay` and `purge` have done so far.
pub(crate) struct Progress {
    verb: &'static str,
    chosen: usize,
    /// How many chosen messages are for no queue that is known.
    lost: usize,
    /// How many messages are no longer in the queue.
    pub(crate) done: usize,
}

impl Progress {
    /// `verb` says what is done to the messages.
    pub(crate) fn new(verb: &'static str) -> Self {
        Self {
            verb,
            chosen: 0,
            lost: 0,
            done: 0,
        }
    }

    /// Whether as many messages were chosen as there may be.
    pub(crate) fn is_enough(&self, arguments: &Arguments) -> bool {
        arguments.limit.is_some_and(|limit| self.chosen >= limit)
    }

    /// Returns whether this message is chosen, and counts it then.
    pub(crate) fn takes(&mut self, arguments: &Arguments, letter: &Letter) -> bool {
        let is_chosen = !self.is_enough(arguments) && arguments.choice.takes(letter);
        self.chosen += usize::from(is_chosen);
        is_chosen
    }

    /// A chosen message is not for any queue that is known.
    pub(crate) fn give_up_on(&mut self, letter: &Letter) {
        tracing::debug!(kind = ?letter.kind, reason = letter.reason, "not for any queue");
        self.chosen -= 1;
        self.lost += 1;
    }

    /// Closes the reader, and prints for people, or JSON for programs.
    pub(crate) async fn finish(
        &self,
        reader: QueueReader<'_>,
        arguments: &Arguments,
    ) -> anyhow::Result<()> {
        let (queue, held, missing) = (reader.queue().to_owned(), reader.held, reader.missing);
        reader.close().await?;
        let (verb, done, lost) = (self.verb, self.done, self.lost);
        let left = (held as usize).saturating_sub(done);
        if arguments.json {
            let report = json!({
                "queue": queue,
                "held": held,
                "missing": missing,
                verb: done,
                "left": left,
                "left_for_no_known_queue": lost,
            });
            return print(&format!("{report:#}"));
        }
        let lost = match lost {
            0 => String::new(),
            lost => format!("{lost} of those left were chosen, but for no queue that is known\n"),
        };
        let missing = missing_line(missing);
        print(&format!(
            "{queue}: {verb} {done} of {held} messages, {left} left\n{lost}{missing}"
        ))
    }
}
