//! The work on one message, from its headers to ack, requeue or dead letter.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use futures::FutureExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicNackOptions};
use messages::{Message, decode};
use trace::SpanSet;

use crate::connection::BrokerError;
use crate::consumer::Consumer;
use crate::handler::{Handler, Outcome};
use crate::headers::{Headers, shortened};
use crate::lag::lag;
use crate::metrics::{DEAD_LETTERS, GivenUp, LAG, LAST_LAG, MESSAGES_CONSUMED};
use crate::publication::Publication;
use crate::queue::Queue;
use crate::spans;

/// Longest body, in bytes, that is read: five times what the largest settings make.
const LARGEST: usize = 5 << 20;

impl<H: Handler> Consumer<H> {
    /// Works on a message and settles it. `is_orphaned` says whether its queue is gone.
    pub(crate) async fn work(self: Arc<Self>, delivery: Delivery, is_orphaned: Arc<AtomicBool>) {
        note_lag(&delivery);
        let mut headers = Headers::from_table(delivery.properties.headers().as_ref());
        let (topology, queue) = (self.broker.topology(), self.consumption.queue);
        let describe = || spans::process(topology, queue, delivery.delivery_tag);
        let span = headers.traces.start(describe);
        let traces = span.traces();
        headers.traces = traces.clone();
        let work = async {
            let outcome = self.outcome(&delivery, headers.clone()).await;
            MESSAGES_CONSUMED.of(&outcome).increment(1);
            self.settle(outcome, span, &delivery, headers, &is_orphaned)
                .await;
        };
        traces.scope(work).await;
    }

    /// A panic is the message's own: it goes to `objects.dead`, and the process goes on.
    async fn outcome(&self, delivery: &Delivery, headers: Headers) -> Outcome {
        if delivery.data.len() > LARGEST {
            return Outcome::Dead(format!("longer than {LARGEST} bytes"));
        }
        let message = match decode::<H::Message>(&delivery.data) {
            Ok(message) => message,
            Err(error) => return Outcome::Dead(shortened(&error.to_string())),
        };
        // In a future of ours: a handler may panic before it returns its future.
        let step = async { self.consumption.handler.handle(message, headers).await };
        match AssertUnwindSafe(step).catch_unwind().await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Dead("a panic, which the log describes".to_owned()),
        }
    }

    async fn settle(
        &self,
        outcome: Outcome,
        mut span: SpanSet,
        delivery: &Delivery,
        headers: Headers,
        is_orphaned: &AtomicBool,
    ) {
        let settled = match outcome {
            Outcome::Done => self.ack(delivery).await,
            Outcome::Dead(reason) => {
                span.fail("dead", &reason);
                self.bury(delivery, headers, reason).await;
                self.ack(delivery).await
            }
            Outcome::Requeue => {
                span.fail("requeued", &"it goes back to its queue");
                if is_orphaned.load(Ordering::Relaxed) {
                    let queue = self.consumption.queue;
                    return self.publish(delivery, queue, headers).await;
                }
                if self.hold.is_on() {
                    // The channel is about to be closed, which requeues the message. Before the consumer
                    // is cancelled, a nack would bring it straight back.
                    return;
                }
                self.nack(delivery).await
            }
        };
        // Otherwise the channel is lost and the message comes again: the work is done twice.
        if !matches!(settled, Ok(true)) {
            span.fail("unsettled", &"it comes again");
            tracing::debug!(?settled, queue = ?self.consumption.queue, "message was not settled");
        }
    }

    async fn ack(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let ack = delivery.ack(BasicAckOptions::default());
        self.broker.bounded("acking", ack).await
    }

    async fn nack(&self, delivery: &Delivery) -> Result<bool, BrokerError> {
        let requeue = BasicNackOptions {
            requeue: true,
            ..Default::default()
        };
        let nack = delivery.nack(requeue);
        self.broker.bounded("requeueing", nack).await
    }

    async fn bury(&self, delivery: &Delivery, headers: Headers, reason: String) {
        let queue = self.consumption.queue;
        tracing::error!(?queue, reason, "message goes to objects.dead");
        DEAD_LETTERS.of(&GivenUp::Unprocessable).increment(1);
        let reason = Some(reason);
        self.publish(delivery, Queue::Dead, Headers { reason, ..headers })
            .await;
    }

    async fn publish(&self, delivery: &Delivery, queue: Queue, headers: Headers) {
        let publication = Publication {
            queue,
            kind: H::Message::KIND,
            payload: delivery.data.clone().into(),
            headers,
        };
        self.publisher.publish_until_confirmed(publication).await;
    }
}

/// A message that does not say when it was due, as older versions sent it, is not counted.
fn note_lag(delivery: &Delivery) {
    let headers = delivery.properties.headers().as_ref();
    if let Some(lag) = lag(headers, SystemTime::now()) {
        LAG.record(lag);
        LAST_LAG.set(lag);
    }
}
