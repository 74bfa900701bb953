//! Consuming with manual acks: the loop that turns the outcome of each message into ack, requeue or
//! dead letter.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use futures::{FutureExt, StreamExt};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use lifecycle::{Dependency, Shutdown};
use messages::{Message, decode};
use metric_definitions::Label;
use tokio::task::JoinSet;
use trace::Spans;

use crate::connection::{Broker, BrokerError};
use crate::headers::{Headers, shortened};
use crate::hold::Hold;
use crate::lag::lag;
use crate::metrics::{DEAD_LETTERS, GivenUp, LAG, LAST_LAG, MESSAGES_CONSUMED, Role};
use crate::publisher::{Publication, Publisher};
use crate::spans;
use crate::supervisor::Session;
use crate::topology::Queue;

/// Longest body, in bytes, that is read: five times what the largest settings make.
const LARGEST: usize = 5 << 20;

/// Name of the consumer on its channel, which has only this one.
const TAG: &str = "work";

/// A queue to consume.
pub struct Consumption<H> {
    /// Which one.
    pub queue: Queue,
    /// How the process's health names the connection.
    pub name: &'static str,
    /// How many of its messages are at work at once.
    pub prefetch: u16,
    /// What is done for each.
    pub handler: H,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Its work is done and safe.
    Done,
    /// It cannot be finished here; another consumer may.
    Requeue,
    /// It will never be finished; an operator finds it in `objects.dead` with this reason.
    Dead(String),
}

impl Label for Outcome {
    const NAME: &'static str = "outcome";
    const VALUES: &'static [&'static str] = &["done", "requeued", "dead"];

    fn value(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Requeue => "requeued",
            Self::Dead(_) => "dead",
        }
    }
}

/// The step that is done for each message.
pub trait Handler: Send + Sync + 'static {
    /// What is consumed.
    type Message: Message + Send + 'static;

    /// Does the work of one message. When it returns [`Outcome::Done`], a kill -9 loses nothing.
    /// Spans of the work belong to the traces that `headers` name.
    fn handle(
        &self,
        message: Self::Message,
        headers: Headers,
    ) -> impl Future<Output = Outcome> + Send;
}

/// Consumes one queue with a handler.
pub struct Consumer<H> {
    broker: Broker,
    queue: Queue,
    prefetch: u16,
    handler: Arc<H>,
    publisher: Publisher,
    shutdown: Shutdown,
    hold: Hold,
}

impl<H> Clone for Consumer<H> {
    fn clone(&self) -> Self {
        Self {
            broker: self.broker.clone(),
            queue: self.queue,
            prefetch: self.prefetch,
            handler: Arc::clone(&self.handler),
            publisher: self.publisher.clone(),
            shutdown: self.shutdown.clone(),
            hold: self.hold.clone(),
        }
    }
}

impl<H: Handler> Consumer<H> {
    /// Will consume until `shutdown` begins, except while `hold` is on; `publisher` is the way to
    /// `objects.dead`.
    #[must_use]
    pub fn new(
        broker: Broker,
        consumption: Consumption<H>,
        publisher: Publisher,
        shutdown: Shutdown,
        hold: Hold,
    ) -> Self {
        Self {
            broker,
            queue: consumption.queue,
            prefetch: consumption.prefetch,
            handler: Arc::new(consumption.handler),
            publisher,
            shutdown,
            hold,
        }
    }

    /// Consumes until the shut-down, over as many connections as it takes. Then, and while a hold
    /// is on, no more messages are taken, those at work may finish for as long as the shut-down
    /// leaves time, and the rest goes back to the queue.
    pub async fn run(self, dependency: Dependency) {
        let (broker, shutdown) = (self.broker.clone(), self.shutdown.clone());
        let mut session = ConsumeSession {
            consumer: self,
            orphans: Vec::new(),
        };
        let work = async {
            let supervised = broker.supervise(Role::Consumer, &dependency, &shutdown, &mut session);
            supervised.await;
            for orphans in session.orphans {
                session.consumer.finish(orphans.tasks).await;
            }
        };
        tokio::select! {
            () = work => {}
            // A broker that does not answer must not hold up the end.
            () = shutdown.closing() => {}
        }
    }

