//! The harness of the end-to-end tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::missing_panics_doc,
    reason = "in a test a panic is how a failed expectation is reported"
)]

pub mod binaries;
pub mod broker;
pub mod case;
pub mod client_service;
pub mod database;
pub mod exposition;
pub mod fate;
pub mod fault_world;
pub mod http_client;
pub mod ledger;
pub mod load;
pub mod parts;
pub mod process;
pub mod programs;
pub mod prometheus;
pub mod proxy;
pub mod server;
pub mod servers;
pub mod serving;
pub mod span_collector;
pub mod traced;
pub mod versions;
pub mod wait;
pub mod ways;
pub mod world;
