//! `dead-letters purge`: the chosen messages are deleted.

use broker::Broker;

use crate::arguments::Arguments;
use crate::letter::Letter;
use crate::print::print;
use crate::queue_reader::QueueReader;
use crate::settled::Settled;

/// Deletes the chosen messages, and prints how many they were.
///
/// # Errors
/// The queue cannot be read.
pub(crate) async fn purge(broker: &Broker, arguments: &Arguments) -> anyhow::Result<()> {
    let source = arguments.choice.queue;
    let mut reader = QueueReader::open(broker, source.queue()).await?;
    let mut settled = Settled::new("deleted", &reader);
    while !settled.is_enough(arguments) {
        let page = reader.next_page().await?;
        if page.is_empty() {
            break;
        }
        for delivery in &page {
            let letter = Letter::read(source, broker.topology(), delivery);
            if settled.takes(arguments, &letter) {
                reader.ack(delivery).await?;
                settled.done += 1;
            }
        }
    }
    let missing = reader.missing;
    reader.close().await?;
    print(&settled.report(arguments.json, missing)?)
}
