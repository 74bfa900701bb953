//! Reading a callback: `{"object_ids":[1,2,3]}`.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use shared::messages::{ObjectId, shortened};
use thiserror::Error;

/// A callback whose ids are known to be valid and distinct. Only [`Callback::parse`] makes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callback {
    object_ids: Vec<ObjectId>,
}

/// Why a body is not a callback.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CallbackError {
    /// The body is not JSON.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// The body is JSON of another shape; says which member, and where.
    #[error("{0}")]
    WrongShape(String),
    /// There are more ids than a callback may have.
    #[error("object_ids has {found} ids, {limit} are allowed; send several callbacks")]
    TooManyIds {
        /// How many ids there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
}

impl Callback {
    /// Reads the body of a request. A byte order mark is skipped, unknown members are ignored, and
    /// an id that stands several times counts once.
    ///
    /// # Errors
    /// [`CallbackError`], for the first thing that is wrong.
    pub fn parse(body: &[u8], ids_limit: usize) -> Result<Self, CallbackError> {
        const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let Body { mut object_ids } =
            serde_json::from_slice(body).map_err(|error| explain(body, &error))?;
        if object_ids.len() > ids_limit {
            return Err(CallbackError::TooManyIds {
                found: object_ids.len(),
                limit: ids_limit,
            });
        }
        object_ids.sort_unstable();
        object_ids.dedup();
        Ok(Self { object_ids })
    }

    /// The distinct ids, in ascending order.
    #[must_use]
    pub fn object_ids(&self) -> &[ObjectId] {
        &self.object_ids
    }

    /// The same, for whoever makes them safe.
    #[must_use]
    pub fn into_object_ids(self) -> Vec<ObjectId> {
        self.object_ids
    }
}

/// Tells what is not JSON from JSON of another shape. The parser stops at the first thing it does
/// not expect, which says nothing of the rest of the body.
fn explain(body: &[u8], error: &serde_json::Error) -> CallbackError {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(syntax) => CallbackError::NotJson(syntax.to_string()),
        Ok(_) => CallbackError::WrongShape(shortened(&error.to_string())),
    }
}

struct Body {
    object_ids: Vec<ObjectId>,
}

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    ObjectIds,
    #[serde(other)]
    Unknown,
}

impl<'de> Deserialize<'de> for Body {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not a derived struct, which would also take an array for an object.
        deserializer.deserialize_map(BodyVisitor)
    }
}

struct BodyVisitor;

impl<'de> Visitor<'de> for BodyVisitor {
    type Value = Body;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with the member object_ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Body, A::Error> {
        let mut object_ids = None;
        while let Some(member) = map.next_key()? {
            match member {
                Member::ObjectIds if object_ids.is_some() => {
                    return Err(A::Error::custom("object_ids stands twice; send it once"));
                }
                Member::ObjectIds => object_ids = Some(map.next_value::<Ids>()?.0),
                Member::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let object_ids =
            object_ids.ok_or_else(|| A::Error::custom("the member object_ids is missing"))?;
        Ok(Body { object_ids })
    }
}

struct Ids(Vec<ObjectId>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdsVisitor)
    }
}

struct IdsVisitor;

impl<'de> Visitor<'de> for IdsVisitor {
    type Value = Ids;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of integers as object_ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Ids, A::Error> {
        let mut ids = Vec::new();
        loop {
            let position = ids.len();
            let named = |error| A::Error::custom(format_args!("object_ids[{position}]: {error}"));
            match array.next_element::<Id>().map_err(named)? {
                Some(Id(id)) => ids.push(ObjectId(id)),
                None => return Ok(Ids(ids)),
            }
        }
    }
}

