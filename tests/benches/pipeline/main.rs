//! Measures the pipeline, and what bounds each figure, in the same run on the same machine.
//! Run by `scripts/bench`, which brings up the servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a benchmark is run by hand, and says what went wrong by a panic"
)]

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use tests::servers::Servers;

mod accept;
mod backlog;
mod bare;
mod compare;
mod deletions;
mod drain;
mod end_to_end;
mod figure;
mod first_row;
mod form;
mod inflight;
mod load;
mod overhead;
mod plot;
mod processors;
mod report;
mod rows;
mod scale;
mod service;
mod stage;
mod statistics;
mod table;

use bare::Http;
use compare::compare;
use form::Form;
use report::Report;
use service::Part;
use stage::Trial;

/// What there is to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measurement {
    /// Callbacks answered 202, compared with a bare HTTP server and bare confirms.
    Accept,
    /// Ids from the queue to their rows, compared with bare look-ups and bare upserts.
    Drain,
    /// Callbacks at several rates through all of the pipeline.
    EndToEnd,
    /// A callback to an idle pipeline, until its first row.
    FirstRow,
    /// Look-ups in flight from a cold start on, with client services of four kinds.
    Inflight,
    /// How late rows are deleted, at several rates.
    Deletions,
    /// Replicas of the fetcher and a client service that takes its time.
    Scale,
    /// A queue of millions of ids.
    Backlog,
    /// What telemetry costs. Not among those that are measured unless it is named.
    Overhead,
}

impl Measurement {
    const USUAL: [Self; 8] = [
        Self::Accept,
        Self::Drain,
        Self::EndToEnd,
        Self::FirstRow,
        Self::Inflight,
        Self::Deletions,
        Self::Scale,
        Self::Backlog,
    ];
}

/// Measures the pipeline, and the ceiling of each figure. Keeps the tables, a plot and the raw numbers of
/// each run in a folder of target/bench. Exits with 1 if something is not reached.
#[derive(Parser)]
#[command(name = "scripts/bench")]
struct Arguments {
    /// What to measure; everything but the overhead of telemetry if nothing is named.
    measurements: Vec<Measurement>,
    /// Measure longer, more often, at more rates and with 10 million ids queued.
    #[arg(long)]
    full: bool,
    /// Try another value of a setting, such as fetcher:write-linger=5ms.
    #[arg(long, value_name = "PROCESS:SETTING=VALUE")]
    set: Vec<Trial>,
    /// Compare two runs by the names of their folders, or the last two, instead of measuring. Exits with 1
    /// if something is worse beyond noise.
    #[arg(long, value_name = "RUN", num_args = 0..=2)]
    compare: Option<Vec<String>>,
    /// Be one of the parts that the pipeline is held against, instead of measuring.
    #[arg(long, hide = true)]
    serve: Option<Part>,
    /// Keep look-ups in flight at the client service at this address, instead of measuring.
    #[arg(long, hide = true, requires = "in_flight")]
    look_up: Option<String>,
    #[arg(long, hide = true, default_value_t = 0)]
    in_flight: usize,
    #[arg(long, hide = true, default_value_t = Http::One)]
    http: Http,
    /// What cargo says to benchmarks.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    drop(rustls::crypto::ring::default_provider().install_default());
    http_server::raise_limit();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Some(part) = arguments.serve {
        runtime.block_on(service::serve(part));
        return ExitCode::SUCCESS;
    }
    if let Some(url) = arguments.look_up {
        runtime.block_on(bare::keep_looking_up(
            &url,
            arguments.http,
            arguments.in_flight,
        ));
        return ExitCode::SUCCESS;
    }
    if let Some(runs) = arguments.compare {
        return exit_code(compare(&runs));
    }
    let servers = match Servers::shared() {
        Ok(servers) => servers,
        Err(error) => {
            println!("the benchmark cannot run: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let form = if arguments.full {
        Form::full()
    } else {
        Form::short()
    };
    let chosen = if arguments.measurements.is_empty() {
        Measurement::USUAL.to_vec()
    } else {
        arguments.measurements
    };
    let mut report = Report::begin(form.name, &arguments.set);
    stage::try_settings(arguments.set);
    for measurement in chosen {
        let name = measurement.to_possible_value().unwrap();
        println!("\n== {}", name.get_name());
        let work = measure(measurement, servers, &form, &mut report);
        runtime.block_on(work);
        // At once, because what follows may fail.
        report.write();
    }
    exit_code(report.finish())
}

fn exit_code(is_well: bool) -> ExitCode {
    if is_well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn measure(measurement: Measurement, servers: &Servers, form: &Form, report: &mut Report) {
    match measurement {
        Measurement::Accept => accept::measure(servers, form, report).await,
        Measurement::Drain => drain::measure(servers, form, report).await,
        Measurement::EndToEnd => end_to_end::measure(servers, form, report).await,
        Measurement::FirstRow => first_row::measure(servers, form, report).await,
        Measurement::Inflight => inflight::measure(servers, form, report).await,
        Measurement::Deletions => deletions::measure(servers, form, report).await,
        Measurement::Scale => scale::measure(servers, form, report).await,
        Measurement::Backlog => backlog::measure(servers, form, report).await,
        Measurement::Overhead => overhead::measure(servers, form, report).await,
    }
}
