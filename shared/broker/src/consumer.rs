//! Consuming with manual acks: the loop that takes messages, and the end of each session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::Connection;
use lapin::message::Delivery;
use lifecycle::{Dependency, Shutdown};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::connection::{Broker, BrokerError};
use crate::handler::Handler;
use crate::hold::Hold;
use crate::metrics::Role;
use crate::publisher::Publisher;
use crate::queue::Queue;
use crate::subscription::Subscription;
use crate::supervisor::{Session, Upturn};
use crate::window::{Change, LOOK_INTERVAL, Window};

/// A queue to consume.
pub struct Consumption<H> {
    /// The queue.
    pub queue: Queue,
    /// Name of the connection in the health of the process.
    pub name: &'static str,
    /// Maximum number of its messages at work at once. With a handler that knows its [`Handler::load`],
    /// as few are taken as keep it busy.
    pub prefetch: u16,
    /// What is done for each message.
    pub handler: H,
}

/// Consumes one queue with a handler.
pub struct Consumer<H> {
    /// The broker that has the queue.
    pub broker: Broker,
    /// The queue, and the step for each of its messages.
    pub consumption: Consumption<H>,
    /// The way to `objects.dead`.
    pub publisher: Publisher,
    /// Ends the consuming when it begins.
    pub shutdown: Shutdown,
    /// While it is on, nothing is consumed.
    pub hold: Hold,
}

impl<H: Handler> Consumer<H> {
    /// Consumes until the shut-down, over as many connections as it takes. Then, and while a hold
    /// is on, no more messages are taken, those at work may finish for as long as the shut-down
    /// leaves time, and the rest goes back to the queue.
    pub async fn run(self, dependency: Dependency) {
        let (broker, shutdown) = (self.broker.clone(), self.shutdown.clone());
        let mut session = ConsumeSession {
            consumer: Arc::new(self),
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

    /// Takes messages until the shut-down or a hold begins; fails when no more can come.
    async fn take(
        self: &Arc<Self>,
        subscription: &mut Subscription<'_>,
        mut window: Window,
        work: &mut Work,
        hold: &mut Hold,
    ) -> Result<(), BrokerError> {
        let mut look_at = None;
        loop {
            tokio::select! {
                delivery = subscription.next() => {
                    work.spawn(Arc::clone(self), delivery?);
                    window.note(work.tasks.len());
                }
                Some(_) = work.tasks.join_next(), if !work.tasks.is_empty() => {}
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    look_at = None;
                    self.look(subscription, &mut window, work).await?;
                }
                () = self.shutdown.begun() => return Ok(()),
                () = hold.changed() => return Ok(()),
            }
            if look_at.is_none() && window.needs_look() {
                look_at = Some(Instant::now() + LOOK_INTERVAL);
            }
        }
    }

    /// Lets more or fewer messages come, as the handler needs them.
    async fn look(
        &self,
        subscription: &mut Subscription<'_>,
        window: &mut Window,
        work: &Work,
    ) -> Result<(), BrokerError> {
        let load = self.consumption.handler.load();
        match load.and_then(|load| window.look(work.tasks.len(), load)) {
            Some(Change::Add(part)) => subscription.add(part).await,
            Some(Change::EndLast) => subscription.end_last().await,
            None => Ok(()),
        }
    }

    /// Ends the consumers. What is at work may finish, for a time, and the end of the channel returns the rest
    /// to the queue.
    async fn stop(
        &self,
        mut subscription: Subscription<'_>,
        work: Work,
    ) -> Result<(), BrokerError> {
        subscription.end().await?;
        self.finish(work.tasks).await;
        subscription.close().await
    }

    async fn finish(&self, mut work: JoinSet<()>) {
        let finish = async { while work.join_next().await.is_some() {} };
        if tokio::time::timeout(self.shutdown.drain_timeout(), finish)
            .await
            .is_err()
        {
            let (queue, messages) = (self.consumption.queue, work.len());
            tracing::info!(?queue, messages, "unfinished messages return to the queue");
        }
    }
}

/// The messages at work that one consumer took. It is dropped with its session, because the broker gives
/// them to another one.
#[derive(Default)]
struct Work {
    tasks: JoinSet<()>,
    /// Whether the queue of the messages is gone. Then they are nowhere else.
    is_orphaned: Arc<AtomicBool>,
}

impl Work {
    fn spawn<H: Handler>(&mut self, consumer: Arc<Consumer<H>>, delivery: Delivery) {
        let is_orphaned = Arc::clone(&self.is_orphaned);
        self.tasks.spawn(consumer.work(delivery, is_orphaned));
    }
}

struct ConsumeSession<H> {
    consumer: Arc<Consumer<H>>,
    /// The messages at work whose queues were deleted.
    orphans: Vec<Work>,
}

impl<H: Handler> ConsumeSession<H> {
    /// Works on a new channel until the shut-down or a hold begins.
    async fn consume(
        &mut self,
        connection: &Connection,
        hold: &mut Hold,
        upturn: &Upturn<'_>,
    ) -> Result<(), BrokerError> {
        let consumer = Arc::clone(&self.consumer);
        let Consumption {
            queue,
            prefetch,
            handler,
            ..
        } = &consumer.consumption;
        let window = Window::new(*prefetch, handler.load().is_some());
        let (broker, first) = (&consumer.broker, window.first());
        let mut subscription = Subscription::open(broker, connection, *queue, first).await?;
        upturn.works();
        upturn.ready();
        let mut work = Work::default();
        let taking = consumer.take(&mut subscription, window, &mut work, hold);
        match taking.await {
            Ok(()) => consumer.stop(subscription, work).await,
            Err(error) => {
                if matches!(error, BrokerError::ConsumerEnded) {
                    self.adopt(work);
                }
                Err(error)
            }
        }
    }

    fn adopt(&mut self, work: Work) {
        work.is_orphaned.store(true, Ordering::Relaxed);
        for orphans in &mut self.orphans {
            while orphans.tasks.try_join_next().is_some() {}
        }
        self.orphans.retain(|orphans| !orphans.tasks.is_empty());
        self.orphans.push(work);
    }
}

impl<H: Handler> Session for ConsumeSession<H> {
    async fn run(
        &mut self,
        connection: &Connection,
        upturn: &Upturn<'_>,
    ) -> Result<(), BrokerError> {
        let (mut hold, shutdown) = (self.consumer.hold.clone(), self.consumer.shutdown.clone());
        if hold.is_on() {
            upturn.ready();
        }
        loop {
            tokio::select! {
                biased;
                () = shutdown.begun() => return Ok(()),
                () = hold.off() => self.consume(connection, &mut hold, upturn).await?,
            }
        }
    }
}
