//! Spans of messages, by OpenTelemetry's conventions for messaging and RabbitMQ.

use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};
use trace::attribute::{
    MESSAGING_DESTINATION_NAME, MESSAGING_MESSAGE_BODY_SIZE, MESSAGING_OPERATION_NAME,
    MESSAGING_OPERATION_TYPE, MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY,
    MESSAGING_RABBITMQ_MESSAGE_DELIVERY_TAG, MESSAGING_SYSTEM,
};

use crate::queue::Queue;
use crate::topology::Topology;

/// The publishing of a message with a body of `size` bytes, until it is confirmed.
#[must_use]
pub(crate) fn publish(topology: &Topology, queue: Queue, size: usize) -> SpanBuilder {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let size = KeyValue::new(MESSAGING_MESSAGE_BODY_SIZE, size);
    span(topology, queue, "publish", "send", size).with_kind(SpanKind::Producer)
}

/// The work on a message, until it is settled.
#[must_use]
pub(crate) fn process(topology: &Topology, queue: Queue, delivery_tag: u64) -> SpanBuilder {
    let tag = i64::try_from(delivery_tag).unwrap_or(i64::MAX);
    let tag = KeyValue::new(MESSAGING_RABBITMQ_MESSAGE_DELIVERY_TAG, tag);
    span(topology, queue, "process", "process", tag).with_kind(SpanKind::Consumer)
}

fn span(
    topology: &Topology,
    queue: Queue,
    operation: &'static str,
    kind: &'static str,
    further: KeyValue,
) -> SpanBuilder {
    // The queue has the name of the routing key, which is said once.
    let routing_key = topology.name(queue);
    let destination = format!("{}:{routing_key}", topology.exchange());
    SpanBuilder::from_name(format!("{operation} {destination}")).with_attributes([
        KeyValue::new(MESSAGING_SYSTEM, "rabbitmq"),
        KeyValue::new(MESSAGING_DESTINATION_NAME, destination),
        KeyValue::new(MESSAGING_RABBITMQ_DESTINATION_ROUTING_KEY, routing_key),
        KeyValue::new(MESSAGING_OPERATION_NAME, operation),
        KeyValue::new(MESSAGING_OPERATION_TYPE, kind),
        further,
    ])
}
