//! The `dead-letters` command.

use std::process::ExitCode;

use fetcher::dead_letters::{ABOUT, NAME, run};

fn main() -> ExitCode {
    shared::boot::start_command(NAME, ABOUT, run)
}
