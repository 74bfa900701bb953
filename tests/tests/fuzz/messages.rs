//! The bodies of messages.

use messages::{DeleteBatch, FetchChunk, Message, MessageError, ObjectId, decode};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::mutation::{mutated, mutations};
use crate::{Json, config, corpus, read, values};

#[derive(Debug, PartialEq)]
enum Verdict<M> {
    Accepted(M),
    OtherVersion(u32),
    Malformed,
}

fn verdict<M: Message>(body: &[u8]) -> Verdict<M> {
    match decode(body) {
        Ok(message) => Verdict::Accepted(message),
        Err(MessageError::Version { found, .. }) => Verdict::OtherVersion(found),
        Err(MessageError::Malformed { .. }) => Verdict::Malformed,
    }
}

/// None where the oracle does not know. `build` makes the message of its members.
fn oracle<M>(body: &[u8], build: impl Fn(&[(String, Value)]) -> Option<M>) -> Option<Verdict<M>> {
    let members = match read(body) {
        Json::Not | Json::Other => return Some(Verdict::Malformed),
        Json::Beyond => return None,
        Json::Object(members) => members,
    };
    let version = match values(&members, "version")[..] {
        [version] => version
            .as_u64()
            .and_then(|version| u32::try_from(version).ok()),
        _ => None,
    };
    Some(match version {
        Some(1) => build(&members).map_or(Verdict::Malformed, Verdict::Accepted),
        Some(other) => Verdict::OtherVersion(other),
        None => Verdict::Malformed,
    })
}

fn object_ids(members: &[(String, Value)]) -> Option<Vec<ObjectId>> {
    let [Value::Array(ids)] = values(members, "object_ids")[..] else {
        return None;
    };
    ids.iter().map(|id| id.as_i64().map(ObjectId)).collect()
}

fn fetch_chunk(members: &[(String, Value)]) -> Option<FetchChunk> {
    let object_ids = object_ids(members)?;
    Some(FetchChunk { object_ids })
}

fn delete_batch(members: &[(String, Value)]) -> Option<DeleteBatch> {
    let [Value::String(last_seen)] = values(members, "last_seen")[..] else {
        return None;
    };
    let expires_at = match values(members, "expires_at")[..] {
        [] | [Value::Null] => None,
        [Value::String(expires_at)] => Some(OffsetDateTime::parse(expires_at, &Rfc3339).ok()?),
        _ => return None,
    };
    Some(DeleteBatch {
        last_seen: OffsetDateTime::parse(last_seen, &Rfc3339).ok()?,
        expires_at,
        object_ids: object_ids(members)?,
    })
}

fn replay<M: Message + PartialEq + std::fmt::Debug>(
    build: impl Fn(&[(String, Value)]) -> Option<M>,
) {
    let bodies = corpus(M::KIND);
    assert!(bodies.len() > 5);
    for (name, body) in bodies {
        let verdict = verdict::<M>(&body);
        let word = match verdict {
            Verdict::Accepted(_) => "accepted",
            Verdict::OtherVersion(_) => "other-version",
            Verdict::Malformed => "malformed",
        };
        assert!(name.starts_with(word), "{name}: {verdict:?}");
        if let Some(known) = oracle(&body, &build) {
            assert_eq!(verdict, known, "{name}");
        }
    }
}

fn mutate<M: Message + PartialEq + std::fmt::Debug>(
    build: impl Fn(&[(String, Value)]) -> Option<M>,
) {
    let bodies = corpus(M::KIND);
    proptest!(config(), |(body: Index, mutations in mutations())| {
        let body = mutated(&bodies, body, &mutations);
        let verdict = verdict::<M>(&body);
        if let Some(known) = oracle(&body, &build) {
            prop_assert_eq!(verdict, known, "{:?}", String::from_utf8_lossy(&body));
        }
    });
}

#[test]
fn the_corpora_have_the_verdicts_that_their_names_say() {
    replay(fetch_chunk);
    replay(delete_batch);
}

#[test]
fn mutations_of_fetch_chunks_have_the_verdict_of_the_oracle() {
    mutate(fetch_chunk);
}

#[test]
fn mutations_of_delete_batches_have_the_verdict_of_the_oracle() {
    mutate(delete_batch);
}
