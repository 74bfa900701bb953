//! The `setup` command.

use std::process::ExitCode;

use fetcher::setup::{ABOUT, NAME, run};

fn main() -> ExitCode {
    process::start_command(NAME, ABOUT, run)
}
