//! A process that works between the broker and the database: it is connected to both, consumes
//! queues, and ends in the order in which nothing is lost.

use std::future::Future;

use broker::{Broker, BrokerSettings, Consumer, Consumption, Handler, Hold, Publisher, Topology};
use database::{DatabaseSettings, Store};
use futures::FutureExt;
use futures::future::join_all;
use lifecycle::{Health, Shutdown, VitalTask};
use process::ProcessContext;

mod batch_workers;

pub use batch_workers::{BatchWorkers, Slot};

/// The connections of such a process, and what its work is made from.
pub struct Worker {
    /// The database, with the schema that is needed.
    pub store: Store,
    /// Confirmed publishing.
    pub publisher: Publisher,
    /// Tells the process to stop.
    pub shutdown: Shutdown,
    /// While it is on, nothing is consumed. It is never on unless the process sets another one.
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
        let ProcessContext {
            health, shutdown, ..
        } = context;
        let publisher_health = health.dependency("broker (publishing)");
        let store = Store::new(process, database, health.dependency("database"))?;
        store.ready(&shutdown).await;
        let broker = Broker::new(process, broker, topology);
        let (publisher, publishing) = Publisher::start(broker.clone(), publisher_health, &shutdown);
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

    /// Starts the task that the handlers give their work to. It ends with the last handler, or when
    /// the shut-down leaves no more time.
    pub fn spawn(
        &self,
        name: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> VitalTask {
        let shutdown = self.shutdown.clone();
        let work = async move {
            tokio::select! {
                () = work => {}
                () = shutdown.closing() => {}
            }
        };
        VitalTask::spawn(name, &self.shutdown, work)
    }

    /// Consumes until the shut-down, each queue on a separate connection. `batches` is the task that
    /// the handlers give their work to; `background` runs at the same time.
    ///
    /// # Errors
    /// A task ended before its time.
    pub async fn consume(
        self,
        consumptions: impl IntoIterator<Item = Consumption<impl Handler>>,
        batches: VitalTask,
        background: impl Future<Output = ()>,
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
            let consumer = Consumer {
                broker: broker.clone(),
                consumption,
                publisher: publisher.clone(),
                shutdown: shutdown.clone(),
                hold: hold.clone(),
            };
            consumer.run(dependency).boxed()
        };
        let consuming = join_all(consumptions.into_iter().map(consume));
        drop(publisher);
        let work = async { tokio::join!(consuming, store.watch(&shutdown), background) };
        tokio::select! {
            _ = work => {}
            error = batches.failed() => return Err(error),
            error = publishing.failed() => return Err(error),
        }
        // The consumers were the last users of the batches, and the batches of the publisher: each ends
        // when the work that it was given is safe.
        batches.finished().await;
        publishing.finished().await;
        Ok(())
    }
}
