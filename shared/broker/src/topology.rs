//! Every exchange and queue of the pipeline: its name, its arguments, and the reason for each.
//!
//! ```text
//! ingest -> (objects) -> [objects.fetch], [objects.fetch.bulk] -> fetcher -> (objects) -> [objects.delete.delay.<ms>]
//!                 -> shortly before the rows expire -> [objects.delete] -> janitor
//! failed look-ups -> (objects) -> [objects.retry.<ms>] -> after the delay -> [objects.fetch]
//! given up        -> (objects) -> [objects.dead]
//! unroutable      -> (amq.topic) -> [objects.unroutable]
//! ```

use std::time::Duration;

use lapin::types::{AMQPValue, FieldTable};
use settings::Value;

/// How often a message may come back to a work queue before the broker gives it up to
/// `objects.dead`. Only a message that again and again kills its consumer, or loses its
/// connection, comes that far; what merely fails is retried by a message of its own. The limit is
/// set because RabbitMQ 4 otherwise drops a message after 20 deliveries.
const WORK_DELIVERY_LIMIT: i64 = 1_000;

/// The same for queues that only operators read: looking at a message in the management UI counts
/// as a delivery, and no look may make it vanish.
const KEPT_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// How long messages stay in a delay queue: whole milliseconds, 1 ms to 49 days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Delay(u32);

impl Delay {
    /// In milliseconds, as the broker takes it.
    #[must_use]
    pub fn as_millis(self) -> u32 {
        self.0
    }

    /// As a duration.
    #[must_use]
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0.into())
    }

    /// What is left of it without `lead`, but no less than half.
    #[must_use]
    pub fn shorter_by(self, lead: Duration) -> Self {
        let lead = u32::try_from(lead.as_millis()).unwrap_or(u32::MAX);
        Self(self.0 - lead.min(self.0 / 2))
    }
}

impl Value for Delay {
    fn parse(raw: &str) -> Result<Self, String> {
        let duration = <Duration as Value>::parse(raw)?;
        let millis =
            u32::try_from(duration.as_millis()).map_err(|_| "longer than 49 days".to_owned())?;
        if millis == 0 || duration.subsec_nanos() % 1_000_000 != 0 {
            return Err("not a whole number of milliseconds, from 1ms".to_owned());
        }
        Ok(Self(millis))
    }

    fn show(&self) -> String {
        self.as_duration().show()
    }
}

/// What the names of exchanges and queues begin with: nothing, or a word that keeps several
/// pipelines on one broker apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueuePrefix(String);

impl Value for QueuePrefix {
    fn parse(raw: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if raw.starts_with("amq.") {
            Err("the broker keeps names that begin with amq. for itself".to_owned())
        } else if raw.len() <= 100 && raw.chars().all(allowed) {
            Ok(Self(raw.to_owned()))
        } else {
            Err("not at most 100 letters, digits, dots, dashes and underscores".to_owned())
        }
    }

    fn show(&self) -> String {
        self.0.clone()
    }
}

/// The exchange that gets what `objects` cannot route. The confirm of such a message says that it is
/// safe in `objects.unroutable`; a `mandatory` return could not be trusted to name the message it
/// belongs to. It is one of the broker's own, which nobody can delete: an exchange that can be is
/// missing for a moment, and what is unroutable then is confirmed and gone.
const ALTERNATE_EXCHANGE: &str = "amq.topic";

/// The queue that a message is for. The routing key is the queue's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Chunks of ids to look up.
    Fetch,
    /// The chunks of huge callbacks, which others need not wait behind.
    Bulk,
    /// Chunks to look up again after a delay.
    Retry(Delay),
    /// Batches of rows that are about to expire.
    Delete,
    /// Batches of rows that expire soon after a delay.
    DeleteDelay(Delay),
    /// What was given up, with its reason, for an operator.
    Dead,
    /// What was published while its queue did not exist, for an operator.
    Unroutable,
}

impl Queue {
    /// How long messages stay in it before they are due.
    #[must_use]
    pub fn delay(self) -> Duration {
        match self {
            Self::Retry(delay) | Self::DeleteDelay(delay) => delay.as_duration(),
            Self::Fetch | Self::Bulk | Self::Delete | Self::Dead | Self::Unroutable => {
                Duration::ZERO
            }
        }
    }
}

/// One step of declaring the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The exchange that everything is published to.
    Exchange,
    /// A queue.
    Queue(Queue),
    /// A way from an exchange to a queue.
    Bind {
        /// The queue that the way leads to.
        queue: Queue,
        /// Name of the exchange.
        exchange: String,
        /// Routing key, or pattern of it.
        key: String,
    },
}

/// The queues every process declares.
const CORE: [Queue; 5] = [
    Queue::Fetch,
    Queue::Bulk,
    Queue::Delete,
    Queue::Dead,
    Queue::Unroutable,
];

/// What the names of delay queues begin with; the delay in milliseconds follows.
const RETRY: &str = "objects.retry.";
const DELETE_DELAY: &str = "objects.delete.delay.";

/// Names of the pipeline's exchange and queues on a broker.
#[derive(Clone, Debug)]
pub struct Topology {
    prefix: String,
    queues: Vec<Queue>,
}

