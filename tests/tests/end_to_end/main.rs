//! The end-to-end tests: one process, one pair of servers, and a world of its own for each test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how a failed expectation is reported"
)]

use std::process::ExitCode;
use std::sync::Arc;

use http_server::raise_limit;
use libtest_mimic::Arguments;
use tests::servers::Servers;

mod alerts;
mod binaries;
mod broker;
mod content_coding;
mod database;
mod dead_letters;
mod deletion;
mod description;
mod fetching;
mod health_checks;
mod http_contract;
mod http_wire;
mod logs;
mod metrics;
mod mock_client;
mod outage;
mod overload;
mod panics;
mod pipeline;
mod profiles;
mod proxies;
mod reasons;
mod schema;
mod settings;
mod spool;
mod topology;
mod traces;

/// Tests mostly wait: more of them than processors can run at once.
const THREADS: usize = 6;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = arguments.test_threads.or(Some(THREADS));
    // Thousands of connections are among the tests.
    raise_limit();
    // The process is shared with the processes under test, which find their TLS provider installed.
    drop(rustls::crypto::ring::default_provider().install_default());
    let servers = if arguments.list {
        None
    } else {
        tests::binaries::build();
        match Servers::find_or_start() {
            Ok(servers) => Some(Arc::new(servers)),
            Err(error) => return refuse(&error),
        }
    };
    let tests = [
        http_contract::tests(),
        content_coding::tests(),
        health_checks::tests(),
        http_wire::tests(),
        proxies::possible_tests(),
        spool::tests(),
        overload::tests(),
        description::possible_tests(),
        fetching::tests(),
        outage::tests(),
        deletion::tests(),
        dead_letters::tests(),
        panics::tests(),
        topology::tests(),
        database::possible_tests(),
        schema::tests(),
        pipeline::tests(),
        mock_client::tests(),
        traces::tests(),
        binaries::tests(),
        broker::tests(),
        logs::tests(),
        reasons::tests(),
        settings::tests(),
        metrics::possible_tests(),
        alerts::possible_tests(),
        profiles::tests(),
    ];
    let trials = tests
        .into_iter()
        .flatten()
        .map(|test| test.trial(servers.clone()))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The last one standing: this removes the containers.
    drop(servers);
    conclusion.exit_code()
}

#[expect(clippy::print_stderr, reason = "the tests' own output")]
fn refuse(error: &anyhow::Error) -> ExitCode {
    eprintln!("the tests cannot run: {error:#}");
    ExitCode::FAILURE
}
