//! The scripts on machines that lack something, that have old versions or taken ports, and on this one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how a failed expectation is reported"
)]

#[path = "scripts/digests.rs"]
mod digests;
#[path = "scripts/needs.rs"]
mod needs;
#[path = "scripts/pipeline.rs"]
mod pipeline;
#[path = "scripts/ports.rs"]
mod ports;
#[path = "scripts/pulls.rs"]
mod pulls;
#[path = "scripts/sandbox.rs"]
mod sandbox;
