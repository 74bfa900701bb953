//! What the command is asked for.

use clap::{Args, ValueEnum};
use messages::ObjectId;

use crate::letter::{Kind, Letter, Source};

/// What to do, and with which messages.
#[derive(Args, Clone, Debug)]
pub struct Arguments {
    /// What to do
    #[arg(value_enum)]
    pub(crate) action: Action,
    /// Which messages.
    #[command(flatten)]
    pub(crate) choice: Choice,
    /// List: how many messages to show one by one [default: 20]; replay, purge: maximum number of
    /// messages to take, the oldest first [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<usize>,
    /// Purge: confirm that the messages are deleted for good
    #[arg(long, required_if_eq("action", "purge"))]
    pub yes: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Action {
    /// Show reasons and counts, and the oldest messages one by one; changes nothing
    List,
    /// Send the messages to the queue they are for, as at their first attempt
    Replay,
    /// Delete the messages
    Purge,
}

/// Which messages: those that meet all that is given.
#[derive(Args, Clone, Debug)]
pub(crate) struct Choice {
    /// Queue that the messages are in
    #[arg(long, value_enum, default_value_t = Source::Dead)]
    pub(crate) queue: Source,
    /// Only messages whose reason contains TEXT
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only messages of this kind
    #[arg(long, value_enum)]
    pub(crate) kind: Option<Kind>,
    /// Only messages that contain this object id; can be given several times
    #[arg(long = "id", value_name = "ID", allow_negative_numbers = true)]
    pub(crate) ids: Vec<i64>,
}

impl Choice {
    /// Whether `letter` is meant.
    pub(crate) fn takes(&self, letter: &Letter) -> bool {
        let has = |id: &i64| letter.object_ids.contains(&ObjectId(*id));
        self.reason
            .as_ref()
            .is_none_or(|text| letter.reason.contains(text))
            && self.kind.is_none_or(|kind| letter.kind == kind)
            && (self.ids.is_empty() || self.ids.iter().any(has))
    }
}
