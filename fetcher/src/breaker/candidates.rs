//! Which ids the client service is probed with.

use std::collections::VecDeque;

use shared::messages::ObjectId;

/// How many ids are remembered that were answered last.
const ANSWERED: usize = 8;

/// How many ids are remembered that are waiting, or were when their messages were given back.
const WAITING: usize = 32;

/// How many ids are tried of which nothing is known; any valid answer counts, "gone" too.
const STRANGERS: i64 = 8;

/// Ids to probe with. They take turns: any id may have become one that always fails, and a breaker
/// that asks only for such ids would stay open for ever.
#[derive(Debug, Default)]
pub struct Candidates {
    answered: VecDeque<ObjectId>,
    waiting: VecDeque<ObjectId>,
    stranger: i64,
    turn: usize,
}

impl Candidates {
    /// `id` was answered: the best candidate there is.
    pub fn answered(&mut self, id: ObjectId) {
        self.turn = 0;
        if !self.answered.contains(&id) {
            self.waiting.retain(|waiting| *waiting != id);
            remember(&mut self.answered, id, ANSWERED);
        }
    }

    /// `id` was asked for and not answered.
    pub fn failed(&mut self, id: ObjectId) {
        self.answered.retain(|answered| *answered != id);
        self.waits(id);
    }

    /// `id` is to be asked for.
    pub fn waits(&mut self, id: ObjectId) {
        if !self.waiting.contains(&id) && !self.answered.contains(&id) {
            remember(&mut self.waiting, id, WAITING);
        }
    }

    /// The next id to probe with.
    pub fn pick(&mut self) -> ObjectId {
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

fn remember(ids: &mut VecDeque<ObjectId>, id: ObjectId, most: usize) {
    if ids.len() == most {
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
        let mut candidates = Candidates::default();
        candidates.waits(ObjectId(100));
        candidates.answered(ObjectId(200));
        assert_eq!(candidates.pick(), ObjectId(200));
        candidates.answered(ObjectId(300));
        candidates.failed(ObjectId(300));
        assert_eq!(candidates.pick(), ObjectId(200));
    }

    #[test]
    fn without_an_answer_an_unknown_id_comes_before_one_that_failed() {
        let mut candidates = Candidates::default();
        candidates.waits(ObjectId(100));
        assert_eq!(candidates.pick(), ObjectId(0));
    }

    #[test]
    fn every_id_has_its_turn() {
        let mut candidates = Candidates::default();
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

    #[test]
    fn few_ids_are_remembered() {
        let mut candidates = Candidates::default();
        for id in 0..1_000 {
            candidates.failed(ObjectId(id));
            candidates.answered(ObjectId(-id - 1));
        }
        assert_eq!(candidates.answered.len(), ANSWERED);
        assert_eq!(candidates.waiting.len(), WAITING);
    }
}
