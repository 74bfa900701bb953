//! A process that works between the broker and the database: it is connected to both, consumes
//! queues, and ends in the order in which nothing is lost.

use std::future::Future;

use broker::{Broker, BrokerSettings, Consumer, Consumption, Handler, Hold, Publisher, Topology};
use database::{DatabaseSettings, Store};
use futures::FutureExt;
use futures::future::join_all;
use lifecycle::{Health, Shutdown, VitalTask};
use process::ProcessContext;

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
        context: ProcessContext,
    ) -> anyhow::Result<Self> {
        let ProcessContext { health, shutdown } = context;
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
