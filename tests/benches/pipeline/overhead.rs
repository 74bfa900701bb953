//! What telemetry costs: throughput with traces at ratio 0.01 and metrics, beside that with neither,
//! in turn.

use tests::servers::Servers;
use tests::servers::span_collector::SpanCollector;
use tests::world::World;
use trace::TraceSet;

use crate::figure::Figure;
use crate::form::{CONNECTIONS, Form};
use crate::report::Report;
use crate::statistics::median;
use crate::{accept, drain, stage};

/// One in so many traces is recorded.
const RECORDED: u32 = 100;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telemetry {
    On,
    Off,
}

/// Ids a second.
struct Rates {
    telemetry: Telemetry,
    accept: f64,
    drain: f64,
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    let mut measured = Vec::new();
    for round in 0..2 * form.rounds {
        let order = if round % 2 == 0 {
            [Telemetry::Off, Telemetry::On]
        } else {
            [Telemetry::On, Telemetry::Off]
        };
        for telemetry in order {
            let rates = rates(servers, form, telemetry).await;
            println!(
                "round {}: telemetry {telemetry:?}: accept {:.0} callbacks/s, drain {:.0} ids/s",
                round + 1,
                rates.accept,
                rates.drain
            );
            measured.push(rates);
        }
    }
    add(
        "accept with telemetry",
        &measured,
        |rates| rates.accept,
        report,
    );
    add(
        "drain with telemetry",
        &measured,
        |rates| rates.drain,
        report,
    );
}

/// Medians, those of the ratios round by round: the machine may be faster in one than in another.
fn add(name: &str, measured: &[Rates], what: fn(&Rates) -> f64, report: &mut Report) {
    let of = |telemetry| {
        let of = move |rates: &&Rates| rates.telemetry == telemetry;
        measured.iter().filter(of).map(what)
    };
    let (with, without) = (of(Telemetry::On), of(Telemetry::Off));
    let ratio = median(with.clone().zip(without.clone()).map(|(on, off)| on / off));
    let figure = Figure::new("overhead", name, median(with), "/s");
    let figure = figure.beside("without", median(without)).with_ratio(ratio);
    report.add(figure.at_least(0.95));
}

async fn rates(servers: &Servers, form: &Form, telemetry: Telemetry) -> Rates {
    let collector = SpanCollector::start().await;
    let flags = flags(telemetry, &collector);
    let (accepted, ..) = accept::post_to_ingest(servers, CONNECTIONS, form.accepting, &flags).await;
    let mut world = World::create(servers).await;
    stage::queue(&world, form.drained, |number| traces(telemetry, number)).await;
    let drained = drain::fetch(&mut world, form.drained, &flags).await;
    Rates {
        telemetry,
        accept: accepted.rate,
        drain: drained.rate,
    }
}

/// Those that ingest would have given to a chunk.
fn traces(telemetry: Telemetry, number: u32) -> TraceSet {
    let recorded = u8::from(number.is_multiple_of(RECORDED));
    let parent = format!("00-{:032x}-{:016x}-{recorded:02x}", number + 1, 1);
    match telemetry {
        Telemetry::On => TraceSet::from_traceparent(Some(parent)),
        Telemetry::Off => TraceSet::default(),
    }
}

fn flags(telemetry: Telemetry, collector: &SpanCollector) -> Vec<String> {
    match telemetry {
        Telemetry::On => vec![
            collector.flag(),
            "--trace-ratio=0.01".to_owned(),
            "--metrics=true".to_owned(),
        ],
        Telemetry::Off => vec![
            "--zipkin-url=off".to_owned(),
            "--trace-ratio=0".to_owned(),
            "--metrics=false".to_owned(),
        ],
    }
}
