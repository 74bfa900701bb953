//! Changing bodies a little, as broken senders and networks would.

use proptest::prelude::*;
use proptest::sample::Index;

/// One change.
#[derive(Clone, Debug)]
pub(crate) enum Mutation {
    Flip(Index, u8),
    Cut(Index, Index),
    Repeat(Index, Index),
    Splice(Index, Index, Index),
    Insert(Index, &'static str),
}

/// What JSON is made of, and what it is not.
const TOKENS: [&str; 30] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "-",
    "0",
    "1",
    ".",
    "e",
    " ",
    "null",
    "true",
    "-0",
    "-0.0",
    "-0e5",
    "-1e-400",
    "1e999",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "\"object_ids\"",
    "\"version\":1,",
    "\"last_seen\"",
    "\"expires_at\"",
    "\u{0}",
    "\u{feff}",
];

/// Between none and a few changes.
pub(crate) fn mutations() -> impl Strategy<Value = Vec<Mutation>> {
    let index = any::<Index>;
    let mutation = prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, bits)| Mutation::Flip(at, bits)),
        (index(), index()).prop_map(|(from, to)| Mutation::Cut(from, to)),
        (index(), index()).prop_map(|(from, to)| Mutation::Repeat(from, to)),
        (index(), index(), index()).prop_map(|(other, from, at)| Mutation::Splice(other, from, at)),
        (index(), proptest::sample::select(&TOKENS[..]))
            .prop_map(|(at, token)| Mutation::Insert(at, token)),
    ];
    proptest::collection::vec(mutation, 0..4)
}

/// One of the bodies, changed.
pub(crate) fn mutated(
    bodies: &[(String, Vec<u8>)],
    body: Index,
    mutations: &[Mutation],
) -> Vec<u8> {
    let mut bytes = body.get(bodies).1.clone();
    for mutation in mutations {
        apply(&mut bytes, mutation, bodies);
    }
    bytes
}

fn apply(bytes: &mut Vec<u8>, mutation: &Mutation, bodies: &[(String, Vec<u8>)]) {
    let length = bytes.len();
    let place = |index: &Index| index.index(length + 1);
    let range = |from: &Index, to: &Index| {
        let (from, to) = (place(from), place(to));
        from.min(to)..from.max(to)
    };
    match mutation {
        Mutation::Flip(at, bits) => {
            if let Some(byte) = bytes.get_mut(place(at)) {
                *byte ^= bits;
            }
        }
        Mutation::Cut(from, to) => drop(bytes.drain(range(from, to))),
        Mutation::Repeat(from, to) => {
            let range = range(from, to);
            let repeated = bytes[range.clone()].to_vec();
            bytes.splice(range.start..range.start, repeated);
        }
        Mutation::Splice(other, from, at) => {
            let other = &other.get(bodies).1;
            bytes.truncate(place(at));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
        Mutation::Insert(at, token) => {
            let at = place(at);
            bytes.splice(at..at, token.bytes());
        }
    }
}
