//! What the running pipeline does: two samples of the numbers that its processes and the broker
//! expose, and what they say.

pub mod exposition;
mod numbers;
mod sample;
mod view;

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use numbers::Numbers;
use sample::{Addresses, Sample};

/// Time between the two samples, which rates are of.
const PERIOD: Duration = Duration::from_secs(2);

/// Says what the running pipeline does: rates, depths, in flight, spool, dead letters, lateness and
/// replicas. It looks for 2 s. The exit code is 0 when all is well, and 1 when something is to be
/// looked at, which is in the last row.
#[derive(Debug, Parser)]
#[command(name = "status", version)]
pub struct Arguments {
    /// One line, what is to be looked at first, instead of a table.
    #[arg(long)]
    line: bool,
    #[command(flatten)]
    addresses: Addresses,
    /// What the names of the queues begin with.
    #[arg(long, default_value = "")]
    queue_prefix: String,
}

/// Looks, and writes what there is to be seen.
///
/// # Errors
/// `output` cannot be written.
pub async fn run(arguments: &Arguments, output: &mut impl Write) -> anyhow::Result<ExitCode> {
    let before = Sample::take(&arguments.addresses).await;
    tokio::time::sleep(PERIOD).await;
    let now = Sample::take(&arguments.addresses).await;
    let numbers = Numbers::new(&before, &now, &arguments.queue_prefix);
    let (text, worries) = (
        view::text(&numbers, arguments.line),
        view::worries(&numbers),
    );
    writeln!(output, "{text}")?;
    Ok(if worries.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
