//! The end-to-end tests: one process, one pair of servers, and a private world for each test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how a failed expectation is reported"
)]

mod alerts;
mod binaries;
mod broker;
mod chunks;
mod client_credentials;
mod collectors;
mod content_coding;
mod database;
mod dead_letters;
mod deletion;
mod description;
mod fetching;
mod health_checks;
mod http_contract;
mod http_wire;
mod logs;
mod metrics;
mod mock_client;
mod open_metrics;
mod outage;
mod overload;
mod panics;
mod pipeline;
mod privileges;
mod profiles;
mod proxies;
mod proxy_protocol;
mod reasons;
mod replicas;
mod schema;
mod secrets;
mod settings;
mod signatures;
mod sources;
mod spool;
mod tls_in;
mod tls_out;
mod topology;
mod traces;
