//! The tests' own view of the broker.

use std::time::Duration;

use broker::{Headers, Queue, Topology};
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions,
    ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPHardError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ErrorKind};
use messages::{Message, encode};

use crate::wait::eventually;

/// Connects.
///
/// # Errors
/// The server does not answer, or it does not let the user in.
pub async fn connect(amqp_url: &str) -> anyhow::Result<Connection> {
    let uri = amqp_url.parse().map_err(anyhow::Error::msg)?;
    let connecting = Connection::connect_uri(uri, ConnectionProperties::default());
    Ok(tokio::time::timeout(Duration::from_secs(5), connecting).await??)
}

/// A channel of the tests' own, and the names of a test's queues.
pub struct Broker {
    /// Names of the test's queues.
    pub topology: Topology,
    channel: Channel,
    connection: Connection,
    amqp_url: String,
}

impl Broker {
    /// Opens a channel to the broker at `amqp_url`.
    pub async fn new(amqp_url: &str, topology: Topology) -> Self {
        let connected = async || connect(amqp_url).await.ok();
        let connection = eventually("the broker to answer", connected).await;
        let channel = connection.create_channel().await.unwrap();
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        Self {
            topology,
            channel,
            connection,
            amqp_url: amqp_url.to_owned(),
        }
    }

    /// Publishes a message as the pipeline would.
    pub async fn publish<M: Message>(&self, queue: Queue, body: &M, headers: &Headers) {
        self.publish_bytes(queue, &encode(body).unwrap(), headers)
            .await;
    }

    /// Publishes a body of any kind, and waits until the broker has it.
    pub async fn publish_bytes(&self, queue: Queue, body: &[u8], headers: &Headers) {
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_headers(headers.to_table());
        let confirm = self
            .channel
            .basic_publish(
                self.topology.exchange().into(),
                self.topology.name(queue).into(),
                BasicPublishOptions::default(),
                body,
                properties,
            )
            .await
            .unwrap();
        assert!(confirm.await.unwrap().is_ack());
    }

    /// Publishes many messages as the pipeline would, and waits until the broker has all of them.
    pub async fn publish_many<M: Message>(&self, queue: Queue, messages: &[(M, Headers)]) {
        let mut confirms = Vec::new();
        for (body, headers) in messages {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_type(M::KIND.into())
                .with_headers(headers.to_table());
            let body = encode(body).unwrap();
            let publish = self.channel.basic_publish(
                self.topology.exchange().into(),
                self.topology.name(queue).into(),
                BasicPublishOptions::default(),
                &body,
                properties,
            );
            confirms.push(publish.await.unwrap());
        }
        for confirm in confirms {
            assert!(confirm.await.unwrap().is_ack());
        }
    }

    /// Takes a message off the queue and rejects it, so that the broker dead-letters it.
    pub async fn reject(&self, queue: Queue) {
        let name = self.topology.name(queue);
        let get = async || {
            let options = BasicGetOptions::default();
            let got = self.channel.basic_get(name.as_str().into(), options).await;
            got.unwrap()
        };
        let message = eventually(&format!("a message in {queue:?}"), get).await;
        let options = BasicRejectOptions::default();
        assert!(message.reject(options).await.unwrap());
    }

    /// How many messages are in the queue and not with a consumer.
    pub async fn ready(&self, queue: Queue) -> u32 {
        self.inspect(queue).await.message_count()
    }

    /// How many consumers the queue has.
    pub async fn consumers(&self, queue: Queue) -> u32 {
        self.inspect(queue).await.consumer_count()
    }

    async fn inspect(&self, queue: Queue) -> lapin::Queue {
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let name = self.topology.name(queue).into();
        self.channel
            .queue_declare(name, passive, FieldTable::default())
            .await
            .unwrap()
    }

    /// Waits until the queue holds `count` messages that are not with a consumer.
    pub async fn until_ready(&self, queue: Queue, count: u32) {
        let what = format!("{count} messages in {queue:?}");
        eventually(&what, async || {
            (self.ready(queue).await == count).then_some(())
        })
        .await;
    }

