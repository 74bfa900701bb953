//! Kills at random under load, for `FAULTS_DURATION`, in an order that `FAULTS_SEED` repeats.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tests::case::duration;
use tests::fault_world::FaultWorld;
use tests::parts::Part;
use tests::servers::variable;
use tokio::time::{Instant, sleep};

tests::cases![random_kills];

const PARTS: [Part; 6] = [
    Part::Ingest,
    Part::Fetcher,
    Part::OtherFetcher,
    Part::Janitor,
    Part::Broker,
    Part::Database,
];

async fn random_kills(world: &mut FaultWorld) {
    let seed = variable("FAULTS_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let mut times: BTreeMap<Part, Vec<Duration>> = BTreeMap::new();
    let end = Instant::now() + duration();
    while Instant::now() < end {
        // Now and then two at once.
        let count = if random.random_ratio(1, 4) { 2 } else { 1 };
        let victims: Vec<Part> = PARTS.choose_multiple(&mut random, count).copied().collect();
        for victim in &victims {
            world.kill(*victim).await;
        }
        sleep(Duration::from_millis(random.random_range(0..2_000))).await;
        for victim in &victims {
            world.start(*victim).await;
        }
        let took = world.back_at_work().await;
        for victim in victims {
            times.entry(victim).or_default().push(took);
        }
        sleep(Duration::from_millis(random.random_range(0..2_000))).await;
    }
    world.notes.push(format!("FAULTS_SEED={seed}"));
    world.notes.extend(times.into_iter().map(note));
}

fn note((part, mut times): (Part, Vec<Duration>)) -> String {
    times.sort_unstable();
    let (kills, median) = (times.len(), times[times.len() / 2]);
    let worst = times[kills - 1];
    format!("{part:?}: {kills} kills, back after {median:.2?} (median), {worst:.2?} (worst)")
}
