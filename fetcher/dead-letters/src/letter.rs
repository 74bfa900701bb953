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
pub enum Source {
    /// objects.dead: what was given up
    Dead,
    /// objects.unroutable: what was published while its queue did not exist
    Unroutable,
}

impl Source {
    /// The queue itself.
    #[must_use]
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
pub enum Kind {
    /// Ids to look up
    FetchChunk,
    /// Rows to delete
    DeleteBatch,
    /// Not a message of the pipeline
    Unknown,
}

impl Kind {
    /// By the property `type`; what was published by hand may lack it, and is then read.
    fn of(name: Option<&str>, payload: &[u8]) -> Self {
        match name {
            Some(FetchChunk::KIND) => Self::FetchChunk,
            Some(DeleteBatch::KIND) => Self::DeleteBatch,
            // First the one that has more members: the other ignores those it does not know.
            _ if decode::<DeleteBatch>(payload).is_ok() => Self::DeleteBatch,
            _ if decode::<FetchChunk>(payload).is_ok() => Self::FetchChunk,
            _ => Self::Unknown,
        }
    }

    /// As the property `type` gives it.
    #[must_use]
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

/// What is known of a message that was given up.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    /// Its type.
    pub(crate) kind: Kind,
    /// Why it is here.
    pub(crate) reason: String,
    /// Which try was its last.
    pub(crate) attempt: Attempt,
    /// The ids in it; none where it cannot be read.
    pub(crate) object_ids: Vec<ObjectId>,
    /// When it came here, to the second.
    pub(crate) since: Option<OffsetDateTime>,
    target: Option<(Queue, Headers)>,
}

impl Letter {
    /// Reads a message that was in `source`.
    #[must_use]
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

    /// The message on its way to the queue it is for; `None` where nobody can tell which.
    #[must_use]
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

/// A dead letter begins anew, within its trace. An unroutable message goes on as it was: all that was
/// wrong is that its queue did not exist.
fn target(
    source: Source,
    kind: Kind,
    topology: &Topology,
    routing_key: &str,
    headers: Headers,
) -> Option<(Queue, Headers)> {
    let anew = |headers: Headers| Headers::first_try(headers.traces);
    match (source, kind) {
        (_, Kind::Unknown) => None,
        (Source::Dead, Kind::FetchChunk) => Some((Queue::Fetch, anew(headers))),
        (Source::Dead, Kind::DeleteBatch) => Some((Queue::Delete, anew(headers))),
        (Source::Unroutable, _) => topology
            .queue(routing_key)
            .filter(|queue| *queue != Queue::Unroutable)
            .map(|queue| (queue, headers)),
    }
}

fn reason(death: Option<&Death>, headers: &Headers) -> String {
    match (death, &headers.reason) {
        // The pipeline publishes a dead letter anew, without the broker's headers: where they are
        // there, the reason beside them is that of a try before.
        (Some(death), _) => format!("{} in {}", death.reason, death.queue),
        (None, Some(reason)) => reason.clone(),
        (None, None) => "none given".to_owned(),
    }
}

/// What the broker notes when it dead-letters a message by itself, as when it was delivered too
/// often.
struct Death {
    reason: String,
    queue: String,
    at: Option<OffsetDateTime>,
}

impl Death {
    /// The newest comes first. To have expired in a delay queue is no death.
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
