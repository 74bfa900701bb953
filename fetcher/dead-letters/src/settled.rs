//! What `dead-letters replay` and `dead-letters purge` have done, and print.

use serde_json::json;

use crate::arguments::Arguments;
use crate::letter::Letter;
use crate::print::missing;
use crate::queue_reader::QueueReader;

/// The answer of `replay` and of `purge`.
pub(crate) struct Settled {
    verb: &'static str,
    queue: String,
    held: u32,
    chosen: usize,
    lost: usize,
    /// How many messages are no more in the queue.
    pub(crate) done: usize,
}

impl Settled {
    /// Nothing is settled yet; `verb` says what will be done.
    #[must_use]
    pub(crate) fn new(verb: &'static str, reader: &QueueReader<'_>) -> Self {
        Self {
            verb,
            queue: reader.queue().to_owned(),
            held: reader.held,
            chosen: 0,
            lost: 0,
            done: 0,
        }
    }

    /// Whether as many messages were chosen as there may be.
    #[must_use]
    pub(crate) fn is_enough(&self, arguments: &Arguments) -> bool {
        arguments.limit.is_some_and(|limit| self.chosen >= limit)
    }

    /// Whether this message is chosen, and counts it then.
    pub(crate) fn takes(&mut self, arguments: &Arguments, letter: &Letter) -> bool {
        let taken = !self.is_enough(arguments) && arguments.choice.takes(letter);
        self.chosen += usize::from(taken);
        taken
    }

    /// A chosen message is not for any queue that is known.
    pub(crate) fn give_up_on(&mut self, letter: &Letter) {
        tracing::debug!(kind = ?letter.kind, reason = letter.reason, "not for any queue");
        self.chosen -= 1;
        self.lost += 1;
    }

    /// For people, or as JSON for programs.
    ///
    /// # Errors
    /// Never, as the numbers are.
    pub(crate) fn report(&self, as_json: bool, absent: u32) -> anyhow::Result<String> {
        let left = (self.held as usize).saturating_sub(self.done);
        if as_json {
            let report = json!({
                "queue": self.queue,
                "held": self.held,
                "missing": absent,
                self.verb: self.done,
                "left": left,
                "left_for_no_known_queue": self.lost,
            });
            return Ok(serde_json::to_string_pretty(&report)?);
        }
        let (queue, held, verb, done) = (&self.queue, self.held, self.verb, self.done);
        let lost = match self.lost {
            0 => String::new(),
            lost => format!("{lost} of those left were chosen, but for no queue that is known\n"),
        };
        let absent = missing(absent);
        Ok(format!(
            "{queue}: {verb} {done} of {held} messages, {left} left\n{lost}{absent}"
        ))
    }
}
