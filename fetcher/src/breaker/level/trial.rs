//! Trials: whether fewer look-ups in flight bring as many answers.

use super::round::Measured;
use super::{AFTER_TRIAL, CALM, FLOOR, LONG, Level, Phase, SHORT};

/// A cut that leaves this part of the rate cost nothing.
const SAME_RATE: f64 = 0.93;

/// A cut that leaves this part of the latency did not shorten it.
const SAME_LATENCY: f64 = 0.95;

/// A lower limit is tried.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Trial {
    /// The limit that it is compared with, and what was measured there.
    pub(super) from: usize,
    rate: f64,
    latency: f64,
    /// An earlier cut cost nothing, so there is a queue.
    is_proven: bool,
}

impl Level {
    /// Begins a trial with what would leave no queue, if there is one.
    pub(super) fn try_less(&mut self, measured: Measured, usual: f64) {
        let trial = Trial {
            // In growth more are allowed by now than were in flight on average.
            from: self.limit.min(scaled(1, measured.rate * measured.latency)),
            rate: measured.rate,
            latency: measured.latency,
            is_proven: false,
        };
        let share = CALM * usual / measured.latency;
        self.cut(trial, share.clamp(0.25, 0.75));
    }

    /// A latency that is not much longer may be chance, or due to what others do during the trial. A mistake here lets
    /// the queue of several replicas grow.
    fn get_used_to(&mut self, latency: f64) {
        if let Some(usual) = &mut self.usual
            && latency > LONG * *usual
        {
            *usual = usual.max(latency.min(self.max_usual));
        }
    }

    /// Draws the conclusion from a trial.
    pub(super) fn conclude(&mut self, trial: Trial, measured: Measured) {
        if measured.rate >= SAME_RATE * trial.rate {
            if measured.latency <= CALM * SHORT {
                self.phase = AFTER_TRIAL;
                return;
            }
            let trial = Trial {
                from: self.limit,
                rate: trial.rate.max(measured.rate),
                is_proven: true,
                ..trial
            };
            self.cut(trial, 0.75);
        } else if trial.is_proven {
            // The queue is gone.
            self.phase = AFTER_TRIAL;
            self.change_to(trial.from);
        } else if self.limit > trial.from / 2 {
            // The cut cost answers, and was too small to show in the latency.
            self.cut(trial, 0.25);
        } else if measured.latency > SAME_LATENCY * trial.latency {
            self.get_used_to(measured.latency);
            self.phase = AFTER_TRIAL;
            self.change_to(trial.from);
        } else {
            // There is a queue, but not only of look-ups of this replica: each gives way a little.
            self.phase = AFTER_TRIAL;
            self.change_to(queueless(trial, measured).clamp(trial.from / 2, trial.from * 3 / 4));
        }
    }

    fn cut(&mut self, trial: Trial, share: f64) {
        let to = FLOOR.max(scaled(trial.from, share));
        if to < self.limit {
            self.phase = Phase::Trial(trial);
            self.change_to(to);
        } else {
            self.phase = AFTER_TRIAL;
        }
    }
}

/// The number in flight that the rate needs at the latency without a queue, and some more.
fn queueless(trial: Trial, measured: Measured) -> usize {
    scaled(trial.from, CALM * measured.latency / trial.latency)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits are far below 2^52, and shares positive"
)]
fn scaled(limit: usize, share: f64) -> usize {
    (limit as f64 * share) as usize
}
