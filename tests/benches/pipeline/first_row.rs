//! A callback to a pipeline that has nothing else to do: how long it takes from the request to its first
//! row, and to its last.

use tests::servers::Servers;

use crate::figure::{Figure, Point};
use crate::form::Form;
use crate::load::{CALLBACK, Offer, Posted, offer};
use crate::processors::Processors;
use crate::report::Report;
use crate::rows::{Rows, Seen};
use crate::stage::Pipeline;
use crate::statistics::Durations;

/// Callbacks in a second, so few that each has the pipeline to itself.
const RATE: f64 = 20.0;
/// Callbacks that do not count: connections are opened then.
const WARM: usize = 20;
/// Numbers of replicas of the fetcher.
const REPLICAS: [u32; 2] = [1, 4];

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    for replicas in REPLICAS {
        let point = Point::kind("callback of 200 ids", &format!("{replicas} replicas"));
        let pipeline = Pipeline::start(servers, "1h", replicas).await;
        let rows = Rows::watch(&pipeline.world, "true").await;
        let processors = Processors::watch();
        let plan = Offer {
            size: CALLBACK,
            rate: RATE,
            duration: form.idling,
        };
        let posted = offer(pipeline.address, plan).await;
        let seen = rows.until_seen(posted.len(), CALLBACK).await;
        report.add_processors(&format!("first-row, {}", point.label), processors.shares());
        let after = |when: fn(&Seen) -> tokio::time::Instant| -> Durations {
            let both = posted.iter().zip(&seen).skip(WARM);
            both.map(|(posted, seen): (&Posted, _)| when(seen) - posted.sent)
                .collect()
        };
        for (row, after) in [
            ("first row", after(|seen| seen.first)),
            ("last row", after(|seen| seen.last)),
        ] {
            for (percentile, share) in [("p50", 0.5), ("p99", 0.99)] {
                let name = format!("{percentile} to the {row}");
                let value = after.percentile(share);
                report.add(Figure::new("first-row", name, value, "ms").at(&point));
            }
        }
    }
}
