//! The `migrate` command.

use std::process::ExitCode;

use janitor::migrate::{ABOUT, NAME, run};

fn main() -> ExitCode {
    shared::boot::start_command(NAME, ABOUT, run)
}
