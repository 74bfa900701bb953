//! The fault suite: parts of the pipeline die, hang and lie under load, and a ledger tells what
//! became of every id that was accepted.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how a failed expectation is reported"
)]

use std::process::ExitCode;

use libtest_mimic::Arguments;
use tests::faults::{Case, Table};
use tests::servers::Servers;

mod acks;
mod broker;
mod client_service;
mod clocks;
mod database;
mod kills;
mod network;
mod random;
mod spool;
mod stops;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Cases kill the servers that all of them use.
    arguments.test_threads = Some(1);
    let servers = if arguments.list {
        None
    } else {
        match servers() {
            Ok(servers) => Some(servers),
            Err(error) => return refuse(&error),
        }
    };
    let table = Table::default();
    let cases = cases().into_iter().flatten();
    let trials = cases
        .map(|case| case.trial(servers, table.clone()))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    table.print();
    conclusion.exit_code()
}

fn cases() -> [Vec<Case>; 10] {
    [
        kills::cases(),
        stops::cases(),
        network::cases(),
        acks::cases(),
        broker::cases(),
        database::cases(),
        client_service::cases(),
        clocks::cases(),
        spool::cases(),
        random::cases(),
    ]
}

fn servers() -> anyhow::Result<&'static Servers> {
    let servers = Servers::shared()?;
    let killable = servers.broker.can_be_killed() && servers.database.can_be_killed();
    anyhow::ensure!(
        killable,
        "the servers of TEST_AMQP_URL and TEST_DATABASE_URL are not ours to kill: unset both"
    );
    Ok(servers)
}

#[expect(clippy::print_stderr, reason = "the tests' own output")]
fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("the fault suite cannot run: {error:#}");
    ExitCode::FAILURE
}
