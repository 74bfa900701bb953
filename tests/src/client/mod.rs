//! The client on both of its sides: it posts callbacks, and its service answers look-ups.

mod client_service;
mod exposition;
mod http_client;
mod http_versions;

pub use client_service::{ClientService, Reply};
pub use exposition::{Exposition, Family};
pub(crate) use http_client::request;
pub use http_client::{
    Answer, HttpClient, Stream, exchange, post, post_ids, post_ids_with, send, until_ready,
};
pub use http_versions::{VERSIONS, ask, ask_over};
