//! How late rows are deleted: how long they had been expired by the database's clock as the deletion
//! was being committed, before it is on the disk; and when the janitor knew that it is.

use tests::servers::Servers;
use tests::wait::eventually;
use tokio::time::Instant;

use crate::form::Form;
use crate::load::{Offer, offer};
use crate::report::{Figure, Report};
use crate::stage::{Metrics, Pipeline};

/// Ids in each callback: rows come a few at a time, so that deletions do too.
const FEW: u32 = 10;

/// Lateness of deletions, in milliseconds.
struct Lateness {
    least: f64,
    p50: f64,
    p99: f64,
    most: f64,
    /// Until the janitor knew of the commit, on average.
    known: f64,
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    for rate in form.deletions {
        let late = run(servers, *rate, form).await;
        let figure = |what: &str, value| {
            let name = format!("{what}, {rate} deletions/s");
            Figure::new("late", name, value, "ms")
        };
        report.add(figure("least", late.least).no_less_than(0.0));
        report.add(figure("p50", late.p50));
        report.add(figure("p99", late.p99).limit(10.0));
        report.add(figure("max", late.most));
        report.add(figure("mean until the commit is known", late.known));
    }
}

async fn run(servers: &Servers, rate: u32, form: &Form) -> Lateness {
    let pipeline = Pipeline::start(servers, "3s").await;
    let database = &pipeline.world.database;
    database.record_deletions().await;
    let plan = Offer {
        size: FEW,
        rate: f64::from(rate) / f64::from(FEW),
        duration: form.storing,
    };
    let begun = Instant::now();
    let callbacks = offer(pipeline.address, plan).await.len();
    let took = begun.elapsed();
    assert!(took < form.storing * 11 / 10, "callbacks took {took:?}");
    let rows = i64::try_from(callbacks).unwrap() * i64::from(FEW);
    eventually("all deletions", async || {
        let deleted = database.number("select count(*) from deletions").await;
        (deleted == rows).then_some(())
    })
    .await;
    let query = "
        select min(late), percentile_cont(0.5) within group (order by late),
            percentile_cont(0.99) within group (order by late), max(late)
        from deletions";
    let metrics = Metrics::of(&pipeline.janitor).await;
    let sum = metrics.sum("object_deletion_lateness_seconds_sum").await;
    let count = metrics.sum("object_deletion_lateness_seconds_count").await;
    let row = database.client.query_one(query, &[]).await.unwrap();
    let value = |column: usize| 1e3 * row.get::<_, f64>(column);
    let late = Lateness {
        least: value(0),
        p50: value(1),
        p99: value(2),
        most: value(3),
        known: 1e3 * sum / count,
    };
    println!(
        "{rate} deletions/s: p50 {:.1} ms, p99 {:.1} ms",
        late.p50, late.p99
    );
    late
}
