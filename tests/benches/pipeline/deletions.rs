//! Deletions at several rates, end to end: how long rows had been expired by the database's clock as the
//! deletion was being committed, before it is on the disk; and when the janitor knew that it is.

use tests::servers::Servers;
use tests::wait::eventually;
use tokio::time::Instant;

use crate::figure::{Figure, Point};
use crate::form::Form;
use crate::load::{Offer, offer};
use crate::processors::{Processors, Shares};
use crate::report::Report;
use crate::stage::{Metrics, Pipeline};

/// Ids in each callback: rows come a few at a time, so that deletions do too.
const FEW: u32 = 10;

/// Lateness of deletions, in milliseconds.
struct Lateness {
    least: f64,
    p50: f64,
    p99: f64,
    p999: f64,
    most: f64,
    /// Rows that were deleted before they had expired.
    early: f64,
    /// Until the janitor knew of the commit, on average.
    known: f64,
    processors: Shares,
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    for rate in form.deletions {
        let late = run(servers, *rate, form).await;
        let point = Point::on_curve("deletions/s", *rate);
        let figure = |name: &str, value| Figure::new("deletions", name, value, "ms").at(&point);
        report.add(figure("least", late.least));
        report.add(figure("p50", late.p50));
        report.add(figure("p99", late.p99).limit(10.0));
        report.add(figure("p99.9", late.p999));
        report.add(figure("max", late.most));
        report.add(figure("mean until the commit is known", late.known));
        let early = Figure::new("deletions", "early", late.early, "rows");
        report.add(early.at(&point).limit(0.0));
        report.add_processors(&format!("deletions, {rate}/s"), late.processors);
    }
}

async fn run(servers: &Servers, rate: u32, form: &Form) -> Lateness {
    let pipeline = Pipeline::start(servers, "3s", 1).await;
    let database = &pipeline.world.database;
    database.record_deletions().await;
    let plan = Offer {
        size: FEW,
        rate: f64::from(rate) / f64::from(FEW),
        duration: form.storing,
    };
    let (begun, processors) = (Instant::now(), Processors::watch());
    let callbacks = offer(pipeline.address, plan).await.len();
    let took = begun.elapsed();
    let processors = processors.shares();
    assert!(took < form.storing * 11 / 10, "callbacks took {took:?}");
    let rows = i64::try_from(callbacks).unwrap() * i64::from(FEW);
    eventually("all deletions", async || {
        let deleted = database.number("select count(*) from deletions").await;
        (deleted == rows).then_some(())
    })
    .await;
    let query = "
        select min(late), percentile_cont(0.5) within group (order by late),
            percentile_cont(0.99) within group (order by late),
            percentile_cont(0.999) within group (order by late), max(late)
        from deletions";
    let row = database.client.query_one(query, &[]).await.unwrap();
    let value = |column: usize| 1e3 * row.get::<_, f64>(column);
    let early = "select count(*) from deletions where late < 0";
    let page = Metrics::of(&pipeline.janitor).await.page().await;
    let sum = page.sum("callback_pipeline_object_deletion_lateness_seconds_sum");
    let count = page.sum("callback_pipeline_object_deletion_lateness_seconds_count");
    Lateness {
        least: value(0),
        p50: value(1),
        p99: value(2),
        p999: value(3),
        most: value(4),
        early: database.number(early).await as f64,
        known: 1e3 * sum / count,
        processors,
    }
}
