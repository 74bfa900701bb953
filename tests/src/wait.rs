//! Waiting for what is to happen, with a bound.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long anything may take before a test gives it up. Far more than it takes on a busy machine.
pub const BOUND: Duration = Duration::from_mins(1);

/// Asks again and again until `ask` has an answer.
///
/// # Panics
/// There is none within [`BOUND`].
pub async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    const PAUSE: Duration = Duration::from_millis(10);
    let deadline = Instant::now() + BOUND;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {BOUND:?} for {what}");
        sleep(PAUSE).await;
    }
}
