//! Growth: threefold at a time, as long as look-ups take no longer for it.

use tokio::time::Instant;

use super::comparison::Comparison;
use super::{Cohorts, HOLDING, Level, Phase};

/// The factor by which the limit grows. While a limit that was too much is remembered, it grows by half.
const FACTOR: usize = 3;

/// The number of answers from which on there is something to compare with; more where the limit is high.
const FIRST_ANSWERS: usize = 3;

/// How far growth has come.
#[derive(Debug)]
pub(super) struct Growth {
    /// The look-ups that began since the limit was raised last, and those before.
    comparison: Comparison,
    /// The limit before it was raised last.
    raised_from: Option<usize>,
}

impl Level {
    /// Raises the limit if the look-ups that began since it was raised last take no longer, and goes back if they do.
    /// Returns whether it went back.
    pub(super) fn grow(&mut self, now: Instant, in_flight: usize, cohorts: &Cohorts) -> bool {
        let (limit, top) = (self.limit, self.top(now));
        let next = match self.remembered(now) {
            Some(_) => limit + limit / 2,
            None => FACTOR * limit,
        };
        let is_used = self.is_used(in_flight);
        let growth = self.growth.get_or_insert_with(|| Growth {
            comparison: Comparison::new(cohorts, now),
            raised_from: None,
        });
        let compared = growth.comparison.look(cohorts, now);
        let has_room = match growth.raised_from {
            None => compared.older >= FIRST_ANSWERS.max(limit / 32),
            Some(before) if compared.is_longer() => {
                self.end_growth(Phase::Doubting);
                self.change_to(before.min(limit));
                return true;
            }
            Some(_) => compared.is_alike(),
        };
        if !has_room || !is_used {
            return false;
        }
        if limit < top {
            growth.raised_from = Some(limit);
            growth.comparison.change();
            self.limit = next.min(top);
        } else {
            self.end_growth(HOLDING);
        }
        false
    }

    fn end_growth(&mut self, phase: Phase) {
        self.phase = phase;
        self.growth = None;
        self.forget_round();
    }
}
