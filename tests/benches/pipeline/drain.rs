//! Ids that wait in the queue, looked up at a client service that answers at once, and stored.

use tests::servers::Servers;
use tests::wait::eventually;
use tests::world::World;
use tokio::time::Instant;
use trace::TraceSet;

use crate::bare::{Http, in_place, look_ups, upserts};
use crate::figure::Figure;
use crate::form::Form;
use crate::processors::{Processors, Shares};
use crate::report::{Report, Used};
use crate::service::{Bare, Part};
use crate::stage::{self, has_table};
use crate::statistics::median;

/// Look-ups at once and rows in a statement, as the fetcher has them by default.
const CONCURRENCY: usize = 512;
const BATCH: u32 = 1_000;
const STATEMENTS: usize = 2;

/// What a fetcher did.
#[derive(Clone, Debug)]
pub(crate) struct Drained {
    /// Ids a second, from the queue to their rows.
    pub(crate) rate: f64,
    /// What it took for that.
    pub(crate) used: Used,
    pub(crate) processors: Shares,
}

/// Rows that were stored without a fetcher.
struct Upserts {
    new: f64,
    again: f64,
    in_place: f64,
}

/// One round.
struct Round {
    ours: Drained,
    look_ups: f64,
    upserts: f64,
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    for (http, goal) in [(Http::One, 0.6), (Http::Two, 0.6)] {
        let mut rounds = Vec::new();
        for number in 1..=form.rounds {
            let round = round(servers, http, form.drained).await;
            let rate = round.ours.rate;
            println!(
                "round {number} of {}, HTTP/{http}: {rate:.0} ids/s",
                form.rounds
            );
            rounds.push(round);
        }
        add(&rounds, http, goal, report);
    }
    upserts_again(servers, form.drained, report).await;
}

async fn round(servers: &Servers, http: Http, ids: u32) -> Round {
    let mut world = World::create(servers).await;
    stage::queue(&world, ids, |_| TraceSet::default()).await;
    let ours = fetch(&mut world, ids, &[http.flag()]).await;
    let objects = Bare::start(Part::Objects).await;
    Round {
        ours,
        look_ups: look_ups(&objects.url(), http, ids, CONCURRENCY).await,
        upserts: bare_upserts(servers, ids).await.new,
    }
}

fn add(rounds: &[Round], http: Http, goal: f64, report: &mut Report) {
    let of = |what: fn(&Round) -> f64| median(rounds.iter().map(what));
    let ids = rounds.iter().map(|round| round.ours.rate);
    let ids = Figure::of_rounds("drain", format!("ids, HTTP/{http}"), ids, "/s");
    let look_ups = of(|round| round.look_ups);
    let of_look_ups = of(|round| round.ours.rate / round.look_ups);
    let upserts = of(|round| round.upserts);
    let of_upserts = of(|round| round.ours.rate / round.upserts);
    let ceilings = [
        ("bare look-ups", look_ups, of_look_ups),
        ("bare upserts", upserts, of_upserts),
    ];
    report.add_rate(&ids, &ceilings, goal);
    let used = Used::median(rounds.iter().map(|round| round.ours.used));
    report.add_process("drain", &format!("fetcher, HTTP/{http}"), used);
    let processors = rounds[0].ours.processors.clone();
    report.add_processors(&format!("drain, HTTP/{http}"), processors);
}

async fn upserts_again(servers: &Servers, ids: u32, report: &mut Report) {
    let upserts = bare_upserts(servers, ids).await;
    let name = "bare upserts of rows that are there";
    let again = Figure::new("drain", name, upserts.again, "/s");
    report.add(again.beside("of new rows", upserts.new));
    let name = "of those, changed in place (HOT)";
    report.add(Figure::new("drain", name, upserts.in_place, "of all"));
}

/// Starts a fetcher, and measures until it has stored `ids` of what is in the queue.
pub(crate) async fn fetch(world: &mut World, ids: u32, flags: &[String]) -> Drained {
    let objects = Bare::start(Part::Objects).await;
    let mut settings = vec!["--object-ttl=1h".to_owned()];
    settings.extend_from_slice(flags);
    let rows = async |world: &World| {
        if has_table(world).await {
            world.database.number("select count(*) from objects").await
        } else {
            0
        }
    };
    let before = rows(world).await;
    let process = stage::fetcher(world, &objects.url(), &settings);
    let until_answered = async |count: u32| {
        eventually("look-ups", async || {
            let answered = objects.answered().await;
            (answered >= count).then_some(answered)
        })
        .await
    };
    // The start of the process does not count.
    let first = until_answered(ids / 10).await;
    let begun = (Instant::now(), process.processor_time());
    let processors = Processors::watch();
    until_answered(ids).await;
    eventually("the rows", async || {
        (rows(world).await - before >= i64::from(ids)).then_some(())
    })
    .await;
    let counted = f64::from(ids - first);
    let elapsed = begun.0.elapsed();
    Drained {
        rate: counted / elapsed.as_secs_f64(),
        used: Used::since(begun.1, &process, counted),
        processors: processors.shares(),
    }
}

/// New rows a second, those rows again a second, and the share of these that changed in place.
async fn bare_upserts(servers: &Servers, ids: u32) -> Upserts {
    let mut world = World::create(servers).await;
    // The janitor makes the table.
    world.janitor(&[]).await;
    let store = async || upserts(&world.database.url, ids, BATCH, STATEMENTS).await;
    let (new, again) = (store().await, store().await);
    let in_place = in_place(&world).await;
    Upserts {
        new,
        again,
        in_place,
    }
}
