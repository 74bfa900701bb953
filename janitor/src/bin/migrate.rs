//! The `migrate` command.

use std::process::ExitCode;

use janitor::migrate::{ABOUT, NAME, run};

fn main() -> ExitCode {
    process::start_command(NAME, ABOUT, run)
}
