//! The `status` command, which `scripts/up` and `scripts/status` show.

use std::process::ExitCode;

use clap::Parser;
use status::{Arguments, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    run(&Arguments::parse(), &mut std::io::stdout()).await
}
