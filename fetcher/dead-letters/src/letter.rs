//! One message that was given up: what it is, why it is here, and where it belongs.

use broker::{Attempt, Headers, Publication, Queue, Topology, shortened};
use clap::ValueEnum;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use messages::{DeleteBatch, FetchChunk, Message, ObjectId, decode};
use serde::Serialize;
use time::OffsetDateTime;

/// A queue that only operators read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Source {
    /// objects.dead: what was given up
    Dead,
    /// objects.unroutable: what was published while its queue did not exist
    Unroutable,
}

impl Source {
    pub(crate) fn queue(self) -> Queue {
        match self {
            Self::Dead => Queue::Dead,
            Self::Unroutable => Queue::Unroutable,
        }
    }
}

/// Type of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Ids to look up
    FetchChunk,
    /// Rows to delete
    DeleteBatch,
    /// Not a message of the pipeline
    Unknown,
}

impl Kind {
    /// By the property `type`. A message that was published by hand may lack it: then its body tells.
    fn of(name: Option<&str>, payload: &[u8]) -> Self {
        match name {
            Some(FetchChunk::KIND) => Self::FetchChunk,
            Some(DeleteBatch::KIND) => Self::DeleteBatch,
            // The type with more members comes first, because the other one ignores unknown members.
            _ if decode::<DeleteBatch>(payload).is_ok() => Self::DeleteBatch,
            _ if decode::<FetchChunk>(payload).is_ok() => Self::FetchChunk,
            _ => Self::Unknown,
        }
    }

    /// The property `type`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::FetchChunk => FetchChunk::KIND,
            Self::DeleteBatch => DeleteBatch::KIND,
            Self::Unknown => "unknown",
        }
    }

    fn object_ids(self, payload: &[u8]) -> Vec<ObjectId> {
        match self {
            Self::FetchChunk => decode::<FetchChunk>(payload).map(|chunk| chunk.object_ids),
            Self::DeleteBatch => decode::<DeleteBatch>(payload).map(|batch| batch.object_ids),
            Self::Unknown => return Vec::new(),
        }
        .unwrap_or_default()
    }
}

/// A message that was given up.
pub(crate) struct Letter {
    pub(crate) kind: Kind,
    /// Why it is in its queue.
    pub(crate) reason: String,
    /// The number of its last try.
    pub(crate) attempt: Attempt,
    /// Empty where the message cannot be read.
    pub(crate) object_ids: Vec<ObjectId>,
    /// When it came to its queue, to the second.
    pub(crate) since: Option<OffsetDateTime>,
    target: Option<(Queue, Headers)>,
}

impl Letter {
    pub(crate) fn read(source: Source, topology: &Topology, delivery: &Delivery) -> Self {
        let properties = &delivery.properties;
        let table = properties.headers().as_ref();
        let headers = Headers::from_table(table);
        let name = properties.kind().as_ref().map(ShortString::as_str);
        let kind = Kind::of(name, &delivery.data);
        let death = table.and_then(Death::newest);
        let died_at = death.as_ref().and_then(|death| death.at);
        Self {
            kind,
            reason: match source {
                Source::Dead => shortened(&reason(death.as_ref(), &headers)),
                Source::Unroutable => format!("no queue {}", delivery.routing_key),
            },
            attempt: headers.attempt,
            object_ids: kind.object_ids(&delivery.data),
            since: died_at.or_else(|| seconds(*properties.timestamp().as_ref()?)),
            target: target(
                source,
                kind,
                topology,
                delivery.routing_key.as_str(),
                headers,
            ),
        }
    }

    /// The message on its way to its queue; none where nobody can tell which queue that is.
    pub(crate) fn replayed(&self, payload: &[u8]) -> Option<Publication> {
        let (queue, headers) = self.target.clone()?;
        Some(Publication {
            queue,
            kind: self.kind.name(),
            payload: payload.to_vec().into(),
            headers,
        })
    }
}

/// A dead letter starts with its first try again, within its trace. An unroutable message goes on as it was:
/// nothing was wrong but that its queue did not exist.
fn target(
    source: Source,
    kind: Kind,
    topology: &Topology,
    routing_key: &str,
    headers: Headers,
) -> Option<(Queue, Headers)> {
    let first_try = |headers: Headers| Headers::first_try(headers.traces);
    match (source, kind) {
        (_, Kind::Unknown) => None,
        (Source::Dead, Kind::FetchChunk) => Some((Queue::Fetch, first_try(headers))),
        (Source::Dead, Kind::DeleteBatch) => Some((Queue::Delete, first_try(headers))),
        (Source::Unroutable, _) => topology
            .queue(routing_key)
            .filter(|queue| *queue != Queue::Unroutable)
            .map(|queue| (queue, headers)),
    }
}

fn reason(death: Option<&Death>, headers: &Headers) -> String {
    match (death, &headers.reason) {
        // The pipeline publishes a dead letter without the broker's headers. Where these are present,
        // the reason is that of an earlier try.
        (Some(death), _) => format!("{} in {}", death.reason, death.queue),
        (None, Some(reason)) => reason.clone(),
        (None, None) => "none given".to_owned(),
    }
}

/// The broker's note on a message that it dead-letters by itself, because it was delivered too often for
/// instance.
struct Death {
    reason: String,
    queue: String,
    at: Option<OffsetDateTime>,
}

impl Death {
    /// The newest death comes first. Expiry in a delay queue is none.
    fn newest(table: &FieldTable) -> Option<Self> {
        let Some(AMQPValue::FieldArray(deaths)) = table.inner().get("x-death") else {
            return None;
        };
        deaths
            .as_slice()
            .iter()
            .filter_map(Self::read)
            .find(|death| death.reason != "expired")
    }

    fn read(entry: &AMQPValue) -> Option<Self> {
        let AMQPValue::FieldTable(entry) = entry else {
            return None;
        };
        let text = |name| match entry.inner().get(name) {
            Some(AMQPValue::LongString(text)) => Some(text.to_string()),
            _ => None,
        };
        Some(Self {
            reason: text("reason")?,
            queue: text("queue")?,
            at: match entry.inner().get("time") {
                Some(AMQPValue::Timestamp(at)) => seconds(*at),
                _ => None,
            },
        })
    }
}

fn seconds(unix: u64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(i64::try_from(unix).ok()?).ok()
}
