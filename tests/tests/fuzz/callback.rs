//! The body of a callback.

use std::collections::BTreeSet;

use ingest::request::{Callback, CallbackError};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;

use crate::mutation::{mutated, mutations};
use crate::{Json, config, corpus, read, values};

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
    let members = match read(body.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(body)) {
        Json::Not => return Some(Verdict::NotJson),
        Json::Other => return Some(Verdict::WrongShape),
        Json::Beyond => return None,
        Json::Object(members) => members,
    };
    let [Value::Array(ids)] = values(&members, "object_ids")[..] else {
        return Some(Verdict::WrongShape);
    };
    let distinct: Option<BTreeSet<i64>> = ids.iter().map(id).collect();
    Some(match distinct {
        None => Verdict::WrongShape,
        Some(_) if ids.len() > IDS_LIMIT => Verdict::TooMany,
        Some(distinct) => Verdict::Accepted(distinct),
    })
}

/// What stands for minus zero is the integer 0.
fn id(value: &Value) -> Option<i64> {
    let minus_zero = |number: f64| (number.to_bits() == (-0.0_f64).to_bits()).then_some(0);
    value
        .as_i64()
        .or_else(|| value.as_f64().and_then(minus_zero))
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
