//! `dead-letters replay`: the chosen messages go to the queues they are for. Each is acked when its
//! new message is confirmed.

use std::collections::BTreeSet;

use anyhow::Context;
use broker::{Broker, BrokerError, Publication, Publisher, Queue};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::message::Delivery;
use lifecycle::{Health, Shutdown};

use crate::arguments::Arguments;
use crate::letter::Letter;
use crate::output::Progress;
use crate::queue_reader::QueueReader;

/// Publishes the chosen messages again, and prints how many they were. A message that is not confirmed in
/// time may be in both queues.
pub(crate) async fn replay(broker: &Broker, arguments: &Arguments) -> anyhow::Result<()> {
    let mut reader = QueueReader::open(broker, arguments.choice.queue.queue()).await?;
    let outlet = Outlet::open(broker);
    let mut progress = Progress::new("replayed");
    while !progress.is_enough(arguments) {
        let page = reader.next_page().await?;
        if page.is_empty() {
            break;
        }
        let chosen = choose(broker, arguments, &page, &mut progress);
        declare(broker, &reader, &chosen).await?;
        let mut confirmed: FuturesUnordered<_> = chosen
            .into_iter()
            .map(|(delivery, publication)| outlet.hand_over(&reader, delivery, publication))
            .collect();
        while let Some(result) = confirmed.next().await {
            result.with_context(|| format!("{} messages were replayed before", progress.done))?;
            progress.done += 1;
        }
    }
    progress.finish(reader, arguments).await
}

/// The messages of a page that are to be replayed, and what becomes of each.
fn choose<'a>(
    broker: &Broker,
    arguments: &Arguments,
    page: &'a [Delivery],
    progress: &mut Progress,
) -> Vec<(&'a Delivery, Publication)> {
    let mut chosen = Vec::new();
    for delivery in page {
        let letter = Letter::read(arguments.choice.queue, broker.topology(), delivery);
        if !progress.takes(arguments, &letter) {
            continue;
        }
        match letter.replayed(&delivery.data) {
            Some(publication) => chosen.push((delivery, publication)),
            None => progress.give_up_on(&letter),
        }
    }
    chosen
}

/// Declares the queues of the chosen messages. Nobody else declares the delay queues of settings that
/// are no longer in use, and without a queue a message would be unroutable again.
async fn declare(
    broker: &Broker,
    reader: &QueueReader<'_>,
    chosen: &[(&Delivery, Publication)],
) -> Result<(), BrokerError> {
    let queues: BTreeSet<Queue> = chosen
        .iter()
        .map(|(_, publication)| publication.queue)
        .collect();
    let topology = broker.topology().clone().with(queues);
    broker.ensure(reader.connection(), &topology).await?;
    Ok(())
}

/// Publishes on a separate connection: a blocked one would not deliver acks.
struct Outlet<'a> {
    broker: &'a Broker,
    publisher: Publisher,
    health: Health,
}

impl<'a> Outlet<'a> {
    fn open(broker: &'a Broker) -> Self {
        let (health, shutdown) = (Health::default(), Shutdown::new(broker.timeout()));
        let dependency = health.dependency("publishing");
        let (publisher, _) = Publisher::start(broker.clone(), dependency, &shutdown);
        Self {
            broker,
            publisher,
            health,
        }
    }

    async fn hand_over(
        &self,
        reader: &QueueReader<'_>,
        delivery: &Delivery,
        publication: Publication,
    ) -> anyhow::Result<()> {
        self.publisher
            .publish(publication, self.broker.timeout())
            .await
            .with_context(|| self.health.lines().trim_end().to_owned())?;
        Ok(reader.ack(delivery).await?)
    }
}
