//! Confirmed publishing. One task owns the channel, because confirms of several tasks that publish on
//! one channel get mixed up. Many confirms are in flight, because waiting for each in turn is 40 times
//! slower. Each queue has a lane: a queue that takes nothing holds up only its own messages.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use lifecycle::{Dependency, Shutdown, VitalTask};
use metric_definitions::handle::Counter;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use trace::Spans;

use crate::connection::Broker;
use crate::lane::{Lanes, WINDOW};
use crate::metrics::{PUBLISHES, Published, Role};
use crate::publication::{Publication, PublishError, Request};
use crate::publish_session::PublishSession;
use crate::spans;
use crate::topology::Topology;

/// Publishes with confirms. Clones share one channel.
#[derive(Clone, Debug)]
pub struct Publisher {
    requests: mpsc::Sender<Request>,
    lanes: Arc<Lanes>,
    topology: Arc<Topology>,
    outcomes: Outcomes,
}

/// The counters of messages by outcome. Looking a counter up for each message would cost as much as the rest of
/// publishing it.
#[derive(Clone, Debug)]
struct Outcomes {
    confirmed: Counter,
    refused: Counter,
    unconfirmed: Counter,
    blocked: Counter,
}

impl Outcomes {
    fn new() -> Self {
        let counter = |published| PUBLISHES.of(&Published(published));
        Self {
            confirmed: counter(Ok(())),
            refused: counter(Err(PublishError::Refused)),
            unconfirmed: counter(Err(PublishError::Unconfirmed)),
            blocked: counter(Err(PublishError::Blocked)),
        }
    }

    fn count(&self, published: Result<(), PublishError>) {
        let counter = match published {
            Ok(()) => &self.confirmed,
            Err(PublishError::Refused) => &self.refused,
            Err(PublishError::Unconfirmed) => &self.unconfirmed,
            Err(PublishError::Blocked) => &self.blocked,
        };
        counter.increment(1);
    }
}

impl Publisher {
    /// Starts the task that owns the publishing connection. It ends when all clones are dropped (each caller
    /// that waits for a confirm has one), or when the time to drain is over.
    #[must_use]
    pub fn start(broker: Broker, dependency: Dependency, shutdown: &Shutdown) -> (Self, VitalTask) {
        let (requests, receiver) = mpsc::channel(WINDOW);
        let topology = Arc::new(broker.topology().clone());
        let stop = shutdown.clone();
        let work = async move {
            let mut session = PublishSession {
                broker: broker.clone(),
                requests: receiver,
                outlet: None,
            };
            tokio::select! {
                () = broker.supervise(Role::Publisher, &dependency, &stop, &mut session) => {}
                () = stop.closing() => {}
            }
        };
        (
            Self {
                requests,
                lanes: Arc::default(),
                topology,
                outcomes: Outcomes::new(),
            },
            VitalTask::spawn("publisher", shutdown, work),
        )
    }

    /// Gives up this clone, and waits until `publishing`, the task from [`Publisher::start`], has ended.
    pub async fn close(self, publishing: VitalTask) {
        drop(self);
        publishing.finished().await;
    }

    /// Publishes once and waits for the confirm.
    ///
    /// # Errors
    /// [`PublishError`] if the message is not confirmed within `limit`.
    pub async fn publish(
        &self,
        publication: Publication,
        limit: Duration,
    ) -> Result<(), PublishError> {
        let mut span = self.span(&publication);
        let published = self.publish_in(&span, publication, limit).await;
        if let Err(error) = published {
            span.fail(error.kind(), &error);
        }
        published
    }

    /// Publishes, again if the connection is lost, until the broker has answered or `limit` is over. Fails
    /// at once if an alarm blocks publishers, or if the queue did not take the message before.
    ///
    /// # Errors
    /// [`PublishError`] if the message is not confirmed.
    pub async fn offer(
        &self,
        publication: Publication,
        limit: Duration,
    ) -> Result<(), PublishError> {
        let lane = self.lanes.of(publication.queue);
        if !lane.is_worth_a_try() {
            self.outcomes.count(Err(PublishError::Unconfirmed));
            return Err(PublishError::Unconfirmed);
        }
        let answered = self.publish_while(publication, |error| error == PublishError::Unconfirmed);
        let published = timeout(limit, answered).await;
        let published = published.unwrap_or(Err(PublishError::Unconfirmed));
        lane.note(published);
        published
    }

    /// Publishes until the broker has confirmed, however long that takes. This may make duplicates, and
    /// loses nothing.
    pub async fn publish_until_confirmed(&self, publication: Publication) {
        if let Err(error) = self.publish_while(publication, |_| true).await {
            tracing::error!(%error, "publishing was given up");
        }
    }

    /// Publishes again while it fails with an error that `is_passing`. The first attempt has one span, and all
    /// further attempts share one.
    async fn publish_while(
        &self,
        publication: Publication,
        is_passing: impl Fn(PublishError) -> bool,
    ) -> Result<(), PublishError> {
        let mut error = match self.publish(publication.clone(), Duration::MAX).await {
            Err(error) if is_passing(error) => error,
            answered => return answered,
        };
        let (mut span, mut pauses) = (self.span(&publication), pauses());
        loop {
            span.fails_unless_done(error.kind(), &error);
            tracing::debug!(%error, kind = publication.kind, "publishing again");
            sleep(pauses.next().unwrap_or(MAX_PAUSE)).await;
            let published = self.publish_in(&span, publication.clone(), Duration::MAX);
            match published.await {
                Ok(()) => {
                    span.done();
                    return Ok(());
                }
                Err(again) if is_passing(again) => error = again,
                Err(answer) => {
                    span.fails_unless_done(answer.kind(), &answer);
                    return Err(answer);
                }
            }
        }
    }

    fn span(&self, publication: &Publication) -> Spans {
        publication.headers.traces.start(|| {
            let (queue, size) = (publication.queue, publication.payload.len());
            spans::publish(&self.topology, queue, size)
        })
    }

    /// Publishes once, as a part of `span`.
    async fn publish_in(
        &self,
        span: &Spans,
        mut publication: Publication,
        limit: Duration,
    ) -> Result<(), PublishError> {
        publication.headers.traces = span.traces();
        let answer = async {
            let (reply, answer) = oneshot::channel();
            let place = self.lanes.of(publication.queue).place().await;
            let request = Request {
                publication,
                reply,
                place,
            };
            self.requests.send(request).await.ok()?;
            // None if the session ends first, as it does when nothing is confirmed any more.
            answer.await.ok()
        };
        let answered = timeout(limit, answer).await.ok().flatten();
        let published = answered.unwrap_or(Err(PublishError::Unconfirmed));
        self.outcomes.count(published);
        published
    }
}

/// The pauses between tries to publish a message: they grow, and are short enough to be back at work soon.
fn pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(100))
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .build()
}

const MAX_PAUSE: Duration = Duration::from_secs(1);
