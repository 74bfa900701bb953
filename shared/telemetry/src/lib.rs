//! What a process reports: its log, its metrics, and profiles of its memory and processor time.

mod exposition;
mod log_lines;
mod log_writer;
mod logs;
mod process_metrics;
pub mod profile;

pub use exposition::{Exposition, Format, init_metrics};
pub use log_writer::LOG_LINES_DROPPED;
pub use logs::{
    LogFilter, LogFormat, LogSettings, finish_logs, init_logs, milliseconds, write_to_stderr,
};
