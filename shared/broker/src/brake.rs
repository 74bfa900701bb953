//! Sparing a way on which something failed lately.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long no try follows one that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// On after a failure, until a try succeeds. While it is on it lets one try a second pass, so that not all
/// are held up by something that hangs.
#[derive(Debug, Default)]
pub struct Brake(Mutex<Option<Instant>>);

impl Brake {
    /// Whether a try may be made.
    #[must_use]
    pub fn lets_pass(&self) -> bool {
        let mut failed = self.failed();
        match *failed {
            Some(at) if at.elapsed() < PAUSE => false,
            Some(_) => {
                *failed = Some(Instant::now());
                true
            }
            None => true,
        }
    }

    /// Notes how a try ended.
    pub fn note(&self, succeeded: bool) {
        *self.failed() = (!succeeded).then(Instant::now);
    }

    fn failed(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
