//! The `fetcher` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    shared::boot::start(fetcher::run)
}
