//! A process that works between the broker and the database: it is connected to both, consumes one
//! queue, and ends in the order in which nothing is lost.

use std::future::Future;

use crate::boot::Context;
use crate::broker::{Broker, BrokerSettings};
use crate::consumer::{Consumer, Handler};
use crate::health::Dependency;
use crate::hold::Hold;
use crate::publisher::Publisher;
use crate::shutdown::{Shutdown, VitalTask};
use crate::store::{DatabaseSettings, Store};
use crate::topology::{Queue, Topology};

/// What the work of such a process is made from.
pub struct Worker {
    /// The database, its schema up to date.
    pub store: Store,
    /// Confirmed publishing.
    pub publisher: Publisher,
    /// What tells the process to stop.
    pub shutdown: Shutdown,
    /// What holds consumption back; at first nothing does.
    pub hold: Hold,
    broker: Broker,
    consuming: Dependency,
    publishing: VitalTask,
}

impl Worker {
    /// Waits for the database, brings its schema up to date, and begins to connect to the broker.
    ///
    /// # Errors
    /// The database cannot be migrated.
    pub async fn start(
        process: &'static str,
        broker: &BrokerSettings,
        topology: Topology,
        database: &DatabaseSettings,
        context: Context,
    ) -> anyhow::Result<Self> {
        let Context { health, shutdown } = context;
        let publishing = health.dependency("broker (publishing)");
        let consuming = health.dependency("broker (consuming)");
        let store = Store::new(process, database, health.dependency("database"))?;
        store.migrate(&shutdown).await?;
        let broker = Broker::new(process, broker, topology);
        let (publisher, publishing) = Publisher::start(broker.clone(), publishing, &shutdown);
        Ok(Self {
            store,
            publisher,
            shutdown,
            hold: Hold::never(),
            broker,
            consuming,
            publishing,
        })
    }

    /// Consumes `queue` until the shut-down. `batches` is the task that the handler gives its work
    /// to, and `beside` goes on at the same time.
    ///
    /// # Errors
    /// A task ended before its time.
    pub async fn consume(
        self,
        queue: Queue,
        prefetch: u16,
        handler: impl Handler,
        batches: VitalTask,
        beside: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self {
            store,
            publisher,
            shutdown,
            hold,
            broker,
            consuming,
            publishing,
        } = self;
        let consumer = Consumer::new(
            broker,
            queue,
            prefetch,
            handler,
            publisher,
            shutdown.clone(),
            hold,
        );
        let work = async { tokio::join!(consumer.run(&consuming), store.watch(&shutdown), beside) };
        tokio::select! {
            _ = work => {}
            error = batches.failed() => return Err(error),
            error = publishing.failed() => return Err(error),
        }
        // With the consumer the last users of the batches are gone, and with those the last ones of
        // the publisher: each ends when what it was given is safe.
        batches.finished().await;
        publishing.finished().await;
        Ok(())
    }
}
