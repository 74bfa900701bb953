//! Asking the client service whether it works, when that is in doubt and while it is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lifecycle::Shutdown;
use tokio::time::{Instant, sleep, timeout};
use trace::Traces;

use crate::answer::Answer;
use crate::breaker::Breaker;
use crate::client::ClientService;
use crate::config::Config;
use crate::connections::IDLE;
use crate::metrics::PROBES;

/// Longest time for which no message is taken although other ids might be answered.
const MOST_PAUSE: Duration = Duration::from_mins(10);

/// Sends probes, one at a time, and gives up waiting in a long outage.
pub struct Prober {
    breaker: Arc<Breaker>,
    client: ClientService,
    interval: Duration,
    patience: Duration,
    /// Whether the last probe was answered with what may be about the object.
    is_unsure: AtomicBool,
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
            is_unsure: AtomicBool::new(false),
        }
    }

    /// Works until the shut-down begins; then what still waits for the client service is given back.
    pub async fn run(self, shutdown: &Shutdown) {
        tokio::select! {
            () = self.probe() => {}
            () = self.watch() => {}
            () = self.cool() => {}
            () = shutdown.begun() => self.breaker.withhold(true),
        }
    }

    async fn probe(&self) {
        let mut earliest = Instant::now();
        loop {
            let (id, started) = self.breaker.probe_wanted(earliest).await;
            let begun = Instant::now();
            let answer = self.client.look_up(id, &Traces::default()).await;
            PROBES.of(&answer).increment(1);
            self.note(&answer);
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

    fn note(&self, answer: &Answer) {
        let is_answered = matches!(
            answer,
            Answer::Failed(failure) if failure.reason.may_be_about_the_object()
        );
        self.is_unsure.store(is_answered, Ordering::Relaxed);
    }

    /// Messages are not held for the whole of a long outage: the broker closes channels whose messages
    /// stay unacked for half an hour. And they are not returned more often than is needed: each
    /// return counts towards their queue's delivery limit.
    async fn watch(&self) {
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
                self.breaker.withhold(true);
                self.hold_back(pause).await;
                self.breaker.withhold(false);
                pause = (2 * pause).min(MOST_PAUSE);
            }
        }
    }

    /// Waits until the outage is over. If there is an answer to each probe, "gone" or "refused", it may
    /// be the right one: then only for `pause`, because only further messages have other ids.
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
            sleep(IDLE).await;
            self.breaker.cool();
        }
    }
}
