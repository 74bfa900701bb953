//! Replicas of the fetcher, where the client service takes 0.3 to 4.3 s for each look-up and so is
//! the limit: twice the replicas look up twice as much.

use tests::processes::Process;
use tests::servers::Servers;
use tests::world::World;
use tokio::time::{Instant, sleep, sleep_until};
use trace::Traces;

use crate::figure::{Figure, Point};
use crate::form::Form;
use crate::processors::Processors;
use crate::report::Report;
use crate::service::{Bare, Part};
use crate::stage::{self, Metrics};

/// Ids that wait for each replica, more than it looks up.
const QUEUED: u32 = 40_000;
/// How long each replica takes until its look-ups are spread evenly over time.
const WARM: std::time::Duration = std::time::Duration::from_secs(5);

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    let mut one = None;
    for replicas in form.replicas {
        let rate = run(servers, *replicas, form, report).await;
        println!("{replicas} replicas: {rate:.0} ids/s");
        let count = *replicas as f64;
        let one = *one.get_or_insert(rate / count);
        let point = Point::on_curve("replicas", u32::try_from(*replicas).unwrap());
        let figure = Figure::new("scale", "ids", rate, "/s").at(&point);
        report.add(if *replicas == 1 {
            figure
        } else {
            figure.beside("linear", one * count).at_least(0.9)
        });
    }
}

async fn run(servers: &Servers, replicas: usize, form: &Form, report: &mut Report) -> f64 {
    let mut world = World::create(servers).await;
    let ids = QUEUED * u32::try_from(replicas).unwrap();
    stage::queue(&world, ids, |_| Traces::default()).await;
    let objects = Bare::start(Part::SlowObjects).await;
    let fetchers: Vec<Process> = (0..replicas)
        .map(|_| stage::fetcher(&mut world, &objects.url(), &[]))
        .collect();
    let mut pages = Vec::new();
    for fetcher in &fetchers {
        pages.push(Metrics::of(fetcher).await);
    }
    sleep(WARM).await;
    let (begun, processors) = (Instant::now(), Processors::watch());
    let first = stored(&pages).await;
    sleep_until(begun + form.counting).await;
    let counted = stored(&pages).await - first;
    let rate = counted / begun.elapsed().as_secs_f64();
    let what = format!("scale, {replicas} replicas");
    report.add_processors(&what, processors.shares());
    rate
}

/// All objects are online: what is not stored was not looked up, or failed.
async fn stored(pages: &[Metrics]) -> f64 {
    let mut sum = 0.0;
    for page in pages {
        sum += page.sum("callback_pipeline_objects_stored_total").await;
    }
    sum
}