impl Topology {
    /// The queues that every process needs.
    #[must_use]
    pub fn new(prefix: &QueuePrefix) -> Self {
        Self {
            prefix: prefix.0.clone(),
            queues: CORE.to_vec(),
        }
    }

    /// Adds the delay queues that a process publishes to. A queue is named by its delay, so a
    /// changed setting makes another queue, meets no mismatched declaration, and what waits in the
    /// old queue still leaves it at its own time.
    #[must_use]
    pub fn with(mut self, queues: impl IntoIterator<Item = Queue>) -> Self {
        self.queues.extend(queues);
        self
    }

    /// Name of a queue.
    #[must_use]
    pub fn name(&self, queue: Queue) -> String {
        let name = match queue {
            Queue::Fetch => "objects.fetch".to_owned(),
            Queue::Bulk => "objects.fetch.bulk".to_owned(),
            Queue::Retry(delay) => format!("{RETRY}{}", delay.as_millis()),
            Queue::Delete => "objects.delete".to_owned(),
            Queue::DeleteDelay(delay) => format!("{DELETE_DELAY}{}", delay.as_millis()),
            Queue::Dead => "objects.dead".to_owned(),
            Queue::Unroutable => "objects.unroutable".to_owned(),
        };
        format!("{}{name}", self.prefix)
    }

    /// The queue with this name; `None` where the pipeline has no such queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<Queue> {
        let delay = |millis: &str| Delay::parse(&format!("{millis}ms")).ok();
        let core = CORE.into_iter().find(|queue| self.name(*queue) == name);
        let own = name.strip_prefix(&self.prefix)?;
        let retry = own.strip_prefix(RETRY).and_then(delay);
        let delete = own.strip_prefix(DELETE_DELAY).and_then(delay);
        core.or(retry.map(Queue::Retry))
            .or(delete.map(Queue::DeleteDelay))
            // "007ms" is a delay too, but not how a queue is named.
            .filter(|queue| self.name(*queue) == name)
    }

    /// Names of the queues that this process declares.
    #[must_use]
    pub fn queue_names(&self) -> Vec<String> {
        self.queues.iter().map(|queue| self.name(*queue)).collect()
    }

    /// Patterns of the names of all queues, of this pipeline and no other.
    fn every_name(&self) -> impl Iterator<Item = String> {
        let core = CORE.into_iter().map(|queue| self.name(queue));
        let delays = [RETRY, DELETE_DELAY].into_iter();
        core.chain(delays.map(|begin| format!("{}{begin}*", self.prefix)))
    }

    /// Name of the exchange that everything is published to.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("{}objects", self.prefix)
    }

    /// The steps that declare the queues.
    pub(crate) fn queue_steps(&self) -> impl Iterator<Item = Step> {
        self.queues.iter().copied().map(Step::Queue)
    }

    /// What is declared, in order. What catches the unroutable comes first: between an exchange's
    /// declaration and its bindings everything is unroutable, and would be confirmed and gone if nothing
    /// caught it.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let bind = |queue, exchange: &str, key: String| Step::Bind {
            queue,
            exchange: exchange.to_owned(),
            key,
        };
        let caught = self
            .every_name()
            .map(|pattern| bind(Queue::Unroutable, ALTERNATE_EXCHANGE, pattern));
        let mut steps = vec![Step::Queue(Queue::Unroutable)];
        steps.extend(caught);
        steps.push(Step::Exchange);
        for queue in &self.queues {
            if *queue != Queue::Unroutable {
                steps.push(Step::Queue(*queue));
                steps.push(bind(*queue, &self.exchange(), self.name(*queue)));
            }
        }
        steps
    }

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
    use super::*;

    fn delay(raw: &str) -> Delay {
        <Delay as Value>::parse(raw).unwrap()
    }

    #[test]
    fn queues_are_named_by_prefix_and_delay() {
        let topology = Topology::new(&QueuePrefix("test.".into()));
        assert_eq!(topology.name(Queue::Fetch), "test.objects.fetch");
        assert_eq!(
            topology.name(Queue::DeleteDelay(delay("30s"))),
            "test.objects.delete.delay.30000"
        );
        assert_eq!(
            topology.name(Queue::Retry(delay("2m"))),
            "test.objects.retry.120000"
        );
    }

    #[test]
    fn a_queue_is_found_by_its_name() {
        let topology = Topology::new(&QueuePrefix("test.".into()));
        let delays = [Queue::Retry(delay("2m")), Queue::DeleteDelay(delay("30s"))];
        for queue in CORE.into_iter().chain(delays) {
            assert_eq!(topology.queue(&topology.name(queue)), Some(queue));
        }
        for name in [
            "objects.fetch",
            "test.objects",
            "test.objects.retry.",
            "test.objects.retry.007",
            "test.objects.retry.1s 5",
        ] {
            assert_eq!(topology.queue(name), None, "{name}");
        }
    }

    #[test]
    fn a_delay_that_the_broker_cannot_hold_is_refused() {
        for raw in ["0s", "1500us", "50days", "soon", "-1s"] {
            assert!(<Delay as Value>::parse(raw).is_err(), "{raw} was accepted");
        }
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
