//! Whether look-ups take longer since there are more of them, known long before they have all ended.

use tokio::time::Instant;

use super::cohorts::{Cohorts, KEPT};

/// The variance from which on a comparison says something. Three times as many younger look-ups have it when
/// about a dozen have ended.
const ENOUGH: f64 = 2.0;

/// How many standard deviations less than expected are taken for chance.
const CHANCE: f64 = 1.5;

/// How many are certainly no chance.
const NO_CHANCE: f64 = 3.0;

/// How many spans may lie between two looks. After more, it is not known when look-ups ended.
const GAP: usize = 10;

/// Compares the look-ups that began after a change with those before it.
///
/// It is a log-rank test: of the look-ups that have reached an age, as many of the younger ones as of the older ones
/// should end at that age. So it need not wait for those that take long, and does not take those that have ended already
/// for all there are.
#[derive(Debug)]
pub(super) struct Comparison {
    /// The first span of the younger look-ups.
    changed: usize,
    older: Vec<Survival>,
    younger: Vec<Survival>,
    /// How many of each cohort have been seen to end.
    seen: Vec<usize>,
    /// The span of the last look.
    looked: usize,
}

/// What became of look-ups at an age.
#[derive(Clone, Copy, Debug, Default)]
struct Survival {
    /// How many reached it.
    reached: usize,
    /// How many of these ended at it.
    ended: usize,
}

/// What a comparison shows so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compared {
    /// How many of the older look-ups were seen to end.
    pub(super) older: usize,
    /// How many more of the younger ones ended than if they took as long as the older ones.
    more: f64,
    /// The variance of that number, if only chance made a difference.
    variance: f64,
}

impl Comparison {
    /// All look-ups are older ones for now.
    pub(super) fn new(cohorts: &Cohorts, now: Instant) -> Self {
        Self {
            changed: usize::MAX,
            older: vec![Survival::default(); KEPT],
            younger: vec![Survival::default(); KEPT],
            seen: cohorts.snapshots().map(|cohort| cohort.ended).collect(),
            looked: cohorts.span(now),
        }
    }

    /// There is a change: what begins in later spans is younger, and everything else is older.
    pub(super) fn change(&mut self) {
        for (older, younger) in self.older.iter_mut().zip(&mut self.younger) {
            older.reached += younger.reached;
            older.ended += younger.ended;
            *younger = Survival::default();
        }
        self.changed = self.looked + 1;
    }

    /// Looks at what has ended since the last look. To be called in each span.
    pub(super) fn look(&mut self, cohorts: &Cohorts, now: Instant) -> Compared {
        let current = cohorts.span(now);
        let is_continued = current - self.looked <= GAP;
        for (cohort, seen) in cohorts.snapshots().zip(&mut self.seen) {
            if cohort.span > self.looked {
                *seen = 0;
            }
            let age = current.saturating_sub(cohort.span);
            if is_continued && cohort.span > 0 && age < KEPT {
                let reached = cohort.begun.saturating_sub(*seen);
                let ended = cohort.ended.saturating_sub(*seen);
                if cohort.span < self.changed {
                    self.older[age].reached += reached;
                    self.older[age].ended += ended;
                } else {
                    let comparable = comparable_age(age);
                    if age == 0 || comparable > comparable_age(age - 1) {
                        self.younger[comparable].reached += reached;
                    }
                    self.younger[comparable].ended += ended;
                }
            }
            *seen = cohort.ended;
        }
        self.looked = current;
        self.compared()
    }

    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    fn compared(&self) -> Compared {
        let mut compared = Compared::default();
        for (older, younger) in self.older.iter().zip(&self.younger) {
            compared.older += older.ended;
            let reached = older.reached + younger.reached;
            if reached > 0 {
                let ended = (older.ended + younger.ended) as f64;
                let share = younger.reached as f64 / reached as f64;
                compared.more += younger.ended as f64 - ended * share;
                compared.variance += ended * share * (1.0 - share);
            }
        }
        compared
    }
}

impl Compared {
    /// Whether the younger look-ups seem to take no longer.
    pub(super) fn is_alike(&self) -> bool {
        self.variance >= ENOUGH && self.more > -CHANCE * self.variance.sqrt()
    }

    /// Whether the younger look-ups certainly take longer.
    pub(super) fn is_longer(&self) -> bool {
        self.variance >= ENOUGH && self.more < -NO_CHANCE * self.variance.sqrt()
    }
}

/// The age at which an older look-up is as far as a younger one at `age`, if the younger one may take an eighth and a span
/// longer.
fn comparable_age(age: usize) -> usize {
    (age - age / 8).saturating_sub(1)
}
