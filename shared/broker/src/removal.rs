//! Removing a queue that nobody needs any longer.

use lapin::Connection;
use lapin::options::QueueDeleteOptions;
use lapin::types::FieldTable;

use crate::connection::{Broker, BrokerError};
use crate::declaration::{carry_out, look};
use crate::queue::Queue;
use crate::topology::Step;

impl Broker {
    /// Makes the exchange no longer route to `queue`.
    ///
    /// # Errors
    /// The user may not do it, or the connection is lost.
    pub async fn unbind(&self, connection: &Connection, queue: Queue) -> Result<(), BrokerError> {
        let channel = self.channel(connection).await?;
        let (name, exchange) = (self.topology().name(queue), self.topology().exchange());
        let (queue, key) = (name.as_str().into(), name.as_str().into());
        let unbinding = channel.queue_unbind(queue, exchange.into(), key, FieldTable::default());
        self.bounded("unbinding a queue", unbinding).await
    }

    /// Makes the exchange route to `queue` again.
    ///
    /// # Errors
    /// As of [`unbind`](Self::unbind).
    pub async fn bind(&self, connection: &Connection, queue: Queue) -> Result<(), BrokerError> {
        let channel = self.channel(connection).await?;
        let step = self.topology().binding(queue);
        let binding = carry_out(&channel, self.topology(), &step);
        self.bounded("binding a queue", binding).await
    }

    /// Deletes `queue` if no message waits in it. Returns whether it did. Messages that are on their way to another queue
    /// are not counted.
    ///
    /// # Errors
    /// As of [`unbind`](Self::unbind).
    pub async fn delete_empty(
        &self,
        connection: &Connection,
        queue: Queue,
    ) -> Result<bool, BrokerError> {
        let channel = self.channel(connection).await?;
        let step = Step::Queue(queue);
        let looking = look(&channel, self.topology(), &step);
        if self.bounded("looking at a queue", looking).await? > 0 {
            return Ok(false);
        }
        // RabbitMQ does not know the option if_empty of queues like these.
        let name = self.topology().name(queue);
        let deleting = channel.queue_delete(name.into(), QueueDeleteOptions::default());
        self.bounded("deleting a queue", deleting).await?;
        Ok(true)
    }
}
