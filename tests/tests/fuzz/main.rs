//! What is read from others, read from a corpus of interesting bodies and from mutations of them: it
//! never panics, and its verdict is that of an oracle which shares no code with the parser.
//!
//! `PROPTEST_CASES=1000000 cargo test --release -p tests --test fuzz` looks longer. A body that is
//! found belongs into the corpus, under a name that begins with its verdict.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how a failed expectation is reported"
)]

mod callback;
mod headers;
mod messages;
mod mutation;

use std::marker::PhantomData;
use std::path::Path;

use proptest::prelude::ProptestConfig;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// The bodies in a folder of the corpus, with their names.
fn corpus(folder: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(folder);
    let mut bodies: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|path| {
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            (name, std::fs::read(&path).unwrap())
        })
        .collect();
    bodies.sort();
    bodies
}

fn config() -> ProptestConfig {
    const CASES: u32 = 4_000;
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let chosen = std::env::var_os("PROPTEST_CASES").is_some();
    ProptestConfig {
        cases: if chosen { config.cases } else { CASES },
        ..config
    }
}

/// What a body is, read in the simplest way.
enum Json {
    /// No JSON.
    Not,
    /// Members of an object, in their order.
    Object(Vec<(String, Value)>),
    /// JSON of another shape.
    Other,
    /// JSON, or not, in a way that this reading cannot tell: it knows no numbers beyond those of a
    /// float, no strings that are not Unicode, and no deep nesting.
    Beyond,
}

fn read(body: &[u8]) -> Json {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Object(_)) => {
            Json::Object(serde_json::from_slice::<Members<Value>>(body).unwrap().0)
        }
        Ok(_) => Json::Other,
        Err(error) if is_beyond(body, &error) => Json::Beyond,
        Err(_) => Json::Not,
    }
}

fn is_beyond(body: &[u8], error: &serde_json::Error) -> bool {
    let escapes = body.windows(2).any(|pair| pair == b"\\u");
    let reasons = ["number out of range", "recursion limit"];
    std::str::from_utf8(body).is_err()
        || escapes
        || reasons
            .iter()
            .any(|reason| error.to_string().contains(reason))
}

/// The members of an object, also those that come twice.
struct Members<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<T>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

/// The values of the members with this name.
fn values<'a, T>(members: &'a [(String, T)], name: &str) -> Vec<&'a T> {
    let named = members.iter().filter(|(member, _)| member == name);
    named.map(|(_, value)| value).collect()
}
