//! Why there is no connection to the database.

use std::io;
use std::time::Duration;

use futures::future::join_all;
use settings::SecretError;
use tcp::{POSTGRES, advised, stranger};
use thiserror::Error;

use crate::error::{ADVICE, reason};
use crate::server::Place;

/// Why a server could not be connected to.
#[derive(Debug, Error)]
pub(crate) enum ConnectFailure {
    /// Nothing came for this long.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The network failed, or the name is not known.
    #[error("{}", reason(.0))]
    Network(#[from] io::Error),
    /// The server refused, or what answers is no such server.
    #[error("{}", reason(.0))]
    Database(#[from] tokio_postgres::Error),
    /// The server can only be read.
    #[error("it can only be read")]
    ReadOnly,
}

impl ConnectFailure {
    /// Whether what answers there may be something else than a database.
    fn may_be_a_stranger(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Database(error) => error.as_db_error().is_none(),
            Self::Network(_) | Self::ReadOnly => false,
        }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Why each of the servers could not be connected to.
    Servers(Vec<(Place, ConnectFailure)>),
    /// The address or the credentials cannot be read.
    Secret(SecretError),
}

impl From<SecretError> for ConnectError {
    fn from(error: SecretError) -> Self {
        Self::Secret(error)
    }
}

impl ConnectError {
    /// All of the reasons, with what answers where that is no database.
    pub(crate) async fn explained(&self) -> String {
        let failures = match self {
            Self::Servers(failures) => failures,
            Self::Secret(error) => return error.to_string(),
        };
        let explained = failures.iter().map(async |(place, failure)| {
            let stranger = if failure.may_be_a_stranger() {
                stranger(&place.host, place.port, POSTGRES).await
            } else {
                None
            };
            // A database that was stopped is silent too.
            let stranger = stranger.filter(|what| !what.ends_with("it says nothing"));
            let why = stranger.unwrap_or_else(|| failure.to_string());
            format!("{place}: {}", advised(why, &ADVICE))
        });
        join_all(explained).await.join("; ")
    }
}
