//! Random choices, the same ones for the same seed.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::Config;

/// What happens to one look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fate {
    /// How long the answer takes.
    pub latency: Duration,
    /// Whether it is an error.
    pub error: bool,
}

/// A source of random choices. Clones share it.
#[derive(Clone, Debug)]
pub struct Chance(Arc<Mutex<StdRng>>);

impl Chance {
    /// Seed 0 stands for any.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let rng = if seed == 0 {
            StdRng::from_os_rng()
        } else {
            StdRng::seed_from_u64(seed)
        };
        Self(Arc::new(Mutex::new(rng)))
    }

    /// Draws the fate of a look-up.
    #[must_use]
    pub fn fate(&self, config: &Config) -> Fate {
        let mut rng = self.0.lock();
        let slow = rng.random_bool(config.slow_ratio.get());
        let error = rng.random_bool(config.error_ratio.get());
        let usual = rng.random_range(config.latency());
        Fate {
            latency: if slow { config.slow_latency } else { usual },
            error,
        }
    }

    /// Draws the ids of a callback, duplicates included.
    #[must_use]
    pub fn ids(&self, config: &Config) -> Vec<u16> {
        let mut rng = self.0.lock();
        let count = rng.random_range(0..=config.callback_ids);
        (0..count)
            .map(|_| rng.random_range(0..config.object_count.get()))
            .collect()
    }
}
