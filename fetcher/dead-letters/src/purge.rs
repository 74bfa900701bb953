//! `dead-letters purge`: the chosen messages are deleted.

use broker::Broker;

use crate::arguments::Arguments;
use crate::letter::Letter;
use crate::output::Progress;
use crate::queue_reader::QueueReader;

/// Deletes the chosen messages, and prints how many they were.
pub(crate) async fn purge(broker: &Broker, arguments: &Arguments) -> anyhow::Result<()> {
    let source = arguments.choice.queue;
    let mut reader = QueueReader::open(broker, source.queue()).await?;
    let mut progress = Progress::new("deleted");
    while !progress.is_enough(arguments) {
        let page = reader.next_page().await?;
        if page.is_empty() {
            break;
        }
        for delivery in &page {
            let letter = Letter::read(source, broker.topology(), delivery);
            if progress.takes(arguments, &letter) {
                reader.ack(delivery).await?;
                progress.done += 1;
            }
        }
    }
    progress.finish(reader, arguments).await
}
