//! The `janitor` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    process::start(janitor::run)
}
