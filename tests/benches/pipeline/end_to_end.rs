//! Callbacks at several rates through the whole pipeline: whether it keeps up, how long an id takes
//! from the 202 to its row, and what that costs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tests::processes::Process;
use tests::servers::Servers;
use tests::world::World;
use tokio::time::Instant;
use tokio_postgres::{AsyncMessage, NoTls};

use crate::form::Form;
use crate::load::{CALLBACK, Offer, offer};
use crate::report::{Figure, Report, Used};
use crate::stage::Pipeline;
use crate::statistics::{Durations, milliseconds};

/// Callbacks of the first moments do not count: connections are opened then.
const WARM: Duration = Duration::from_secs(1);

/// How long the last rows may take where the pipeline keeps up. Otherwise a queue has grown.
const KEPT_UP: Duration = Duration::from_secs(1);

/// One rate.
struct Run {
    offered: u32,
    /// From the 202 to the committed row, as a reader sees it.
    to_row: Durations,
    /// From the end of the offer to the last row.
    tail: Duration,
    /// What each process took for that.
    used: [(&'static str, Used); 3],
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    let mut sustained: Option<Run> = None;
    for offered in form.offered {
        let run = run(servers, *offered, form.offering).await;
        let name = |what: &str| format!("{what}, {offered} ids/s offered");
        let (median, most) = (run.to_row.percentile(0.5), run.to_row.percentile(0.99));
        report.add(Figure::new(
            "end-to-end",
            name("p50 to the row"),
            median,
            "ms",
        ));
        report.add(Figure::new(
            "end-to-end",
            name("p99 to the row"),
            most,
            "ms",
        ));
        let tail = milliseconds(run.tail);
        let tail = Figure::new("end-to-end", name("last row after the end"), tail, "ms");
        report.add(tail.limit(milliseconds(KEPT_UP)));
        if run.tail > KEPT_UP {
            println!(
                "a queue grew: the last row came {:?} after the end",
                run.tail
            );
            break;
        }
        sustained = Some(run);
    }
    if let Some(run) = sustained {
        let rate = f64::from(run.offered);
        report.add(Figure::new(
            "end-to-end",
            "most without a growing queue",
            rate,
            "ids/s",
        ));
        for (name, used) in run.used {
            report.add_process("end-to-end", name, used);
        }
    }
}

async fn run(servers: &Servers, offered: u32, duration: Duration) -> Run {
    let pipeline = Pipeline::start(servers, "5s").await;
    let seen = watch_rows(&pipeline.world).await;
    let before = processes(&pipeline).map(|(_, process)| process.processor_time());
    let begun = Instant::now();
    let plan = Offer {
        size: CALLBACK,
        rate: f64::from(offered) / f64::from(CALLBACK),
        duration,
    };
    let answered = offer(pipeline.address, plan).await;
    let rows = until_seen(&seen, answered.len()).await;
    let last_row = *rows.values().max().unwrap();
    let warm = |(_, answered): &(usize, &Instant)| **answered >= begun + WARM;
    let to_row = answered.iter().enumerate().filter(warm);
    let to_row = to_row.map(|(number, answered)| {
        let row = rows[&i64::try_from(number).unwrap()];
        // The first rows of a callback may be there before all of it is confirmed.
        row.saturating_duration_since(*answered)
    });
    let ids = answered.len() as f64 * f64::from(CALLBACK);
    Run {
        offered,
        to_row: to_row.collect(),
        tail: last_row.saturating_duration_since(begun + duration),
        used: used(&pipeline, before, ids),
    }
}

fn processes(pipeline: &Pipeline) -> [(&'static str, &Process); 3] {
    [
        ("ingest", &pipeline.ingest),
        ("fetcher", &pipeline.fetcher),
        ("janitor", &pipeline.janitor),
    ]
}

fn used(pipeline: &Pipeline, before: [Duration; 3], ids: f64) -> [(&'static str, Used); 3] {
    let mut before = before.into_iter();
    processes(pipeline)
        .map(|(name, process)| (name, Used::since(before.next().unwrap(), process, ids)))
}

type Seen = Arc<Mutex<HashMap<i64, Instant>>>;

/// Notes when the row of one id of each callback is committed, by the number of the callback: of
/// another id in each, because those of one chunk go together.
async fn watch_rows(world: &World) -> Seen {
    let trigger = format!(
        "create function tell_row() returns trigger language plpgsql as $$
         begin
             perform pg_notify('rows', (new.id / {CALLBACK})::text);
             return null;
         end $$;
         create trigger tell_row after insert on objects
         for each row when (new.id % {CALLBACK} = new.id / {CALLBACK} * 37 % {CALLBACK})
         execute function tell_row();"
    );
    world.database.client.batch_execute(&trigger).await.unwrap();
    let config: tokio_postgres::Config = world.database.url.parse().unwrap();
    let (client, mut connection) = config.connect(NoTls).await.unwrap();
    let seen = Seen::default();
    let rows = Arc::clone(&seen);
    tokio::spawn(async move {
        let next = |context: &mut std::task::Context<'_>| connection.poll_message(context);
        let mut messages = futures::stream::poll_fn(next);
        while let Some(Ok(message)) = futures::StreamExt::next(&mut messages).await {
            if let AsyncMessage::Notification(row) = message {
                let number = row.payload().parse().unwrap();
                rows.lock()
                    .unwrap()
                    .entry(number)
                    .or_insert_with(Instant::now);
            }
        }
    });
    client.batch_execute("listen rows").await.unwrap();
    // The connection lasts as long as its client, and that as long as the run.
    tokio::spawn(async move {
        let _client = client;
        std::future::pending::<()>().await;
    });
    seen
}

/// Waits for the rows of so many callbacks: for as long as there are more and more of them.
async fn until_seen(seen: &Seen, count: usize) -> HashMap<i64, Instant> {
    loop {
        let have = seen.lock().unwrap().len();
        if have == count {
            return seen.lock().unwrap().clone();
        }
        let more = async || (seen.lock().unwrap().len() > have).then_some(());
        tests::wait::eventually("more rows", more).await;
    }
}
