//! The `fetcher` process.

use std::process::ExitCode;

fn main() -> ExitCode {
    process::start(fetcher::run)
}
