//! The body of a callback.

use std::collections::BTreeSet;

use ingest::{Callback, CallbackError};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::value::RawValue;

use crate::mutation::{mutated, mutations};
use crate::{Json, Members, config, corpus, read, values};

const IDS_LIMIT: usize = 1_000;

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted(BTreeSet<i64>),
    NotJson,
    WrongShape,
    TooMany,
}

fn verdict(body: &[u8]) -> Verdict {
    match Callback::parse(body, IDS_LIMIT) {
        Ok(callback) => {
            let ids = callback.object_ids();
            assert!(ids.is_sorted_by(|a, b| a < b), "not distinct: {ids:?}");
            Verdict::Accepted(ids.iter().map(|id| id.0).collect())
        }
        Err(CallbackError::NotJson(_)) => Verdict::NotJson,
        Err(CallbackError::WrongShape(_)) => Verdict::WrongShape,
        Err(CallbackError::TooManyIds { .. }) => Verdict::TooMany,
    }
}

/// None where the oracle does not know.
fn oracle(body: &[u8]) -> Option<Verdict> {
    let body = body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body);
    match read(body) {
        Json::Not => return Some(Verdict::NotJson),
        Json::Other => return Some(Verdict::WrongShape),
        Json::Beyond => return None,
        Json::Object(_) => {}
    }
    let Members(members) = serde_json::from_slice::<Members<&RawValue>>(body).unwrap();
    let [ids] = values(&members, "object_ids")[..] else {
        return Some(Verdict::WrongShape);
    };
    let Ok(ids) = serde_json::from_str::<Vec<&RawValue>>(ids.get()) else {
        return Some(Verdict::WrongShape);
    };
    let distinct: Option<BTreeSet<i64>> = ids.iter().map(|id| as_written(id)).collect();
    Some(match distinct {
        None => Verdict::WrongShape,
        Some(_) if ids.len() > IDS_LIMIT => Verdict::TooMany,
        Some(distinct) => Verdict::Accepted(distinct),
    })
}

/// An id is what is written as an integer. JSON has no plus sign, which this would take.
fn as_written(id: &RawValue) -> Option<i64> {
    id.get().parse().ok()
}

#[test]
fn the_corpus_has_the_verdicts_that_its_names_say() {
    let bodies = corpus("callback");
    assert!(bodies.len() > 30);
    for (name, body) in bodies {
        let verdict = verdict(&body);
        let word = match verdict {
            Verdict::Accepted(_) => "accepted",
            Verdict::NotJson => "not-json",
            Verdict::WrongShape => "wrong-shape",
            Verdict::TooMany => "too-many",
        };
        assert!(name.starts_with(word), "{name}: {verdict:?}");
        if let Some(known) = oracle(&body) {
            assert_eq!(verdict, known, "{name}");
        }
    }
}

#[test]
fn mutations_have_the_verdict_of_the_oracle() {
    let bodies = corpus("callback");
    proptest!(config(), |(body: Index, mutations in mutations())| {
        let body = mutated(&bodies, body, &mutations);
        let verdict = verdict(&body);
        if let Some(known) = oracle(&body) {
            prop_assert_eq!(verdict, known, "{:?}", String::from_utf8_lossy(&body));
        }
    });
}
