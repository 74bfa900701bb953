//! What two or more of the pipeline's processes use.
//!
//! Reading order: [`topology`] and [`messages`] say what travels through the broker; [`publisher`]
//! and [`consumer`] how; [`boot`] how a process starts.

pub mod admin;
pub mod boot;
pub mod brake;
pub mod broker;
pub mod broker_url;
pub mod config;
mod connection;
pub mod consumer;
mod database_tls;
pub mod database_url;
mod declaration;
pub mod descriptors;
mod dial;
pub mod health;
pub mod hold;
pub mod http_server;
pub mod lag;
mod lane;
mod log_writer;
pub mod messages;
pub mod metrics;
pub mod profile;
pub mod publisher;
pub mod reason;
pub mod schema;
pub mod shutdown;
pub mod store;
mod store_error;
pub mod supervisor;
pub mod telemetry;
pub mod topology;
pub mod trace;
pub mod worker;
