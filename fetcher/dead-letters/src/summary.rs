//! Messages counted by what they died of.

use std::collections::BTreeMap;

use serde::Serialize;
use time::OffsetDateTime;

use crate::letter::{Kind, Letter};

/// How many groups are told apart; messages of further ones are counted together, so that a queue
/// full of different reasons can be counted in little memory, and read.
const GROUPS: usize = 50;

/// What the messages of a group have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) struct Group {
    /// Why they are here.
    pub(crate) reason: String,
    /// Their type.
    pub(crate) kind: Kind,
    /// Which try was their last.
    pub(crate) attempt: u32,
}

/// How many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Tally {
    /// Messages.
    pub(crate) messages: u64,
    /// Ids in them.
    pub(crate) ids: u64,
    /// When the first of them came, if known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) oldest: Option<OffsetDateTime>,
    /// When the last of them came, if known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub(crate) newest: Option<OffsetDateTime>,
}

impl Tally {
    fn add(&mut self, letter: &Letter) {
        self.messages += 1;
        self.ids += letter.object_ids.len() as u64;
        self.oldest = self.oldest.into_iter().chain(letter.since).min();
        self.newest = self.newest.into_iter().chain(letter.since).max();
    }
}

/// All messages, counted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Summary {
    /// By group.
    pub(crate) groups: BTreeMap<Group, Tally>,
    /// Those of groups that were one too many.
    pub(crate) others: Tally,
    /// All of them.
    pub(crate) total: Tally,
}

impl Summary {
    /// Counts one more.
    pub(crate) fn add(&mut self, letter: &Letter) {
        let group = Group {
            reason: letter.reason.clone(),
            kind: letter.kind,
            attempt: letter.attempt.0.get(),
        };
        let is_full = self.groups.len() >= GROUPS;
        let tally = if is_full && !self.groups.contains_key(&group) {
            &mut self.others
        } else {
            self.groups.entry(group).or_default()
        };
        tally.add(letter);
        self.total.add(letter);
    }

    /// The groups, the largest first.
    #[must_use]
    pub(crate) fn largest_first(&self) -> Vec<(&Group, &Tally)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, tally)| std::cmp::Reverse(tally.messages));
        groups
    }
}
