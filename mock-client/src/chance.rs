//! Random choices, which a seed repeats.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::Config;

/// What happens to a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fate {
    pub(crate) latency: Duration,
    pub(crate) error: bool,
}

/// A source of random choices. Clones share its state.
#[derive(Clone, Debug)]
pub(crate) struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// Seed 0 stands for a random one.
    pub(crate) fn new(seed: u64) -> Self {
        let rng = if seed == 0 {
            StdRng::from_os_rng()
        } else {
            StdRng::seed_from_u64(seed)
        };
        Self(Arc::new(Mutex::new(rng)))
    }

    pub(crate) fn fate(&self, config: &Config) -> Fate {
        let mut rng = self.0.lock();
        let slow = rng.random_bool(config.slow_ratio.get());
        let error = rng.random_bool(config.error_ratio.get());
        let usual = rng.random_range(config.latency());
        Fate {
            latency: if slow { config.slow_latency } else { usual },
            error,
        }
    }

    /// Draws a number that no other callback has.
    pub(crate) fn callback_id(&self) -> u64 {
        self.0.lock().random()
    }

    /// Draws the ids of a callback, duplicates included.
    pub(crate) fn ids(&self, config: &Config) -> Vec<u16> {
        let mut rng = self.0.lock();
        let count = rng.random_range(0..=config.callback_ids);
        (0..count)
            .map(|_| rng.random_range(0..config.object_count.get()))
            .collect()
    }
}
