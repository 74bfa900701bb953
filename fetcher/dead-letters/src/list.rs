//! `dead-letters list`: what is there and why. The queue is left as it was.

use broker::Broker;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::arguments::Arguments;
use crate::letter::{Kind, Letter};
use crate::print::{missing, print, printable};
use crate::queue_reader::QueueReader;
use crate::summary::{Group, Summary, Tally};

/// Messages that are shown one by one, unless the operator says how many.
const SHOWN: usize = 20;

/// Counts the chosen messages, and prints what they died of.
///
/// # Errors
/// The queue cannot be read.
pub(crate) async fn list(broker: &Broker, arguments: &Arguments) -> anyhow::Result<()> {
    let choice = &arguments.choice;
    let mut reader = QueueReader::open(broker, choice.queue.queue()).await?;
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

/// The answer of `list`.
pub(crate) struct Listing {
    /// Name of the queue.
    pub(crate) queue: String,
    /// How many messages it held.
    pub(crate) held: u32,
    /// How many of them did not come, because another consumer has them.
    pub(crate) missing: u32,
    /// The chosen messages, counted.
    pub(crate) summary: Summary,
    /// The first of them.
    pub(crate) shown: Vec<Letter>,
}

impl Listing {
    /// For people.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let Tally { messages, ids, .. } = self.summary.total;
        let mut parts = vec![format!(
            "{}: {messages} of {} messages, with {ids} ids\n{}",
            self.queue,
            self.held,
            missing(self.missing)
        )];
        if messages > 0 {
            parts.push(self.groups());
        }
        if !self.shown.is_empty() {
            parts.push(format!("The oldest, one by one:\n{}", self.letters()));
        }
        let parts: Vec<&str> = parts.iter().map(|part| part.trim_end()).collect();
        parts.join("\n\n")
    }

    fn groups(&self) -> String {
        let mut table = table([
            "MESSAGES", "IDS", "ATTEMPT", "KIND", "OLDEST", "NEWEST", "REASON",
        ]);
        let mut add = |tally: &Tally, attempt: String, kind: &str, reason: &str| {
            table.add_row([
                tally.messages.to_string(),
                tally.ids.to_string(),
                attempt,
                kind.to_owned(),
                when(tally.oldest),
                when(tally.newest),
                printable(reason),
            ]);
        };
        for (group, tally) in self.summary.largest_first() {
            add(
                tally,
                group.attempt.to_string(),
                group.kind.name(),
                &group.reason,
            );
        }
        if self.summary.others.messages > 0 {
            add(&self.summary.others, String::new(), "", "others");
        }
        aligned(table, 3)
    }

    fn letters(&self) -> String {
        let mut table = table(["ATTEMPT", "KIND", "SINCE", "IDS", "REASON"]);
        for letter in &self.shown {
            table.add_row([
                letter.attempt.to_string(),
                letter.kind.name().to_owned(),
                when(letter.since),
                first_ids(letter),
                printable(&letter.reason),
            ]);
        }
        aligned(table, 1)
    }

    /// For programs.
    ///
    /// # Errors
    /// A time cannot be written, such as one in a year with five digits.
    pub(crate) fn json(&self) -> anyhow::Result<String> {
        let groups: Vec<Row<'_>> = self
            .summary
            .largest_first()
            .into_iter()
            .map(|(group, tally)| Row { group, tally })
            .collect();
        let letters: Vec<Value> = self.shown.iter().map(letter_json).collect();
        let listing = json!({
            "queue": self.queue,
            "held": self.held,
            "missing": self.missing,
            "chosen": self.summary.total,
            "reasons": groups,
            "others": self.summary.others,
            "oldest": letters,
        });
        Ok(serde_json::to_string_pretty(&listing)?)
    }
}

/// A group as a program reads it.
#[derive(Serialize)]
struct Row<'a> {
    #[serde(flatten)]
    group: &'a Group,
    #[serde(flatten)]
    tally: &'a Tally,
}

fn letter_json(letter: &Letter) -> Value {
    json!({
        "reason": letter.reason,
        "kind": letter.kind,
        "attempt": letter.attempt.0,
        "since": letter.since.and_then(|since| since.format(&Rfc3339).ok()),
        "object_ids": letter.object_ids,
    })
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header);
    table
}

/// The table with its first `numbers` columns aligned to the right.
fn aligned(mut table: Table, numbers: usize) -> String {
    for column in table.column_iter_mut().take(numbers) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn when(time: Option<OffsetDateTime>) -> String {
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "-".to_owned())
}

fn first_ids(letter: &Letter) -> String {
    const FIRST: usize = 5;
    let ids = &letter.object_ids;
    let first: Vec<String> = ids.iter().take(FIRST).map(ToString::to_string).collect();
    match (ids.len(), letter.kind) {
        (0, Kind::Unknown) => "-".to_owned(),
        (0, _) => "none to be read".to_owned(),
        (count, _) if count > FIRST => format!("{} and {} more", first.join(", "), count - FIRST),
        _ => first.join(", "),
    }
}
