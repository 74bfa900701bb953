//! Declaring the topology. Each step is bounded by itself, so that it succeeds on a network with long
//! round trips. What exists is only looked at, because each binding that is declared costs the
//! brokers of a cluster a commit.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::AMQPSoftError;
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ExchangeKind};
use parking_lot::Mutex;

use crate::connection::{Broker, BrokerError};
use crate::queue::Queue;
use crate::topology::{Step, Topology};

/// Arguments without which a queue, or the exchange, does not do its job. If another argument differs, the
/// queue is used as it is.
const VITAL: [&str; 11] = [
    "type",
    "alternate-exchange",
    "durable",
    "exclusive",
    "auto_delete",
    "x-queue-type",
    "x-message-ttl",
    "x-expires",
    "x-dead-letter-exchange",
    "x-dead-letter-routing-key",
    "x-dead-letter-strategy",
];

/// The errors of queues with other arguments that were logged; each is logged once.
static REPORTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

impl Broker {
    /// Declares the missing parts of `topology`. Declaring again, or from several processes at once,
    /// changes nothing. Returns the last channel, which is only good for looking at the topology.
    ///
    /// # Errors
    /// A queue exists with arguments with which it does not do its job, or the connection is lost.
    pub async fn declare(
        &self,
        connection: &Connection,
        topology: &Topology,
    ) -> Result<Channel, BrokerError> {
        let mut channel = self.channel(connection).await?;
        for step in topology.steps() {
            let name = "declaring the topology";
            let work = carry_out(&channel, topology, &step);
            match self.bounded_unless_blocked(connection, name, work).await {
                Err(error) if is_tolerable(&error) => {
                    report(&error);
                    channel = self.channel(connection).await?;
                }
                result => result?,
            }
        }
        Ok(channel)
    }

    /// Declares the missing parts of the topology; a user that may not do so looks whether all of it is
    /// there. Returns a channel to look at it.
    ///
    /// # Errors
    /// As of [`declare`](Self::declare); or a part is missing, and the user may not declare it.
    pub async fn ensure(
        &self,
        connection: &Connection,
        topology: &Topology,
    ) -> Result<Channel, BrokerError> {
        if self.only_looks.load(Relaxed) {
            let mut channel = self.channel(connection).await?;
            match self.look(connection, &mut channel, topology).await {
                // The user may have got the right meanwhile.
                Err(BrokerError::Missing(_)) => {}
                looked => return looked.map(|_| channel),
            }
        }
        let declared = self.declare(connection, topology).await;
        let is_refused =
            matches!(&declared, Err(error) if error.is_soft(&AMQPSoftError::ACCESSREFUSED));
        self.only_looks.store(is_refused, Relaxed);
        if !is_refused {
            return declared;
        }
        let mut channel = self.channel(connection).await?;
        let looked = self.look(connection, &mut channel, topology).await;
        looked.map(|_| channel)
    }

    /// Looks whether all of the topology exists. Returns how many messages found no queue.
    ///
    /// RabbitMQ 4.3 lets a user look at what it has some right on, and closes the channel otherwise. What the
    /// user has no right on is no part of its work, and is not looked at again.
    ///
    /// # Errors
    /// A part is missing, or the connection is lost.
    async fn look(
        &self,
        connection: &Connection,
        channel: &mut Channel,
        topology: &Topology,
    ) -> Result<u32, BrokerError> {
        let mut unroutable = 0;
        for step in [Step::Exchange].into_iter().chain(topology.queue_steps()) {
            let part = step.name_in(topology);
            if self.hidden.lock().contains(&part) {
                continue;
            }
            let looking = look(channel, topology, &step);
            let name = "looking at the topology";
            match self.bounded_unless_blocked(connection, name, looking).await {
                Err(error) if error.is_soft(&AMQPSoftError::NOTFOUND) => {
                    return Err(BrokerError::Missing(part));
                }
                Err(error) if error.is_soft(&AMQPSoftError::ACCESSREFUSED) => {
                    self.hidden.lock().insert(part);
                    *channel = self.channel(connection).await?;
                }
                Ok(messages) if step == Step::Queue(Queue::Unroutable) => unroutable = messages,
                result => drop(result?),
            }
        }
        Ok(unroutable)
    }

