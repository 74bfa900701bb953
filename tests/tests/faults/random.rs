//! Faults at random under load, for `FAULTS_DURATION`, in an order that `FAULTS_SEED` repeats: kills, and
//! now and then an alarm of the broker, or confirms that come late.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tests::faults::{FaultWorld, MEMORY_WATERMARK, Part, duration};
use tests::proxy::Network;
use tests::servers::variable;
use tokio::time::{Instant, sleep};

tests::cases![random_faults];

const PARTS: [Part; 6] = [
    Part::Ingest,
    Part::Fetcher,
    Part::OtherFetcher,
    Part::Janitor,
    Part::Broker,
    Part::Database,
];

/// Longer than a callback waits for its confirm.
const LATE: Network = Network::Slow(Duration::from_millis(400));

enum Fault {
    /// These parts are killed, and started again.
    Kill(Vec<Part>),
    /// The broker blocks publishers.
    Alarm,
    /// The broker is far away.
    LateConfirms,
}

impl Fault {
    fn choose(random: &mut StdRng) -> Self {
        match random.random_range(0..8) {
            0 => Self::Alarm,
            1 => Self::LateConfirms,
            // Now and then two at once.
            n => {
                let count = if n < 4 { 2 } else { 1 };
                Self::Kill(PARTS.choose_multiple(random, count).copied().collect())
            }
        }
    }

    fn names(&self) -> Vec<String> {
        match self {
            Self::Kill(parts) => parts
                .iter()
                .map(|part| format!("{part:?} killed"))
                .collect(),
            Self::Alarm => vec!["alarm".to_owned()],
            Self::LateConfirms => vec!["late confirms".to_owned()],
        }
    }

    async fn begin(&self, world: &mut FaultWorld) {
        match self {
            Self::Kill(parts) => {
                for part in parts {
                    world.kill(*part).await;
                }
            }
            Self::Alarm => world.set_memory_watermark("0").await,
            Self::LateConfirms => world.network.set_to_broker(LATE),
        }
    }

    async fn end(&self, world: &mut FaultWorld) {
        match self {
            Self::Kill(parts) => {
                for part in parts {
                    world.start(*part).await;
                }
            }
            Self::Alarm => world.set_memory_watermark(MEMORY_WATERMARK).await,
            Self::LateConfirms => world.network.set_to_broker(Network::Pass),
        }
    }
}

async fn random_faults(world: &mut FaultWorld) {
    let seed = variable("FAULTS_SEED").map_or_else(rand::random, |seed| seed.parse().unwrap());
    let mut random = StdRng::seed_from_u64(seed);
    let mut times: BTreeMap<String, Vec<Duration>> = BTreeMap::new();
    let end = Instant::now() + duration();
    while Instant::now() < end {
        let fault = Fault::choose(&mut random);
        fault.begin(world).await;
        sleep(Duration::from_millis(random.random_range(0..2_000))).await;
        fault.end(world).await;
        let took = world.back_at_work().await;
        for name in fault.names() {
            times.entry(name).or_default().push(took);
        }
        sleep(Duration::from_millis(random.random_range(0..2_000))).await;
    }
    world.notes.push(format!("FAULTS_SEED={seed}"));
    world.notes.extend(times.into_iter().map(note));
}

fn note((name, mut times): (String, Vec<Duration>)) -> String {
    times.sort_unstable();
    let (count, median) = (times.len(), times[times.len() / 2]);
    let worst = times[count - 1];
    format!("{name}: {count} times, back after {median:.2?} (median), {worst:.2?} (worst)")
}