    async fn open(
        &self,
        connection: &Connection,
    ) -> Result<(Channel, lapin::Consumer), BrokerError> {
        let channel = self.broker.channel(connection).await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        self.broker.bounded("setting the prefetch", qos).await?;
        let consume = channel.basic_consume(
            self.broker.topology().name(self.queue).into(),
            TAG.into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let deliveries = self.broker.bounded("consuming", consume).await?;
        Ok((channel, deliveries))
    }

    /// Takes messages until the shut-down or a hold begins; fails when no more can come.
    async fn take(
        &self,
        deliveries: &mut lapin::Consumer,
        work: &mut Work,
        hold: &mut Hold,
    ) -> Result<(), BrokerError> {
        loop {
            tokio::select! {
                delivery = deliveries.next() => match delivery {
                    Some(delivery) => work.spawn(self.clone(), delivery?),
                    None => return Err(BrokerError::ConsumerEnded),
                },
                Some(_) = work.tasks.join_next(), if !work.tasks.is_empty() => {}
                () = self.shutdown.begun() => return Ok(()),
                () = hold.changed() => return Ok(()),
            }
        }
    }

    /// Cancels the consumer. What is at work may finish, for a time, and the end of the channel returns
    /// the rest to the queue.
    async fn stop(&self, channel: &Channel, work: Work) -> Result<(), BrokerError> {
        let cancel = channel.basic_cancel(TAG.into(), BasicCancelOptions::default());
        self.broker
            .bounded("cancelling the consumer", cancel)
            .await?;
        self.finish(work.tasks).await;
        let close = channel.close(200, "done".into());
        self.broker.bounded("closing the channel", close).await
    }

    async fn finish(&self, mut work: JoinSet<()>) {
        let finish = async { while work.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shutdown.drain_timeout(), finish)
            .await
            .is_err()
        {
            tracing::info!(queue = ?self.queue, messages = work.len(), "unfinished messages return to the queue");
        }
    }

    async fn work(self, delivery: Delivery, orphaned: Arc<AtomicBool>) {
        note_lag(&delivery);
        let mut headers = Headers::from_table(delivery.properties.headers().as_ref());
        let (topology, tag) = (self.broker.topology(), delivery.delivery_tag);
        let span = headers
            .traces
            .start(|| spans::process(topology, self.queue, tag));
        let traces = span.traces();
        headers.traces = traces.clone();
        traces
            .scope(self.work_in(span, delivery, headers, &orphaned))
            .await;
    }

    /// Does the work, and settles the message, within `span`.
    async fn work_in(
        self,
        mut span: Spans,
        delivery: Delivery,
        headers: Headers,
        orphaned: &AtomicBool,
    ) {
        let outcome = self.outcome(&delivery, headers.clone()).await;
        MESSAGES_CONSUMED.of(&outcome).increment(1);
        if let Outcome::Dead(reason) = &outcome {
            span.fail("dead", reason);
            self.bury(&delivery, headers, reason).await;
        } else if outcome == Outcome::Requeue {
            span.fail("requeued", &"it goes back to its queue");
            if orphaned.load(Ordering::Relaxed) {
                return self.publish(&delivery, self.queue, headers).await;
            }
            if self.hold.is_on() {
                // The channel is about to end, which returns it. Before the consumer is cancelled, a
                // nack would bring it straight back.
                return;
            }
        }
        let settled = if outcome == Outcome::Requeue {
            let requeue = BasicNackOptions {
                requeue: true,
                ..Default::default()
            };
            self.broker
                .bounded("requeueing", delivery.nack(requeue))
                .await
        } else {
            self.broker
                .bounded("acking", delivery.ack(BasicAckOptions::default()))
                .await
        };
        // Otherwise the channel is lost and the message comes again: what was done is done twice.
        if !matches!(settled, Ok(true)) {
            span.fail("unsettled", &"it comes again");
            tracing::debug!(?settled, queue = ?self.queue, "message was not settled");
        }
    }

    /// A panic is the message's own: it goes to `objects.dead`, and the process goes on.
    async fn outcome(&self, delivery: &Delivery, headers: Headers) -> Outcome {
        if delivery.data.len() > LARGEST {
            return Outcome::Dead(format!("longer than {LARGEST} bytes"));
        }
        let message = match decode::<H::Message>(&delivery.data) {
            Ok(message) => message,
            Err(error) => return Outcome::Dead(shortened(&error.to_string())),
        };
        // Within a future of ours: a handler may panic before it returns its own.
        let step = async { self.handler.handle(message, headers).await };
        match AssertUnwindSafe(step).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Dead("a panic, which the log describes".to_owned()),
        }
    }

