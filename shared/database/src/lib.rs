//! The database: its address, its schema, and statements that are bounded in time, each on a connection of a pool.

mod connection;
mod database_url;
mod error;
mod metrics;
mod schema;
mod statement;
mod store;
mod tls;

pub use crate::metrics::METRICS;
pub use connection::Connection;
pub use database_url::DatabaseUrl;
pub use error::StoreError;
pub use schema::SchemaError;
pub use statement::Statement;
pub use store::{DatabaseSettings, Parameters, Store, Type};