struct Id(i64);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an integer from {} to {}", i64::MIN, i64::MAX)
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<Id, E> {
        Ok(Id(id))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Id, E> {
        i64::try_from(id)
            .map(Id)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(id), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Id, E> {
        // The parser reads the integer -0 as a float.
        if number == 0.0 && number.is_sign_negative() {
            return Ok(Id(0));
        }
        Err(E::invalid_value(
            serde::de::Unexpected::Float(number),
            &self,
        ))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: usize = 1_000;

    fn parse(body: &str) -> Result<Vec<i64>, CallbackError> {
        Callback::parse(body.as_bytes(), LIMIT)
            .map(|callback| callback.object_ids().iter().map(|id| id.0).collect())
    }

    fn wrong_shape(body: &str) -> String {
        match parse(body) {
            Err(CallbackError::WrongShape(message)) => message,
            other => panic!("{body} gave {other:?}"),
        }
    }

    #[test]
    fn every_64_bit_integer_is_an_id() {
        let body = r#"{"object_ids":[0,-0,-1,9223372036854775807,-9223372036854775808]}"#;
        assert_eq!(parse(body), Ok(vec![i64::MIN, -1, 0, i64::MAX]));
    }

    #[test]
    fn duplicates_count_once_and_an_empty_array_is_a_callback() {
        assert_eq!(parse(r#"{"object_ids":[3,1,3,3,1]}"#), Ok(vec![1, 3]));
        assert_eq!(parse(r#"{"object_ids":[]}"#), Ok(vec![]));
    }

    #[test]
    fn one_byte_order_mark_is_skipped() {
        assert_eq!(parse("\u{feff}{\"object_ids\":[1]}"), Ok(vec![1]));
        assert_eq!(parse("\u{feff} \n{\"object_ids\":[]}"), Ok(vec![]));
        for body in ["\u{feff}", "\u{feff}\u{feff}{}", "{\u{feff}}", "\u{fffe}{}"] {
            assert!(
                matches!(parse(body), Err(CallbackError::NotJson(_))),
                "{body:?}"
            );
        }
    }

    #[test]
    fn unknown_members_are_ignored_however_deep_they_nest() {
        let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
        assert_eq!(
            parse(&format!(r#"{{"a":{deep},"object_ids":[7],"b":null}}"#)),
            Ok(vec![7])
        );
    }

    #[test]
    fn what_is_not_json_is_told_from_json_of_another_shape() {
        for body in [
            "",
            "{",
            "nonsense",
            r#"{"object_ids":["x"}"#,
            r#"{"object_ids":[1]} x"#,
            "{\"object_ids\":[01]}",
        ] {
            assert!(
                matches!(parse(body), Err(CallbackError::NotJson(_))),
                "{body} gave {:?}",
                parse(body)
            );
        }
        for body in [
            "null",
            "[]",
            "[[1]]",
            "3",
            r#""x""#,
            "{}",
            r#"{"object_ids":{}}"#,
            r#"{"object_ids":1}"#,
        ] {
            wrong_shape(body);
        }
    }

    #[test]
    fn the_message_names_the_member_and_the_position() {
        for element in [
            "1.5",
            "1e3",
            "9223372036854775808",
            "-9223372036854775809",
            "1e999",
            r#""1""#,
            "null",
            "[1]",
            "true",
        ] {
            let message = wrong_shape(&format!(r#"{{"object_ids":[1,2,{element}]}}"#));
            assert!(
                message.starts_with("object_ids[2]: ") && message.contains("line 1"),
                "{message}"
            );
        }
        assert!(wrong_shape(r#"{"object_ids":1}"#).contains("object_ids"));
        assert!(wrong_shape(r#"{"ids":[1]}"#).contains("object_ids is missing"));
        assert!(wrong_shape(r#"{"object_ids":[1],"object_ids":[2]}"#).contains("twice"));
    }

    #[test]
    fn the_message_stays_short_when_the_body_is_long() {
        let body = format!(r#"{{"object_ids":["{}"]}}"#, "x".repeat(100_000));
        assert!(wrong_shape(&body).len() < 300);
    }

    #[test]
    fn more_ids_than_allowed_are_refused_whole() {
        let ids = vec!["1"; LIMIT + 1].join(",");
        let error = parse(&format!(r#"{{"object_ids":[{ids}]}}"#));
        assert_eq!(
            error,
            Err(CallbackError::TooManyIds {
                found: LIMIT + 1,
                limit: LIMIT
            })
        );
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(body: Vec<u8>) {
            prop_assert!(Callback::parse(&body, LIMIT).is_err());
        }

        #[test]
        fn the_verdict_on_json_agrees_with_a_json_parser(body in r#"[\[\]{}":,0-9a-z\\. -]{0,40}"#) {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(&body).is_ok();
            match parse(&body) {
                Ok(_) | Err(CallbackError::WrongShape(_) | CallbackError::TooManyIds { .. }) => prop_assert!(is_json),
                Err(CallbackError::NotJson(_)) => prop_assert!(!is_json),
            }
        }

        #[test]
        fn the_ids_accepted_are_the_distinct_ids_sent(ids in proptest::collection::vec(any::<i64>(), 0..LIMIT)) {
            let body = serde_json::json!({ "object_ids": ids }).to_string();
            let distinct: std::collections::BTreeSet<i64> = ids.into_iter().collect();
            prop_assert_eq!(parse(&body), Ok(distinct.into_iter().collect::<Vec<_>>()));
        }
    }
}
