//! `dead-letters list`: what is there and why. The queue is left as it was.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use broker::Broker;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::arguments::Arguments;
use crate::letter::{Kind, Letter};
use crate::output::{missing_line, print, printable};
use crate::queue_reader::QueueReader;

/// Messages that are shown one by one, unless the operator says how many.
const SHOWN: usize = 20;

/// Maximum number of groups. Messages of further groups are counted together, so that a queue full of
/// different reasons is counted in little memory, and can be read.
const GROUPS: usize = 50;

/// Counts the chosen messages, and prints what they died of.
pub(crate) async fn list(broker: &Broker, arguments: &Arguments) -> anyhow::Result<()> {
    let choice = &arguments.choice;
    let mut reader = QueueReader::open(broker, choice.queue.queue()).await?;
    let mut listing = Listing::default();
    loop {
        let page = reader.next_page().await?;
        if page.is_empty() {
            break;
        }
        for delivery in page {
            let letter = Letter::read(choice.queue, broker.topology(), &delivery);
            if choice.takes(&letter) {
                listing.count(&letter);
                if listing.shown.len() < arguments.limit.unwrap_or(SHOWN) {
                    listing.shown.push(letter);
                }
            }
        }
    }
    listing.queue = reader.queue().to_owned();
    (listing.held, listing.missing) = (reader.held, reader.missing);
    reader.close().await?;
    print(&if arguments.json {
        listing.json()
    } else {
        listing.text()
    })
}

#[derive(Default)]
struct Listing {
    queue: String,
    /// How many messages the queue held.
    held: u32,
    /// How many of them did not come, because another consumer has them.
    missing: u32,
    total: Tally,
    groups: BTreeMap<Group, Tally>,
    /// The messages of the groups above the maximum.
    others: Tally,
    shown: Vec<Letter>,
}

/// What the messages of a group have in common.
#[derive(PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Group {
    reason: String,
    kind: Kind,
    attempt: u32,
}

#[derive(Default, Serialize)]
struct Tally {
    messages: u64,
    /// Ids in the messages.
    ids: u64,
    /// When the first message came, if known.
    #[serde(with = "time::serde::rfc3339::option")]
    oldest: Option<OffsetDateTime>,
    /// When the last message came, if known.
    #[serde(with = "time::serde::rfc3339::option")]
    newest: Option<OffsetDateTime>,
}

impl Tally {
    fn count(&mut self, letter: &Letter) {
        self.messages += 1;
        self.ids += letter.object_ids.len() as u64;
        self.oldest = self.oldest.into_iter().chain(letter.since).min();
        self.newest = self.newest.into_iter().chain(letter.since).max();
    }
}

impl Listing {
    fn count(&mut self, letter: &Letter) {
        let group = Group {
            reason: letter.reason.clone(),
            kind: letter.kind,
            attempt: letter.attempt.0.get(),
        };
        let is_full = self.groups.len() >= GROUPS;
        let tally = if is_full && !self.groups.contains_key(&group) {
            &mut self.others
        } else {
            self.groups.entry(group).or_default()
        };
        tally.count(letter);
        self.total.count(letter);
    }

    fn largest_first(&self) -> Vec<(&Group, &Tally)> {
        let mut groups: Vec<_> = self.groups.iter().collect();
        groups.sort_by_key(|(_, tally)| Reverse(tally.messages));
        groups
    }

    /// For people.
    fn text(&self) -> String {
        let Tally { messages, ids, .. } = self.total;
        let mut parts = vec![format!(
            "{}: {messages} of {} messages, with {ids} ids\n{}",
            self.queue,
            self.held,
            missing_line(self.missing)
        )];
        if messages > 0 {
            parts.push(self.group_table());
        }
        if !self.shown.is_empty() {
            parts.push(format!("The oldest, one by one:\n{}", self.letter_table()));
        }
        let parts: Vec<&str> = parts.iter().map(|part| part.trim_end()).collect();
        parts.join("\n\n")
    }

    fn group_table(&self) -> String {
        let mut rows = Vec::new();
        for (group, tally) in self.largest_first() {
            let attempt = group.attempt.to_string();
            rows.push((tally, attempt, group.kind.name(), group.reason.as_str()));
        }
        if self.others.messages > 0 {
            rows.push((&self.others, String::new(), "", "others"));
        }
        let header = [
            "MESSAGES", "IDS", "ATTEMPT", "KIND", "OLDEST", "NEWEST", "REASON",
        ];
        let rows = rows.into_iter().map(|(tally, attempt, kind, reason)| {
            [
                tally.messages.to_string(),
                tally.ids.to_string(),
                attempt,
                kind.to_owned(),
                when(tally.oldest),
                when(tally.newest),
                printable(reason),
            ]
        });
        table(header, rows, 3)
    }

    fn letter_table(&self) -> String {
        let rows = self.shown.iter().map(|letter| {
            [
                letter.attempt.to_string(),
                letter.kind.name().to_owned(),
                when(letter.since),
                first_ids(letter),
                printable(&letter.reason),
            ]
        });
        table(["ATTEMPT", "KIND", "SINCE", "IDS", "REASON"], rows, 1)
    }

    /// For programs.
    fn json(&self) -> String {
        #[derive(Serialize)]
        struct Row<'a> {
            #[serde(flatten)]
            group: &'a Group,
            #[serde(flatten)]
            tally: &'a Tally,
        }
        let groups = self.largest_first().into_iter();
        let rows: Vec<_> = groups.map(|(group, tally)| Row { group, tally }).collect();
        let letter = |letter: &Letter| {
            json!({
                "reason": letter.reason,
                "kind": letter.kind,
                "attempt": letter.attempt.0,
                "since": letter.since.and_then(|since| since.format(&Rfc3339).ok()),
                "object_ids": letter.object_ids,
            })
        };
        let listing = json!({
            "queue": self.queue,
            "held": self.held,
            "missing": self.missing,
            "chosen": self.total,
            "reasons": rows,
            "others": self.others,
            "oldest": self.shown.iter().map(letter).collect::<Vec<Value>>(),
        });
        format!("{listing:#}")
    }
}

/// The first `numbers` columns are aligned to the right.
fn table<const N: usize>(
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
    numbers: usize,
) -> String {
    let mut table = Table::new();
    table.load_preset(NOTHING).set_header(header).add_rows(rows);
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
