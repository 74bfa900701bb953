//! Callbacks at several rates through the whole pipeline: whether it keeps up, how long an id takes
//! from the 202 to its row, and what that costs.

use std::time::Duration;

use tests::processes::Process;
use tests::servers::Servers;
use tokio::time::Instant;

use crate::figure::{Figure, Point};
use crate::form::Form;
use crate::load::{CALLBACK, Offer, offer};
use crate::processors::{Processors, Shares};
use crate::report::{Report, Used};
use crate::rows::Rows;
use crate::stage::Pipeline;
use crate::statistics::{Durations, milliseconds};

/// Callbacks of the first moments do not count: connections are opened then.
const WARM: Duration = Duration::from_secs(1);

/// How long the last rows may take where the pipeline keeps up. Otherwise a queue has grown.
const KEPT_UP: Duration = Duration::from_secs(1);

/// One id of each callback is watched: another in each, because those of one chunk go together.
const WATCHED: &str = "id % 200 = callback * 37 % 200";

/// One rate.
struct Run {
    offered: u32,
    /// From the 202 to the committed row, as a reader sees it.
    to_row: Durations,
    /// From the end of the offer to the last row.
    tail: Duration,
    /// What each process took for that.
    used: [(&'static str, Used); 3],
    processors: Shares,
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    let mut sustained: Option<Run> = None;
    for offered in form.offered {
        let run = run(servers, *offered, form.offering).await;
        let point = Point::on_curve("ids/s offered", *offered);
        let figure = |name: &str, value| Figure::new("end-to-end", name, value, "ms").at(&point);
        report.add(figure("p50 to the row", run.to_row.percentile(0.5)));
        report.add(figure("p99 to the row", run.to_row.percentile(0.99)));
        let tail = figure("last row after the end", milliseconds(run.tail));
        report.add(tail.limit(milliseconds(KEPT_UP)));
        report.add_processors(&format!("end-to-end, {offered}/s"), run.processors.clone());
        if run.tail > KEPT_UP {
            println!("a queue grew: the last row came {:?} late", run.tail);
            break;
        }
        sustained = Some(run);
    }
    if let Some(run) = sustained {
        let rate = f64::from(run.offered);
        let name = "most without a growing queue";
        report.add(Figure::new("end-to-end", name, rate, "ids/s"));
        for (name, used) in run.used {
            report.add_process("end-to-end", name, used);
        }
    }
}

async fn run(servers: &Servers, offered: u32, duration: Duration) -> Run {
    let pipeline = Pipeline::start(servers, "5s", 1).await;
    let rows = Rows::watch(&pipeline.world, WATCHED).await;
    let before = processes(&pipeline).map(|(_, process)| process.processor_time());
    let (begun, processors) = (Instant::now(), Processors::watch());
    let plan = Offer {
        size: CALLBACK,
        rate: f64::from(offered) / f64::from(CALLBACK),
        duration,
    };
    let posted = offer(pipeline.address, plan).await;
    let processors = processors.shares();
    let rows = rows.until_seen(posted.len(), 1).await;
    let last_row = rows.iter().map(|seen| seen.last).max().unwrap();
    let both = posted.iter().zip(&rows);
    let warm = both.filter(|(posted, _)| posted.answered >= begun + WARM);
    // The first rows of a callback may be there before all of it is confirmed.
    let to_row = warm.map(|(posted, row)| row.last.saturating_duration_since(posted.answered));
    let ids = posted.len() as f64 * f64::from(CALLBACK);
    Run {
        offered,
        to_row: to_row.collect(),
        tail: last_row.saturating_duration_since(begun + duration),
        used: used(&pipeline, before, ids),
        processors,
    }
}

fn processes(pipeline: &Pipeline) -> [(&'static str, &Process); 3] {
    [
        ("ingest", &pipeline.ingest),
        ("fetcher", &pipeline.fetchers[0]),
        ("janitor", &pipeline.janitor),
    ]
}

fn used(pipeline: &Pipeline, before: [Duration; 3], ids: f64) -> [(&'static str, Used); 3] {
    let mut before = before.into_iter();
    processes(pipeline)
        .map(|(name, process)| (name, Used::since(before.next().unwrap(), process, ids)))
}
