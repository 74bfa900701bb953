//! A process: one boot order, the settings that every process has, and the admin port.

mod admin;
mod boot;
mod metrics;

pub use crate::metrics::METRICS;
pub use admin::{Admin, Ask, ask};
pub use boot::{ProcessConfig, ProcessContext, ProcessSettings, start, start_command};
