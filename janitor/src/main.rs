//! The `janitor` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::boot::start(janitor::run)
}
