//! A brake on a way that failed lately.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The pause after a try that failed.
const PAUSE: Duration = Duration::from_secs(1);

/// On after a failure, until a try succeeds. While it is on, it lets one try a second pass, so that a way that
/// hangs does not hold up all callers.
#[derive(Debug, Default)]
pub struct Brake(Mutex<Option<Instant>>);

impl Brake {
    /// Whether a try may be made.
    #[must_use]
    pub fn lets_pass(&self) -> bool {
        let mut failed = self.0.lock();
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
        *self.0.lock() = (!succeeded).then(Instant::now);
    }
}
