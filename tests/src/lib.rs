//! The harness of the end-to-end tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "in a test a panic is how a failed expectation is reported"
)]

pub mod client;
pub mod faults;
pub mod processes;
pub mod proxy;
pub mod servers;
pub mod tls;
pub mod wait;
pub mod world;
