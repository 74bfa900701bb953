//! Every exchange and queue of the pipeline, by name, and the steps that declare them.
//!
//! ```text
//! ingest -> (objects) -> [objects.fetch], [objects.fetch.bulk] -> fetcher -> (objects) -> [objects.delete.delay.<ms>]
//!                 -> shortly before the rows expire -> [objects.delete] -> janitor
//! failed look-ups -> (objects) -> [objects.retry.<ms>] -> after the delay -> [objects.fetch]
//! given up        -> (objects) -> [objects.dead]
//! unroutable      -> (amq.topic) -> [objects.unroutable]
//! ```

use settings::Value;

use crate::delay::Delay;
use crate::queue::{Queue, QueuePrefix};

/// The exchange that gets what `objects` cannot route. The confirm of such a message says that it is
/// safe in `objects.unroutable`; a `mandatory` return does not reliably name its message. The exchange
/// is one that the broker does not let anybody delete: while a deleted exchange was missing, unroutable
/// messages would be confirmed and lost.
pub(crate) const ALTERNATE_EXCHANGE: &str = "amq.topic";

/// One step of declaring the topology.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The exchange that everything is published to.
    Exchange,
    Queue(Queue),
    /// From an exchange to a queue.
    Bind {
        queue: Queue,
        exchange: String,
        /// Routing key, or pattern of it.
        key: String,
    },
}

impl Step {
    /// What the step declares, as a person would call it.
    pub(crate) fn name_in(&self, topology: &Topology) -> String {
        match self {
            Self::Exchange => format!("the exchange {}", topology.exchange()),
            Self::Queue(queue) => format!("the queue {}", topology.name(*queue)),
            Self::Bind {
                queue, exchange, ..
            } => {
                format!("the binding of {} to {exchange}", topology.name(*queue))
            }
        }
    }
}

/// The queues every process declares.
pub(crate) const CORE: [Queue; 5] = [
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

    /// Adds the delay queues that a process publishes to. A queue is named by its delay, so a changed
    /// setting makes another queue and no mismatched declaration, and the messages in the old queue
    /// still leave it at their time.
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

    /// The queue with this name; `None` if the pipeline has no such queue.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<Queue> {
        let delay = |millis: &str| Delay::parse(&format!("{millis}ms")).ok();
        let core = CORE.into_iter().find(|queue| self.name(*queue) == name);
        let unprefixed = name.strip_prefix(&self.prefix)?;
        let retry = unprefixed.strip_prefix(RETRY).and_then(delay);
        let delete = unprefixed.strip_prefix(DELETE_DELAY).and_then(delay);
        core.or(retry.map(Queue::Retry))
            .or(delete.map(Queue::DeleteDelay))
            // "007ms" is a delay too, but no queue has that name.
            .filter(|queue| self.name(*queue) == name)
    }

    /// Names of the queues that this process declares.
    #[must_use]
    pub fn queue_names(&self) -> Vec<String> {
        self.queues.iter().map(|queue| self.name(*queue)).collect()
    }

    /// Patterns that match the names of all queues of this pipeline, and of no other.
    fn name_patterns(&self) -> impl Iterator<Item = String> {
        let core = CORE.into_iter().map(|queue| self.name(queue));
        let delays = [RETRY, DELETE_DELAY].into_iter();
        core.chain(delays.map(|begin| format!("{}{begin}*", self.prefix)))
    }

    /// Name of the exchange that everything is published to.
    #[must_use]
    pub fn exchange(&self) -> String {
        format!("{}objects", self.prefix)
    }

    pub(crate) fn queue_steps(&self) -> impl Iterator<Item = Step> {
        self.queues.iter().copied().map(Step::Queue)
    }

    /// The step that makes the exchange route to `queue`.
    pub(crate) fn binding(&self, queue: Queue) -> Step {
        Step::Bind {
            queue,
            exchange: self.exchange(),
            key: self.name(queue),
        }
    }

    /// The steps in order. Between the declaration of the exchange and its bindings every message is unroutable. So the
    /// queue for these comes first, because they would otherwise be confirmed and lost; and all queues come before
    /// the exchange, because a queue takes the broker far longer than a binding.
    pub(crate) fn steps(&self) -> Vec<Step> {
        let catch_all = self.name_patterns().map(|key| Step::Bind {
            queue: Queue::Unroutable,
            exchange: ALTERNATE_EXCHANGE.to_owned(),
            key,
        });
        let mut steps = vec![Step::Queue(Queue::Unroutable)];
        steps.extend(catch_all);
        let routed = self.queues.iter().copied();
        let routed = routed.filter(|queue| *queue != Queue::Unroutable);
        steps.extend(routed.clone().map(Step::Queue));
        steps.push(Step::Exchange);
        steps.extend(routed.map(|queue| self.binding(queue)));
        steps
    }
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
}