    /// Looks at the topology every 2 s, so that a queue, an exchange or a binding that was deleted is
    /// missing for seconds only. Returns when a look fails.
    pub(crate) async fn keep_declared(
        &self,
        connection: &Connection,
        channel: &mut Channel,
    ) -> BrokerError {
        const INTERVAL: Duration = Duration::from_secs(2);
        let mut unroutable = u32::MAX;
        loop {
            let found = match self.look(connection, channel, self.topology()).await {
                Ok(found) => Some(found),
                Err(BrokerError::Missing(_)) => None,
                Err(error) => return error,
            };
            // If their number grows, a binding is missing. Bindings cannot be looked at.
            if found.is_none_or(|found| found > unroutable) {
                match self.ensure(connection, self.topology()).await {
                    Ok(declared) => *channel = declared,
                    Err(error) => return error,
                }
            }
            unroutable = found.unwrap_or(unroutable);
            tokio::time::sleep(INTERVAL).await;
        }
    }
}

impl Topology {
    /// Declares what is missing, on a channel that fails if something exists with other arguments.
    ///
    /// # Errors
    /// The broker refuses a declaration, or the connection is lost.
    pub async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        for step in self.steps() {
            carry_out(channel, self, &step).await?;
        }
        Ok(())
    }
}

pub(crate) async fn carry_out(
    channel: &Channel,
    topology: &Topology,
    step: &Step,
) -> lapin::Result<()> {
    match step {
        Step::Exchange => declare_exchange(channel, topology).await,
        Step::Queue(queue) => {
            let (name, arguments) = (topology.name(*queue), topology.arguments(*queue));
            let durable = QueueDeclareOptions {
                durable: true,
                ..Default::default()
            };
            let declaring = channel.queue_declare(name.into(), durable, arguments);
            declaring.await.map(drop)
        }
        Step::Bind {
            queue,
            exchange,
            key,
        } => {
            let (name, options) = (topology.name(*queue), QueueBindOptions::default());
            let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
            let none = FieldTable::default();
            channel
                .queue_bind(name.into(), exchange, key, options, none)
                .await
        }
    }
}

async fn declare_exchange(channel: &Channel, topology: &Topology) -> lapin::Result<()> {
    let durable = ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let (name, arguments) = (topology.exchange(), Topology::exchange_arguments());
    channel
        .exchange_declare(name.into(), ExchangeKind::Direct, durable, arguments)
        .await
}

/// Returns the number of messages in a queue. If the queue or the exchange is missing, the broker answers
/// 404 and closes the channel.
pub(crate) async fn look(
    channel: &Channel,
    topology: &Topology,
    step: &Step,
) -> lapin::Result<u32> {
    let none = FieldTable::default();
    let Step::Queue(queue) = step else {
        let (name, kind) = (topology.exchange().into(), ExchangeKind::Direct);
        let passive = ExchangeDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let declaring = channel.exchange_declare(name, kind, passive, none);
        return declaring.await.map(|()| 0);
    };
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let declaring = channel.queue_declare(topology.name(*queue).into(), passive, none);
    declaring.await.map(|queue| queue.message_count())
}

/// Whether a queue, or the exchange, exists with other arguments and still does its job. The broker
/// names the first argument that differs.
fn is_tolerable(error: &BrokerError) -> bool {
    let text = error.to_string();
    error.is_soft(&AMQPSoftError::PRECONDITIONFAILED)
        && text.contains("inequivalent arg")
        && !VITAL.iter().any(|name| text.contains(&format!("'{name}'")))
}

fn report(error: &BrokerError) {
    let text = error.to_string();
    let mut reported = REPORTED.lock();
    if reported.insert(text) {
        tracing::warn!(%error, "it is used as it is; deleted while it is empty, it is declared again");
    }
}
