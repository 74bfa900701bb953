//! Asking the client service whether it works, when that is in doubt and while it is down.

use std::sync::Arc;
use std::time::Duration;

use shared::shutdown::Shutdown;
use shared::trace::Traces;
use tokio::time::{Instant, timeout};

use crate::breaker::Breaker;
use crate::client::ClientService;
use crate::config::Config;

/// Sends probes, one at a time, and gives up waiting in a long outage.
pub struct Prober {
    breaker: Arc<Breaker>,
    client: ClientService,
    interval: Duration,
    patience: Duration,
}

impl Prober {
    /// Probes for `breaker`.
    #[must_use]
    pub fn new(breaker: Arc<Breaker>, client: ClientService, config: &Config) -> Self {
        Self {
            breaker,
            client,
            interval: config.probe_interval,
            patience: config.outage_patience,
        }
    }

    /// Works until the shut-down begins; then what still waits for the client service is given back.
    pub async fn run(self, shutdown: &Shutdown) {
        tokio::select! {
            () = self.probe() => {}
            () = self.watch() => {}
            () = shutdown.begun() => self.breaker.withhold(true),
        }
    }

    async fn probe(&self) {
        let mut earliest = Instant::now();
        loop {
            let (id, started) = self.breaker.probe_wanted(earliest).await;
            let begun = Instant::now();
            let answer = self.client.look_up(id, &Traces::default()).await;
            metrics::counter!("fetch_probes_total", "outcome" => answer.kind()).increment(1);
            let asked_for = self.breaker.probed(id, started, &answer);
            let asked_for = Instant::now() + asked_for.unwrap_or_default();
            earliest = asked_for.max(begun + self.pause());
        }
    }

    /// While there is doubt, verdicts are waited for; a few ids that fail again and again must not
    /// have the client service probed without a pause all the same.
    fn pause(&self) -> Duration {
        if self.breaker.is_open() {
            self.interval
        } else {
            self.interval / 10
        }
    }

    /// Messages are not held for the whole of a long outage: the broker closes channels whose messages
    /// stay unacked for half an hour. And they are not returned more than once in an outage: each
    /// return counts towards their queue's delivery limit.
    async fn watch(&self) {
        loop {
            self.breaker.until_open(true).await;
            let closed = self.breaker.until_open(false);
            if timeout(self.patience, closed).await.is_err() {
                tracing::info!(
                    patience = ?self.patience,
                    "client service is still down, messages go back to the queue"
                );
                self.breaker.withhold(true);
                self.breaker.until_open(false).await;
                self.breaker.withhold(false);
            }
        }
    }
}
