//! The bodies of messages: versioned JSON, as it travels through the broker and lies in the spool.

use std::fmt;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use time::OffsetDateTime;

/// Id of an object of the client service. Every 64-bit signed integer is one, 0 and negatives too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ObjectId(pub i64);

impl fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A chunk of ids to look up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchChunk {
    /// Distinct ids, in no particular order.
    pub object_ids: Vec<ObjectId>,
}

/// A batch of rows to delete, unless they were seen again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteBatch {
    /// When the rows were stored, by the database's clock: rows with a later `last_seen` stay.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen: OffsetDateTime,
    /// When all of the rows expire, by the database's clock. Messages of older versions lack it: they
    /// arrived after the rows had expired.
    #[serde(
        default,
        with = "time::serde::rfc3339::option",
        skip_serializing_if = "Option::is_none"
    )]
    pub expires_at: Option<OffsetDateTime>,
    /// Distinct ids, in no particular order.
    pub object_ids: Vec<ObjectId>,
}

/// A body that travels through the broker.
pub trait Message: Serialize + DeserializeOwned {
    /// Version of the body's shape. A reader refuses the versions that it does not know.
    const VERSION: u32;
    /// Name of the body's type, as the AMQP property `type` gives it.
    const KIND: &'static str;
}

impl Message for FetchChunk {
    const VERSION: u32 = 1;
    const KIND: &'static str = "fetch_chunk";
}

impl Message for DeleteBatch {
    const VERSION: u32 = 1;
    const KIND: &'static str = "delete_batch";
}

/// Why a body cannot be read.
#[derive(Debug, Error)]
pub enum MessageError {
    /// Not the JSON of this message.
    #[error("unreadable {kind}: {source}")]
    Malformed {
        /// Type of message that was expected.
        kind: &'static str,
        /// What the parser found.
        source: serde_json::Error,
    },
    /// Written by a version that this binary does not know.
    #[error("{kind} has version {found}, this binary reads version {known}")]
    Version {
        /// Type of message that was expected.
        kind: &'static str,
        /// The version in the body.
        found: u32,
        /// The version that this binary reads.
        known: u32,
    },
}

#[derive(Serialize)]
struct VersionedBody<'a, M> {
    version: u32,
    #[serde(flatten)]
    body: &'a M,
}

#[derive(Deserialize)]
struct VersionOnly {
    version: u32,
}

/// Writes a body.
///
/// # Errors
/// A field cannot be written as JSON, such as a year with five digits.
pub fn encode<M: Message>(body: &M) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&VersionedBody {
        version: M::VERSION,
        body,
    })
}

/// Reads a body.
///
/// # Errors
/// [`MessageError`] for what is not the JSON of an `M` in its known version.
pub fn decode<M: Message>(payload: &[u8]) -> Result<M, MessageError> {
    let malformed = |source| MessageError::Malformed {
        kind: M::KIND,
        source,
    };
    // The parser would also take an array of the members in their order.
    if !payload.trim_ascii_start().starts_with(b"{") {
        return Err(malformed(serde_json::Error::custom("not an object")));
    }
    let VersionOnly { version } = serde_json::from_slice(payload).map_err(malformed)?;
    if version != M::VERSION {
        return Err(MessageError::Version {
            kind: M::KIND,
            found: version,
            known: M::VERSION,
        });
    }
    serde_json::from_slice(payload).map_err(malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    fn ids(ids: &[i64]) -> Vec<ObjectId> {
        ids.iter().copied().map(ObjectId).collect()
    }

    #[test]
    fn a_fetch_chunk_is_written_as_it_always_was() {
        let chunk = FetchChunk {
            object_ids: ids(&[0, -1, i64::MAX, i64::MIN]),
        };
        let golden =
            br#"{"version":1,"object_ids":[0,-1,9223372036854775807,-9223372036854775808]}"#;
        assert_eq!(encode(&chunk).unwrap(), golden);
        assert_eq!(decode::<FetchChunk>(golden).unwrap(), chunk);
    }

    #[test]
    fn a_delete_batch_says_when_its_rows_expire() {
        let batch = DeleteBatch {
            last_seen: datetime!(2026-11-21 12:34:56.123456 UTC),
            expires_at: Some(datetime!(2026-11-21 12:35:26.123456 UTC)),
            object_ids: ids(&[7]),
        };
        let golden = br#"{"version":1,"last_seen":"2026-11-21T12:34:56.123456Z","expires_at":"2026-11-21T12:35:26.123456Z","object_ids":[7]}"#;
        assert_eq!(encode(&batch).unwrap(), golden);
        assert_eq!(decode::<DeleteBatch>(golden).unwrap(), batch);
    }

    #[test]
    fn a_delete_batch_that_does_not_say_when_its_rows_expire_is_read_and_written_as_it_always_was()
    {
        let batch = DeleteBatch {
            last_seen: datetime!(2026-11-21 12:34:56.123456 UTC),
            expires_at: None,
            object_ids: ids(&[7]),
        };
        let golden = br#"{"version":1,"last_seen":"2026-11-21T12:34:56.123456Z","object_ids":[7]}"#;
        assert_eq!(encode(&batch).unwrap(), golden);
        assert_eq!(decode::<DeleteBatch>(golden).unwrap(), batch);
    }

    #[test]
    fn a_body_of_another_version_is_refused_by_its_number() {
        let error = decode::<FetchChunk>(br#"{"version":2,"ids":[]}"#).unwrap_err();
        assert!(
            matches!(
                error,
                MessageError::Version {
                    found: 2,
                    known: 1,
                    ..
                }
            ),
            "{error}"
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(payload: Vec<u8>) {
            prop_assert!(decode::<FetchChunk>(&payload).is_err());
            prop_assert!(decode::<DeleteBatch>(&payload).is_err());
        }

        #[test]
        fn every_id_survives_the_round_trip(raw: Vec<i64>) {
            let chunk = FetchChunk { object_ids: ids(&raw) };
            prop_assert_eq!(decode::<FetchChunk>(&encode(&chunk).unwrap()).unwrap(), chunk);
        }
    }
}
