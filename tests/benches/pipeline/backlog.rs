//! A queue of millions of ids: whether a fetcher drains it as fast as a short one, and in how much
//! memory.

use tests::servers::Servers;
use tests::world::World;
use trace::TraceSet;

use crate::drain::fetch;
use crate::figure::Figure;
use crate::form::Form;
use crate::report::Report;
use crate::stage::{self, Metrics};
use crate::statistics::median;

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    let broker = servers.broker_metrics.map(Metrics::at);
    let memory = async || match &broker {
        Some(broker) => broker.sum("rabbitmq_process_resident_memory_bytes").await / 1_048_576.0,
        None => f64::NAN,
    };
    let counted = form.drained;
    let before = memory().await;
    let mut world = World::create(servers).await;
    stage::queue(&world, form.backlog, |_| TraceSet::default()).await;
    let queued = memory().await;
    println!("{} ids are queued", form.backlog);
    let (mut empty, mut full) = (Vec::new(), Vec::new());
    for _ in 0..form.rounds {
        full.push(fetch(&mut world, counted, &[]).await);
        let mut other = World::create(servers).await;
        stage::queue(&other, counted, |_| TraceSet::default()).await;
        empty.push(fetch(&mut other, counted, &[]).await);
    }
    let after = memory().await;
    let of_empty = median(empty.iter().map(|drained| drained.rate));
    let ratios = full
        .iter()
        .zip(&empty)
        .map(|(full, empty)| full.rate / empty.rate);
    let name = format!("ids, {} million queued", form.backlog / 1_000_000);
    let rates = full.iter().map(|drained| drained.rate);
    let ids = Figure::of_rounds("backlog", name, rates, "/s");
    let ids = ids.beside("a short queue", of_empty);
    report.add(ids.with_ratio(median(ratios)).at_least(0.9));
    report.add_processors("backlog", full[0].processors.clone());
    let resident = median(full.iter().map(|drained| drained.used.memory));
    let of_empty = median(empty.iter().map(|drained| drained.used.memory));
    let peak = Figure::new("backlog", "memory of fetcher, peak", resident, "MiB");
    report.add(peak.beside("a short queue", of_empty).at_most(1.1));
    for (what, value) in [("empty", before), ("queued", queued), ("draining", after)] {
        let name = format!("memory of the broker, {what}");
        report.add(Figure::new("backlog", name, value, "MiB"));
    }
}
