//! An object, as it travels from the client service's answer to its row.

use messages::ObjectId;
use serde::Deserialize;

/// The body of an answer about an object; other members are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Object {
    /// Id of the object.
    pub id: ObjectId,
    /// Whether it is to be stored.
    pub online: bool,
}