    async fn bury(&self, delivery: &Delivery, headers: Headers, reason: &str) {
        tracing::error!(queue = ?self.queue, reason, "message goes to objects.dead");
        DEAD_LETTERS.of(&GivenUp::Unprocessable).increment(1);
        let headers = Headers {
            reason: Some(reason.to_owned()),
            ..headers
        };
        self.publish(delivery, Queue::Dead, headers).await;
    }

    async fn publish(&self, delivery: &Delivery, queue: Queue, headers: Headers) {
        let publication = Publication {
            queue,
            kind: H::Message::KIND,
            payload: delivery.data.clone().into(),
            headers,
        };
        self.publisher.publish_until_confirmed(publication).await;
    }
}

/// Messages of versions that did not say when they are due are not counted.
fn note_lag(delivery: &Delivery) {
    let headers = delivery.properties.headers().as_ref();
    if let Some(lag) = lag(headers, SystemTime::now()) {
        LAG.record(lag);
        LAST_LAG.set(lag);
    }
}

/// The messages at work that one consumer took. Dropped with its session, since the broker gives them
/// to another one.
#[derive(Default)]
struct Work {
    tasks: JoinSet<()>,
    /// Whether their queue is gone. Then they are nowhere else.
    orphaned: Arc<AtomicBool>,
}

impl Work {
    fn spawn<H: Handler>(&mut self, consumer: Consumer<H>, delivery: Delivery) {
        let orphaned = Arc::clone(&self.orphaned);
        self.tasks.spawn(consumer.work(delivery, orphaned));
    }
}

struct ConsumeSession<H> {
    consumer: Consumer<H>,
    /// What is at work of queues that were deleted.
    orphans: Vec<Work>,
}

impl<H: Handler> ConsumeSession<H> {
    /// Works on a channel of its own until the shut-down or a hold begins.
    async fn consume(
        &mut self,
        connection: &Connection,
        hold: &mut Hold,
    ) -> Result<(), BrokerError> {
        let (channel, mut deliveries) = self.consumer.open(connection).await?;
        let mut work = Work::default();
        match self.consumer.take(&mut deliveries, &mut work, hold).await {
            Ok(()) => self.consumer.stop(&channel, work).await,
            Err(error) => {
                if matches!(error, BrokerError::ConsumerEnded) {
                    self.adopt(work);
                }
                Err(error)
            }
        }
    }

    fn adopt(&mut self, work: Work) {
        work.orphaned.store(true, Ordering::Relaxed);
        for orphans in &mut self.orphans {
            while orphans.tasks.try_join_next().is_some() {}
        }
        self.orphans.retain(|orphans| !orphans.tasks.is_empty());
        self.orphans.push(work);
    }
}

impl<H: Handler> Session for ConsumeSession<H> {
    async fn run(&mut self, connection: &Connection) -> Result<(), BrokerError> {
        let (mut hold, shutdown) = (self.consumer.hold.clone(), self.consumer.shutdown.clone());
        loop {
            tokio::select! {
                biased;
                () = shutdown.begun() => return Ok(()),
                () = hold.off() => self.consume(connection, &mut hold).await?,
            }
        }
    }
}
