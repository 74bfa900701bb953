//! Asking the client service whether it works, when that is in doubt and while it is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifecycle::Shutdown;
use tokio::time::{Instant, sleep, timeout};
use trace::TraceSet;

use crate::answer::Answer;
use crate::breaker::Breaker;
use crate::breaker::limit::COOLING;
use crate::client::ClientService;
use crate::config::Config;
use crate::metrics::PROBES;

/// Maximum time for which no message is taken although other ids might be answered.
const MAX_PAUSE: Duration = Duration::from_mins(10);

/// Sends probes, one at a time, and returns messages in a long outage.
pub(crate) struct Prober {
    breaker: Arc<Breaker>,
    client: ClientService,
    interval: Duration,
    patience: Duration,
    /// Whether the answer to the last probe may be about the object.
    is_unsure: AtomicBool,
}

impl Prober {
    pub(crate) fn new(breaker: Arc<Breaker>, client: ClientService, config: &Config) -> Self {
        Self {
            breaker,
            client,
            interval: config.probe_interval,
            patience: config.outage_patience,
            is_unsure: AtomicBool::new(false),
        }
    }

    /// Works until the shut-down begins, and finds the limit meanwhile. Then what still waits for the client service goes back to the queue.
    pub(crate) async fn run(self, shutdown: &Shutdown) {
        tokio::select! {
            () = self.send_probes() => {}
            () = self.bound_outages() => {}
            () = self.cool() => {}
            () = self.breaker.find_level() => {}
            () = shutdown.begun() => self.breaker.set_rejecting(true),
        }
    }

    async fn send_probes(&self) {
        let mut earliest = Instant::now();
        loop {
            let (id, started) = self.breaker.next_probe(earliest).await;
            let begun = Instant::now();
            let answer = self.client.look_up(id, &TraceSet::default()).await;
            PROBES.of(&answer).increment(1);
            let is_unsure = matches!(
                &answer,
                Answer::Failed(failure) if failure.reason.may_be_about_the_object()
            );
            self.is_unsure.store(is_unsure, Ordering::Relaxed);
            let delay = self.breaker.record_probe(id, started, &answer);
            let delayed = Instant::now() + delay.unwrap_or_default();
            earliest = delayed.max(begun + self.pause());
        }
    }

    /// While there is doubt, look-ups wait for verdicts. Even then probes pause: a few ids that fail again
    /// and again must not cause a stream of probes.
    fn pause(&self) -> Duration {
        if self.breaker.is_open() {
            self.interval
        } else {
            self.interval / 10
        }
    }

    /// Returns messages in a long outage, because the broker closes channels whose messages stay unacked
    /// for half an hour. Each return counts towards the queue's delivery limit, so there are few.
    async fn bound_outages(&self) {
        loop {
            self.breaker.until_not_free().await;
            let mut pause = self.patience;
            while timeout(self.patience, self.breaker.until_free())
                .await
                .is_err()
            {
                tracing::info!(
                    patience = ?self.patience,
                    "client service is still down, messages go back to the queue"
                );
                self.breaker.rest_is_outage();
                self.breaker.set_rejecting(true);
                self.hold_back(pause).await;
                self.breaker.set_rejecting(false);
                pause = (2 * pause).min(MAX_PAUSE);
            }
        }
    }

    /// Waits until the outage is over. If each probe is answered with "gone" or "refused", that may be
    /// true of these ids: then it waits only for `pause`, because only further messages have other ids.
    async fn hold_back(&self, pause: Duration) {
        loop {
            let is_over = timeout(pause, self.breaker.until_free()).await.is_ok();
            if is_over || self.is_unsure.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    async fn cool(&self) {
        loop {
            sleep(COOLING).await;
            self.breaker.cool();
        }
    }
}
