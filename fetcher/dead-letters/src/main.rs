//! The `dead-letters` command.

use std::process::ExitCode;

use dead_letters::{ABOUT, NAME, run};

fn main() -> ExitCode {
    process::start_command(NAME, ABOUT, run)
}
