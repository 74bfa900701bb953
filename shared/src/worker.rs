//! A process that works between the broker and the database: it is connected to both, consumes
//! queues, and ends in the order in which nothing is lost.

use std::future::Future;

use futures::FutureExt;
use futures::future::join_all;

use crate::boot::Context;
use crate::broker::{Broker, BrokerSettings};
use crate::consumer::{Consumer, Handler};
use crate::health::Health;
use crate::hold::Hold;
use crate::publisher::Publisher;
use crate::shutdown::{Shutdown, VitalTask};
use crate::store::{DatabaseSettings, Store};
use crate::topology::{Queue, Topology};

/// What the work of such a process is made from.
pub struct Worker {
    /// The database, its schema as needed.
    pub store: Store,
    /// Confirmed publishing.
    pub publisher: Publisher,
    /// What tells the process to stop.
    pub shutdown: Shutdown,
    /// What holds consumption back; at first nothing does.
    pub hold: Hold,
    broker: Broker,
    health: Health,
    publishing: VitalTask,
}

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

impl Worker {
    /// Waits for the database and its schema, and begins to connect to the broker.
    ///
    /// # Errors
    /// The pool of connections cannot be made.
    pub async fn start(
        process: &'static str,
        broker: &BrokerSettings,
        topology: Topology,
        database: &DatabaseSettings,
        context: Context,
    ) -> anyhow::Result<Self> {
        let Context { health, shutdown } = context;
        let publishing = health.dependency("broker (publishing)");
        let store = Store::new(process, database, health.dependency("database"))?;
        store.ready(&shutdown).await;
        let broker = Broker::new(process, broker, topology);
        let (publisher, publishing) = Publisher::start(broker.clone(), publishing, &shutdown);
        Ok(Self {
            store,
            publisher,
            shutdown,
            hold: Hold::never(),
            broker,
            health,
            publishing,
        })
    }

    /// Consumes until the shut-down, each queue on a separate connection. `batches` is the task that
    /// the handlers give their work to, and `beside` goes on at the same time.
    ///
    /// # Errors
    /// A task ended before its time.
    pub async fn consume(
        self,
        consumptions: impl IntoIterator<Item = Consumption<impl Handler>>,
        batches: VitalTask,
        beside: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self {
            store,
            publisher,
            shutdown,
            hold,
            broker,
            health,
            publishing,
        } = self;
        let consume = |consumption: Consumption<_>| {
            let dependency = health.dependency(consumption.name);
            let (broker, publisher) = (broker.clone(), publisher.clone());
            let (shutdown, hold) = (shutdown.clone(), hold.clone());
            let consumer = Consumer::new(broker, consumption, publisher, shutdown, hold);
            consumer.run(dependency).boxed()
        };
        let consuming = join_all(consumptions.into_iter().map(consume));
        drop(publisher);
        let work = async { tokio::join!(consuming, store.watch(&shutdown), beside) };
        tokio::select! {
            _ = work => {}
            error = batches.failed() => return Err(error),
            error = publishing.failed() => return Err(error),
        }
        // With the consumers the last users of the batches are gone, and with those the last ones of
        // the publisher: each ends when what it was given is safe.
        batches.finished().await;
        publishing.finished().await;
        Ok(())
    }
}
