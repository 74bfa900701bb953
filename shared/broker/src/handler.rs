//! The step that is done for each message, and what becomes of the message.

use std::future::Future;

use messages::Message;
use metric_definitions::Label;

use crate::headers::Headers;

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its work is done and safe.
    Done,
    /// It cannot be finished here; another consumer may finish it.
    Requeue,
    /// It will never be finished; an operator finds it in `objects.dead` with this reason.
    Dead(String),
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &["done", "requeued", "dead"];

    fn value(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Requeue => "requeued",
            Self::Dead(_) => "dead",
        }
    }
}

/// How busy a handler is, in a unit that the handler chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How much it has begun and not finished.
    pub at_hand: usize,
    /// How much keeps it busy. Twice as much is too much, because other consumers could do it.
    pub wanted: usize,
}

/// The step that is done for each message.
pub trait Handler: Send + Sync + 'static {
    /// The message of this queue.
    type Message: Message + Send + 'static;

    /// Does the work of one message. When it returns [`Outcome::Done`], a kill -9 loses nothing.
    /// Spans of the work belong to the traces that `headers` name.
    fn handle(
        &self,
        message: Self::Message,
        headers: Headers,
    ) -> impl Future<Output = Outcome> + Send;

    /// How busy it is now; none where messages are alike and their number says it.
    fn load(&self) -> Option<Load> {
        None
    }
}
