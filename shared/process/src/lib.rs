//! A process: one boot order, the settings that every process has, and the admin port.

mod admin;
mod boot;
mod config;
mod metrics;

pub use crate::metrics::METRICS;
pub use admin::{Admin, Ask, ask, ask_over_tls};
pub use boot::{start, start_command};
pub use config::{ProcessConfig, ProcessContext, ProcessSettings};
