//! Holding: the limit stays, grows by quarters, or is doubted, by the latency of each round.

use super::round::Measured;
use super::{CALM, LONG, Level, Phase, REST};

/// The number of raises in a row after which the limit grows by a factor again.
const RAISES: u32 = 3;

/// The number of rounds after which a latency that is neither short nor long is tried to be made shorter.
const PATIENCE: u32 = 32;

impl Level {
    /// Tries less if the latency is long, and raises the limit by a quarter, up to `top`, if it is short.
    pub(super) fn hold(
        &mut self,
        measured: Measured,
        in_flight: usize,
        top: usize,
        raises: u32,
        rounds: u32,
    ) {
        let usual = self.learn(measured.latency);
        let times = measured.latency / usual;
        let is_used = self.is_used(in_flight);
        if rounds >= REST && times > long_after(rounds) && is_used {
            return self.try_less(measured, usual);
        }
        let has_room = times < CALM && self.limit < top && is_used;
        let raises = match raises {
            _ if !has_room || rounds < REST => 0,
            RAISES => {
                self.phase = Phase::Growing;
                return;
            }
            raises => {
                self.change_to(top.min(self.limit * 5 / 4));
                raises + 1
            }
        };
        let rounds = rounds + 1;
        self.phase = Phase::Holding { raises, rounds };
    }
}

/// The multiple of the usual latency that calls for a trial, after this number of rounds without one.
fn long_after(rounds: u32) -> f64 {
    if rounds < PATIENCE { LONG } else { CALM }
}
