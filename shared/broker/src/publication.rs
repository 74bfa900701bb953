//! A message on its way to a queue, and why it may not be safe there.

use bytes::Bytes;
use messages::{Message, encode};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::headers::Headers;
use crate::queue::Queue;

/// A message on its way to a queue.
#[derive(Clone, Debug)]
pub struct Publication {
    /// The queue that the message is for.
    pub queue: Queue,
    /// Type of the body, for the reader in the management UI.
    pub kind: &'static str,
    /// The encoded body.
    pub payload: Bytes,
    /// What travels with the body.
    pub headers: Headers,
}

impl Publication {
    /// Encodes `body`.
    ///
    /// # Errors
    /// A field cannot be written as JSON.
    pub fn new<M: Message>(
        queue: Queue,
        body: &M,
        headers: Headers,
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            queue,
            kind: M::KIND,
            payload: encode(body)?.into(),
            headers,
        })
    }
}

/// Why a message is not known to be safe. The broker may have it nevertheless: publish it again.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PublishError {
    /// No confirm came in time, or the connection was lost before it came.
    #[error("the broker did not confirm in time")]
    Unconfirmed,
    /// The broker blocks publishers because of an alarm. It does not have the message.
    #[error("the broker blocks publishers because of an alarm")]
    Blocked,
    /// The broker said that it could not keep the message.
    #[error("the broker refused the message")]
    Refused,
}

impl PublishError {
    /// The kind of failure, as metrics and traces name it.
    #[must_use]
    pub fn kind(self) -> &'static str {
        match self {
            Self::Unconfirmed => "unconfirmed",
            Self::Blocked => "blocked",
            Self::Refused => "refused",
        }
    }
}

/// A publication, and where its publisher waits for the confirm.
pub(crate) struct Request {
    pub(crate) publication: Publication,
    pub(crate) reply: oneshot::Sender<Result<(), PublishError>>,
    pub(crate) place: Option<OwnedSemaphorePermit>,
}
