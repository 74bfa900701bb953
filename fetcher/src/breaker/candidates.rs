//! Which ids the client service is probed with, and what their answers mean together.

use std::collections::VecDeque;
use std::time::Duration;

use messages::ObjectId;
use tokio::time::Instant;

/// How many of the ids that were answered last are remembered.
const ANSWERED: usize = 8;

/// How many ids that wait, or that waited when their messages were given back, are remembered.
const WAITING: usize = 32;

/// How many ids of which nothing is known are tried.
const STRANGERS: i64 = 8;

/// How many different ids have to fail while none is answered before "gone" and "refused" mean an outage.
/// Fewer may be gone, or refused, each by itself.
const MANY: usize = 8;

/// The number of failures in a row that are a gap in a stream of answers. If every second object is gone, such a
/// row comes once in a million look-ups.
const GAP: usize = 20;

/// The time within which they have to fail.
const RECENT: Duration = Duration::from_mins(1);

/// What "gone" or "refused" means as the answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Everything is answered so.
    Down,
    /// Probes with ids that were answered before will tell.
    NotKnownYet,
    /// No id was answered before, and nothing else shows an outage.
    Unclear,
}

/// Ids to probe with. They take turns: any id may have become one that always fails, and a breaker
/// that asks only for such ids would stay open for ever.
#[derive(Debug, Default)]
pub(super) struct CandidatePool {
    answered: VecDeque<ObjectId>,
    waiting: VecDeque<ObjectId>,
    stranger: i64,
    turn: usize,
    /// Ids that failed after the latest answer, and when.
    failed: VecDeque<(ObjectId, Instant)>,
    /// How many ids that had been answered before failed after the latest answer.
    refuted: usize,
}

impl CandidatePool {
    /// `id` was answered: the best candidate there is. Returns whether that ends a gap.
    pub(super) fn answered(&mut self, id: ObjectId) -> bool {
        let is_gap = self.refuted > 0 || self.failed.len() == GAP;
        self.refuted = 0;
        self.failed.clear();
        self.turn = 0;
        if !self.answered.contains(&id) {
            self.waiting.retain(|waiting| *waiting != id);
            remember(&mut self.answered, id, ANSWERED);
        }
        is_gap
    }

    /// `id` was looked up and not answered.
    pub(super) fn failed(&mut self, id: ObjectId) {
        self.refuted(id);
        self.waits(id);
        self.failed
            .retain(|(failed, at)| *failed != id && at.elapsed() < RECENT);
        remember(&mut self.failed, (id, Instant::now()), GAP);
    }

    /// The client service was probed with `id`, which was not answered.
    pub(super) fn refuted(&mut self, id: ObjectId) {
        let before = self.answered.len();
        self.answered.retain(|answered| *answered != id);
        if self.answered.len() < before {
            self.refuted += 1;
            self.waits(id);
        }
    }

    /// What it means that a probe was answered with "gone" or "refused". One id alone can be gone, two
    /// that were known and are gone together cannot.
    pub(super) fn meaning(&mut self) -> Meaning {
        if self.failed.len() >= MANY {
            Meaning::Down
        } else if !self.answered.is_empty() {
            Meaning::NotKnownYet
        } else if self.refuted > 1 {
            Meaning::Down
        } else {
            // An id that waits would only fail again.
            self.turn = 0;
            Meaning::Unclear
        }
    }

    /// `id` is to be asked for.
    pub(super) fn waits(&mut self, id: ObjectId) {
        if !self.waiting.contains(&id) && !self.answered.contains(&id) {
            remember(&mut self.waiting, id, WAITING);
        }
    }

    /// The next id to probe with.
    pub(super) fn pick(&mut self) -> ObjectId {
        self.turn += 1;
        match self.turn % 3 {
            1 => take_turn(&mut self.answered),
            0 => take_turn(&mut self.waiting),
            _ => None,
        }
        .unwrap_or_else(|| self.next_stranger())
    }

