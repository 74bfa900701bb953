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

/// Shows what the running pipeline does: rates, depths, in flight, spool, dead letters, lateness and
/// replicas, measured over 2 s. The exit code is 0 when all is well, and 1 when something needs
/// attention, which is in the last row.
#[derive(Debug, Parser)]
#[command(name = "status", version)]
pub struct Arguments {
    /// One line instead of a table, with what needs attention first.
    #[arg(long)]
    line: bool,
    #[command(flatten)]
    addresses: Addresses,
    /// Prefix of the names of the queues.
    #[arg(long, default_value = "")]
    queue_prefix: String,
}

/// Takes two samples, and writes what they show.
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