    /// Takes a message off the queue, if there is one.
    pub async fn try_take(&self, queue: Queue) -> Option<BasicGetMessage> {
        let name = self.topology.name(queue).into();
        let no_ack = BasicGetOptions { no_ack: true };
        self.channel.basic_get(name, no_ack).await.unwrap()
    }

    /// Waits for a message and takes it off the queue.
    pub async fn take(&self, queue: Queue) -> BasicGetMessage {
        let what = format!("a message in {queue:?}");
        eventually(&what, async || self.try_take(queue).await).await
    }

    /// Whether a queue exists.
    pub async fn exists(&self, queue_name: &str) -> bool {
        self.messages(queue_name).await.is_some()
    }

    /// How many messages are in a queue and not with a consumer; none where there is no such queue.
    /// It asks on a new channel, which a "no" closes.
    pub async fn messages(&self, queue_name: &str) -> Option<u32> {
        let passive = QueueDeclareOptions {
            passive: true,
            ..Default::default()
        };
        let channel = self.connection.create_channel().await.unwrap();
        let declared = channel
            .queue_declare(queue_name.into(), passive, FieldTable::default())
            .await;
        Some(declared.ok()?.message_count())
    }

    /// Declares a queue as the pipeline would not.
    pub async fn declare_classic(&self, queue_name: &str) {
        let durable = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        self.channel
            .queue_declare(queue_name.into(), durable, FieldTable::default())
            .await
            .unwrap();
    }

    /// Declares a kept queue as versions did that refused nothing beyond a limit.
    pub async fn declare_without_overflow(&self, queue: Queue) {
        let mut arguments = FieldTable::default();
        arguments.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        arguments.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongLongInt(1_000_000_000),
        );
        let durable = QueueDeclareOptions {
            durable: true,
            ..Default::default()
        };
        let name = self.topology.name(queue);
        self.channel
            .queue_declare(name.into(), durable, arguments)
            .await
            .unwrap();
    }

    /// Removes the way from the exchange to a queue.
    pub async fn unbind(&self, queue: Queue) {
        let name = self.topology.name(queue);
        let exchange = self.topology.exchange().into();
        self.channel
            .queue_unbind(
                name.as_str().into(),
                exchange,
                name.as_str().into(),
                FieldTable::default(),
            )
            .await
            .unwrap();
    }

    /// Declares the test's queues.
    pub async fn declare(&self) {
        self.topology.declare(&self.channel).await.unwrap();
    }

    /// Deletes a queue, with all that is in it.
    pub async fn delete(&self, queue_name: &str) {
        let options = QueueDeleteOptions::default();
        self.operate(async |channel| {
            let deleted = channel.queue_delete(queue_name.into(), options).await;
            deleted.map(drop)
        })
        .await;
    }

    /// Deletes the test's exchange.
    pub async fn delete_exchange(&self) {
        let exchange = self.topology.exchange();
        let options = ExchangeDeleteOptions::default();
        self.operate(async |channel| {
            channel
                .exchange_delete(exchange.as_str().into(), options)
                .await
        })
        .await;
    }

    /// Carries out an operator's command on a separate connection, and once more where the broker
    /// failed: RabbitMQ 4.3 can end the connection with `INTERNAL_ERROR` if something is deleted
    /// while it is declared.
    async fn operate(&self, command: impl AsyncFn(Channel) -> lapin::Result<()>) {
        let carried_out = async || {
            let connection = connect(&self.amqp_url).await.ok()?;
            let result = command(connection.create_channel().await.ok()?).await;
            if result.as_ref().is_err_and(is_internal) {
                return None;
            }
            result.unwrap();
            Some(())
        };
        eventually("the broker to carry out a command", carried_out).await;
    }
}

fn is_internal(error: &lapin::Error) -> bool {
    let internal = AMQPErrorKind::Hard(AMQPHardError::INTERNALERROR);
    matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == internal)
}

/// The headers of a message that was taken.
#[must_use]
pub fn headers(message: &BasicGetMessage) -> Headers {
    Headers::from_table(message.properties.headers().as_ref())
}