    fn next_stranger(&mut self) -> ObjectId {
        let stranger = ObjectId(self.stranger);
        self.stranger = (self.stranger + 1) % STRANGERS;
        stranger
    }
}

fn remember<T>(ids: &mut VecDeque<T>, id: T, max: usize) {
    if ids.len() == max {
        ids.pop_front();
    }
    ids.push_back(id);
}

/// The newest comes first.
fn take_turn(ids: &mut VecDeque<ObjectId>) -> Option<ObjectId> {
    let id = ids.pop_back()?;
    ids.push_front(id);
    Some(id)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn an_id_that_was_answered_comes_first_until_it_fails() {
        let mut candidates = CandidatePool::default();
        candidates.waits(ObjectId(100));
        candidates.answered(ObjectId(200));
        assert_eq!(candidates.pick(), ObjectId(200));
        candidates.answered(ObjectId(300));
        candidates.failed(ObjectId(300));
        assert_eq!(candidates.pick(), ObjectId(200));
    }

    #[test]
    fn without_an_answer_an_unknown_id_comes_before_one_that_failed() {
        let mut candidates = CandidatePool::default();
        candidates.waits(ObjectId(100));
        assert_eq!(candidates.pick(), ObjectId(0));
    }

    #[test]
    fn every_id_has_its_turn() {
        let mut candidates = CandidatePool::default();
        for id in 100..120 {
            candidates.waits(ObjectId(id));
        }
        for id in 200..205 {
            candidates.answered(ObjectId(id));
        }
        let turns: BTreeSet<i64> = (0..60).map(|_| candidates.pick().0).collect();
        assert!((100..120).chain(200..205).all(|id| turns.contains(&id)));
        assert!((0..STRANGERS).all(|id| turns.contains(&id)));
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_fail_within_a_minute_mean_an_outage_and_few_do_not() {
        let mut candidates = CandidatePool::default();
        for id in 0..20 {
            candidates.failed(ObjectId(id % 7));
        }
        assert_eq!(candidates.meaning(), Meaning::Unclear);
        tokio::time::advance(RECENT).await;
        candidates.failed(ObjectId(7));
        assert_eq!(candidates.meaning(), Meaning::Unclear);
        (0..7).for_each(|id| candidates.failed(ObjectId(id)));
        assert_eq!(candidates.meaning(), Meaning::Down);
        assert!(!candidates.answered(ObjectId(100)), "too few for a gap");
        assert_eq!(candidates.meaning(), Meaning::NotKnownYet);
    }

    #[test]
    fn ids_that_were_answered_have_the_last_word() {
        let mut candidates = CandidatePool::default();
        for id in 0..3 {
            candidates.answered(ObjectId(id));
        }
        candidates.failed(ObjectId(50));
        assert_eq!(candidates.meaning(), Meaning::NotKnownYet);
        candidates.refuted(ObjectId(0));
        candidates.refuted(ObjectId(1));
        assert_eq!(candidates.meaning(), Meaning::NotKnownYet);
        candidates.refuted(ObjectId(2));
        assert_eq!(candidates.meaning(), Meaning::Down);
        assert!(candidates.answered(ObjectId(0)), "a gap");
        candidates.failed(ObjectId(0));
        assert_eq!(candidates.meaning(), Meaning::Unclear, "it is alone");
    }

    #[test]
    fn few_ids_are_remembered() {
        let mut candidates = CandidatePool::default();
        for id in 0..1_000 {
            candidates.failed(ObjectId(id));
            candidates.answered(ObjectId(-id - 1));
        }
        assert_eq!(candidates.answered.len(), ANSWERED);
        assert_eq!(candidates.waiting.len(), WAITING);
        (0..1_000).for_each(|id| candidates.failed(ObjectId(id)));
        assert_eq!(candidates.failed.len(), GAP);
    }
}
