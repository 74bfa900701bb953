//! Waiting to a fraction of a millisecond. The runtime's own timers end at the millisecond after the one they are
//! set for, so that rows would be deleted a millisecond late.

use std::time::{Duration, Instant};

/// The last part of a wait, which is left to the precise timer: its end takes another thread.
const LAST: Duration = Duration::from_millis(3);

/// Waits, on an idle machine for no more than 0.1 ms too long.
pub(crate) async fn sleep(wait: Duration) {
    let end = Instant::now().checked_add(wait);
    tokio::time::sleep(wait.saturating_sub(LAST)).await;
    if let Some(end) = end {
        async_io::Timer::at(end).await;
    }
}
