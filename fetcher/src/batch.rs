//! Gathering single requests into batches.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

/// How large a batch may grow, and how long its first request waits for others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BatchLimits {
    pub(crate) requests: usize,
    pub(crate) linger: Duration,
}

/// Waits for a request and gathers those that follow it, until the batch is full or `linger` is
/// over. `None` when all senders are gone.
pub(crate) async fn next_batch<T>(
    requests: &mut mpsc::Receiver<T>,
    limits: BatchLimits,
) -> Option<Vec<T>> {
    let first = requests.recv().await?;
    let deadline = Instant::now() + limits.linger;
    let mut batch = vec![first];
    while batch.len() < limits.requests {
        let Ok(Some(request)) = timeout_at(deadline, requests.recv()).await else {
            break;
        };
        batch.push(request);
    }
    Some(batch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_batch_ends_when_it_is_full_or_its_first_request_has_waited_long_enough() {
        let limits = BatchLimits {
            requests: 2,
            linger: Duration::from_millis(5),
        };
        let (sender, mut requests) = mpsc::channel(8);
        for n in 1..=3 {
            assert!(sender.send(n).await.is_ok());
        }
        assert_eq!(next_batch(&mut requests, limits).await, Some(vec![1, 2]));
        let before = Instant::now();
        assert_eq!(next_batch(&mut requests, limits).await, Some(vec![3]));
        assert_eq!(before.elapsed(), limits.linger);
        drop(sender);
        assert_eq!(next_batch(&mut requests, limits).await, None);
    }
}
