//! `dead-letters list`: what is there and why. The queue is left as it was.

use shared::broker::Broker;

use super::arguments::Arguments;
use super::letter::Letter;
use super::listing::Listing;
use super::reader::Reader;
use super::report::print;
use super::summary::Summary;

/// Messages that are shown one by one, unless the operator says how many.
const SHOWN: usize = 20;

/// Counts the chosen messages, and prints what they died of.
///
/// # Errors
/// The queue cannot be read.
pub async fn list(broker: &Broker, arguments: &Arguments) -> anyhow::Result<()> {
    let choice = &arguments.choice;
    let mut reader = Reader::open(broker, choice.queue.queue()).await?;
    let mut summary = Summary::default();
    let mut shown = Vec::new();
    loop {
        let page = reader.next_page().await?;
        if page.is_empty() {
            break;
        }
        for delivery in page {
            let letter = Letter::read(choice.queue, broker.topology(), &delivery);
            if !choice.takes(&letter) {
                continue;
            }
            summary.add(&letter);
            if shown.len() < arguments.limit.unwrap_or(SHOWN) {
                shown.push(letter);
            }
        }
    }
    let listing = Listing {
        queue: reader.queue().to_owned(),
        held: reader.held,
        missing: reader.missing,
        summary,
        shown,
    };
    reader.close().await?;
    if arguments.json {
        print(&listing.json()?)
    } else {
        print(&listing.text())
    }
}
