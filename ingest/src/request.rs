//! Parses callbacks: `{"object_ids":[1,2,3]}`.

use std::fmt;
use std::marker::PhantomData;

use broker::shortened;
use messages::ObjectId;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

/// What an element of `object_ids` must be.
const AN_ID: &str = "an integer from -9223372036854775808 to 9223372036854775807";

/// A callback with valid, distinct ids. Only [`Callback::parse`] makes one.
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
    /// The body is JSON of another shape. The message says which member, and where.
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
    /// Parses the body of a request. A byte order mark is skipped, unknown members are ignored, and a
    /// repeated id counts once.
    ///
    /// # Errors
    /// [`CallbackError`] for the first mistake.
    pub fn parse(body: &[u8], ids_limit: usize) -> Result<Self, CallbackError> {
        const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let CallbackBody(Ids {
            mut object_ids,
            has_minus_zero,
        }) = serde_json::from_slice(body).map_err(|error| explain(body, &error))?;
        if has_minus_zero {
            serde_json::from_slice::<CallbackBody<WrittenIds>>(body)
                .map_err(|error| explain(body, &error))?;
        }
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

    pub(crate) fn into_object_ids(self) -> Vec<ObjectId> {
        self.object_ids
    }
}

/// Distinguishes a body that is not JSON from JSON of another shape: the parser stops at the first thing
/// that it does not expect, and has not seen the rest of the body.
fn explain(body: &[u8], error: &serde_json::Error) -> CallbackError {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Err(syntax) => CallbackError::NotJson(syntax.to_string()),
        Ok(_) => CallbackError::WrongShape(shortened(&error.to_string())),
    }
}

/// The member `object_ids` of a body, read as a `T`.
struct CallbackBody<T>(T);

#[derive(serde::Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Member {
    ObjectIds,
    #[serde(other)]
    Unknown,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for CallbackBody<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not a derived struct, which would also take an array for an object.
        deserializer.deserialize_map(BodyVisitor(PhantomData))
    }
}

struct BodyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for BodyVisitor<T> {
    type Value = CallbackBody<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with the member object_ids")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<CallbackBody<T>, A::Error> {
        let mut object_ids = None;
        while let Some(member) = map.next_key()? {
            match member {
                Member::ObjectIds if object_ids.is_some() => {
                    return Err(A::Error::custom("object_ids stands twice; send it once"));
                }
                Member::ObjectIds => object_ids = Some(map.next_value()?),
                Member::Unknown => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        object_ids
            .map(CallbackBody)
            .ok_or_else(|| A::Error::custom("the member object_ids is missing"))
    }
}

struct Ids {
    object_ids: Vec<ObjectId>,
    /// Whether one of them is -0 or a number like -0.0: the parser does not tell them apart.
    has_minus_zero: bool,
}

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
        let mut ids = Ids {
            object_ids: Vec::new(),
            has_minus_zero: false,
        };
        loop {
            let position = ids.object_ids.len();
            let at_position =
                |error| A::Error::custom(format_args!("object_ids[{position}]: {error}"));
            let id = match array.next_element::<Id>().map_err(at_position)? {
                Some(Id::Integer(id)) => id,
                Some(Id::MinusZero) => {
                    ids.has_minus_zero = true;
                    0
                }
                None => return Ok(ids),
            };
            ids.object_ids.push(ObjectId(id));
        }
    }
}

enum Id {
    Integer(i64),
    MinusZero,
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(IdVisitor)
    }
}

struct IdVisitor;

impl Visitor<'_> for IdVisitor {
    type Value = Id;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(AN_ID)
    }

    fn visit_i64<E: Error>(self, id: i64) -> Result<Id, E> {
        Ok(Id::Integer(id))
    }

    fn visit_u64<E: Error>(self, id: u64) -> Result<Id, E> {
        i64::try_from(id)
            .map(Id::Integer)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(id), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Id, E> {
        if number == 0.0 && number.is_sign_negative() {
            return Ok(Id::MinusZero);
        }
        Err(E::invalid_value(
            serde::de::Unexpected::Float(number),
            &self,
        ))
    }
}

/// The ids as they are written, to tell -0, which is an integer, from -0.0, which is not.
struct WrittenIds;

impl<'de> Deserialize<'de> for WrittenIds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Self)
    }
}

impl<'de> Visitor<'de> for WrittenIds {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of integers as object_ids")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self, A::Error> {
        let mut position = 0;
        while let Some(id) = array.next_element::<&RawValue>()? {
            if id.get().contains(['.', 'e', 'E']) {
                let id = shortened(id.get());
                return Err(A::Error::custom(format_args!(
                    "object_ids[{position}]: {id} is not written as {AN_ID}"
                )));
            }
            position += 1;
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests;
