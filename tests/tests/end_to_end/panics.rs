//! A panic is the matter of the one message or request that it happened with.

use std::future::{Future, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use broker::{
    Broker, Consumer, Consumption, Handler, Headers, Hold, Outcome, Publication, Publisher, Queue,
};
use lifecycle::{Health, Shutdown};
use messages::{FetchChunk, ObjectId};
use tests::processes::configure;
use tests::servers::broker::headers;
use tests::wait::{BOUND, eventually};
use tests::world::World;
use tokio::time::timeout;

/// Panics at one id, before there is anything to await. Counts the others.
struct Superstitious(Arc<AtomicUsize>);

impl Handler for Superstitious {
    type Message = FetchChunk;

    fn handle(&self, chunk: FetchChunk, _: Headers) -> impl Future<Output = Outcome> + Send {
        assert!(chunk.object_ids != [ObjectId(13)], "as the test asks");
        self.0.fetch_add(1, Ordering::Relaxed);
        ready(Outcome::Done)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_whose_handler_panics_is_parked_and_the_next_ones_are_worked_on() {
    let world = &mut World::new().await;
    let config = configure::<ingest::Config>(world.broker_flags(), &[]);
    let (health, shutdown) = (Health::default(), Shutdown::new(BOUND));
    let broker = Broker::new("test", &config.broker, world.broker.topology.clone());
    let (publisher, publishing) =
        Publisher::start(broker.clone(), health.dependency("publishing"), &shutdown);
    for id in [1, 13, 2] {
        let object_ids = vec![ObjectId(id)];
        let chunk = FetchChunk { object_ids };
        let publication = Publication::new(Queue::Fetch, &chunk, Headers::default()).unwrap();
        publisher.publish_until_confirmed(publication).await;
    }
    let handled = Arc::new(AtomicUsize::new(0));
    // One at a time, so that the third is taken only once the second is done with.
    let consumer = Consumer {
        broker,
        consumption: Consumption {
            queue: Queue::Fetch,
            name: "consuming",
            prefetch: 1,
            handler: Superstitious(Arc::clone(&handled)),
        },
        publisher,
        shutdown: shutdown.clone(),
        hold: Hold::never(),
    };
    let consuming = tokio::spawn(consumer.run(health.dependency("consuming")));
    let parked = world.broker.take(Queue::Dead).await;
    assert_eq!(parked.data, br#"{"version":1,"object_ids":[13]}"#);
    assert!(
        headers(&parked)
            .reason
            .is_some_and(|reason| reason.contains("panic"))
    );
    // One that was delivered and not taken would go back to the queue.
    eventually("the third to be taken", async || {
        (handled.load(Ordering::Relaxed) == 2).then_some(())
    })
    .await;
    shutdown.begin();
    timeout(BOUND, consuming).await.unwrap().unwrap();
    timeout(BOUND, publishing.finished()).await.unwrap();
    assert_eq!(world.broker.ready(Queue::Fetch).await, 0);
    assert_eq!(world.broker.ready(Queue::Dead).await, 0);
}
