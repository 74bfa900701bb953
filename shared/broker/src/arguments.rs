//! The arguments of the exchange and of each queue, and the reason for each.

use lapin::types::{AMQPValue, FieldTable};

use crate::delay::Delay;
use crate::queue::Queue;
use crate::topology::{ALTERNATE_EXCHANGE, Topology};

/// How often a message may come back to a work queue before the broker gives it up to
/// `objects.dead`. Only a message that repeatedly kills its consumer, or loses its connection,
/// comes that far; a look-up that fails is retried by another message. The limit is set because
/// RabbitMQ 4 otherwise drops a message after 20 deliveries.
const WORK_DELIVERY_LIMIT: i64 = 1_000;

/// The same for queues that only operators read: looking at a message in the management UI counts
/// as a delivery, and a look must not make it vanish.
const KEPT_DELIVERY_LIMIT: i64 = 1_000_000_000;

impl Topology {
    pub(crate) fn exchange_arguments() -> FieldTable {
        let mut arguments = FieldTable::default();
        arguments.insert("alternate-exchange".into(), text(ALTERNATE_EXCHANGE));
        arguments
    }

    pub(crate) fn arguments(&self, queue: Queue) -> FieldTable {
        let mut arguments = FieldTable::default();
        // Quorum queues fsync before they confirm; classic queues do not.
        arguments.insert("x-queue-type".into(), text("quorum"));
        match queue {
            Queue::Fetch | Queue::Bulk | Queue::Delete => {
                self.dead_letter_to(&mut arguments, Queue::Dead);
                arguments.insert(
                    "x-delivery-limit".into(),
                    AMQPValue::LongLongInt(WORK_DELIVERY_LIMIT),
                );
            }
            Queue::Retry(delay) => self.wait_then(&mut arguments, delay, Queue::Fetch),
            Queue::DeleteDelay(delay) => self.wait_then(&mut arguments, delay, Queue::Delete),
            Queue::Dead | Queue::Unroutable => {
                arguments.insert(
                    "x-delivery-limit".into(),
                    AMQPValue::LongLongInt(KEPT_DELIVERY_LIMIT),
                );
                // A policy may limit its length: what is beyond it is refused, and not the oldest
                // forgotten.
                arguments.insert("x-overflow".into(), text("reject-publish"));
            }
        }
        arguments
    }

    /// One uniform TTL for the whole queue: messages expire at its head only, so a longer one would
    /// hold up the shorter ones behind it. There is no `x-expires`, which deletes a queue without
    /// dead-lettering what is in it.
    fn wait_then(&self, arguments: &mut FieldTable, delay: Delay, target: Queue) {
        arguments.insert(
            "x-message-ttl".into(),
            AMQPValue::LongLongInt(delay.as_millis().into()),
        );
        self.dead_letter_to(arguments, target);
    }

    /// At-least-once: the default strategy forgets messages when the broker dies between two queues.
    /// It demands `reject-publish`; the queues have no length limit, so nothing is rejected.
    fn dead_letter_to(&self, arguments: &mut FieldTable, target: Queue) {
        arguments.insert("x-dead-letter-exchange".into(), text(&self.exchange()));
        arguments.insert("x-dead-letter-routing-key".into(), text(&self.name(target)));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[cfg(test)]
mod tests {
    use settings::Value;

    use super::*;
    use crate::queue::QueuePrefix;
    use crate::topology::CORE;

    fn delay(raw: &str) -> Delay {
        <Delay as Value>::parse(raw).unwrap()
    }

    #[test]
    fn every_queue_that_dead_letters_does_so_at_least_once_and_every_other_keeps_its_messages() {
        let topology = Topology::new(&QueuePrefix::default());
        let queues = CORE
            .into_iter()
            .chain([Queue::Retry(delay("1s")), Queue::DeleteDelay(delay("30s"))]);
        for queue in queues {
            let arguments = topology.arguments(queue);
            let strategy = arguments.inner().get("x-dead-letter-strategy");
            let limit = arguments.inner().get("x-delivery-limit");
            assert!(
                strategy == Some(&text("at-least-once")) || limit.is_some(),
                "{queue:?}"
            );
            assert_eq!(
                arguments.inner().get("x-queue-type"),
                Some(&text("quorum")),
                "{queue:?}"
            );
            assert!(!arguments.contains_key("x-expires"), "{queue:?}");
        }
    }
}
