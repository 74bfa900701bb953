//! The database: its address, its schema, and statements that are bounded in time, each on a connection of a pool.

mod connect_error;
mod connection;
mod connector;
mod database_url;
mod encryption;
mod error;
mod metrics;
mod migration;
mod privileges;
mod retry;
mod schema;
mod server;
mod statement;
mod store;
mod watch;
mod wire;

pub use crate::metrics::METRICS;
pub use connection::Connection;
pub use database_url::DatabaseUrl;
pub use error::StoreError;
pub use privileges::{Privileges, Role};
pub use schema::SchemaError;
pub use statement::Statement;
pub use store::{DatabaseSettings, Parameter, Parameters, Store, Type};
