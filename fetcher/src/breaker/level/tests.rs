//! The limit in simulated client services, in simulated time, with chance from a seed.

#![expect(
    clippy::cast_precision_loss,
    reason = "2^52 look-ups are not simulated"
)]

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// The seed of simulations whose bounds leave room for chance.
const SEED: u64 = 1;

/// The seeds of simulations in which chance decides much: of a few look-ups a second the level learns slowly. The bounds
/// are for all of them together, with wider ones for each.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=16;

const TICK: f64 = 0.02;
const TIMEOUT: f64 = 5.0;
const MAX: usize = 16_384;

/// New connections in each tick, as the limit allows them.
const CONNECTIONS: usize = 64;

fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// How long a look-up that begins at a time takes, once it has a worker.
type Latency = fn(f64, &mut StdRng) -> f64;

/// The client service.
struct Service {
    latency: Latency,
    /// Maximum number of look-ups at work at once; the others wait.
    workers: usize,
    /// More at a time are answered with 429.
    refuses_above: usize,
    busy: usize,
    queue: VecDeque<usize>,
}

impl Service {
    fn new(workers: usize, latency: Latency) -> Self {
        Self {
            latency,
            workers,
            refuses_above: usize::MAX,
            busy: 0,
            queue: VecDeque::new(),
        }
    }
}

#[derive(Clone, Copy)]
enum Event {
    Tick(usize),
    Served(usize),
    TimedOut(usize),
    Refused(usize),
}

struct LookUp {
    replica: usize,
    started: f64,
    is_over: bool,
}

/// A fetcher with ever more ids to look up.
struct Replica {
    level: Level,
    connections: usize,
    counted: Counted,
    refused: u64,
    rests_until: f64,
    eased: f64,
    /// There are no ids to look up.
    is_idle: bool,
}

struct Simulation {
    begun: Instant,
    now: f64,
    random: StdRng,
    service: Service,
    replicas: Vec<Replica>,
    look_ups: Vec<LookUp>,
    events: Vec<Event>,
    due: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Simulation {
    fn new(service: Service, replicas: usize) -> Self {
        Self::with_maximum(MAX, service, replicas)
    }

    fn with_maximum(max: usize, service: Service, replicas: usize) -> Self {
        let replica = || Replica {
            level: Level::new(max, Duration::from_secs_f64(TIMEOUT)),
            connections: CONNECTIONS,
            counted: Counted::default(),
            refused: 0,
            rests_until: 0.0,
            eased: -1.0,
            is_idle: false,
        };
        let mut simulation = Self {
            begun: Instant::now(),
            now: 0.0,
            random: StdRng::seed_from_u64(SEED),
            service,
            replicas: std::iter::repeat_with(replica).take(replicas).collect(),
            look_ups: Vec::new(),
            events: Vec::new(),
            due: BinaryHeap::new(),
        };
        (0..replicas).for_each(|replica| simulation.after(0.0, Event::Tick(replica)));
        simulation
    }

    fn seeded(mut self, seed: u64) -> Self {
        self.random = StdRng::seed_from_u64(seed);
        self
    }

    fn after(&mut self, seconds: f64, event: Event) {
        let due = Duration::from_secs_f64(self.now + seconds);
        self.due.push(Reverse((due, self.events.len())));
        self.events.push(event);
    }

    /// Goes on until `end`; returns answers a second.
    fn rate_until(&mut self, end: f64) -> f64 {
        let (begun, before) = (self.now, self.answered());
        while let Some(Reverse((due, event))) = self.due.peek().copied() {
            if due.as_secs_f64() > end {
                break;
            }
            self.due.pop();
            self.now = due.as_secs_f64();
            match self.events[event] {
                Event::Tick(replica) => self.tick(replica),
                Event::Served(look_up) => self.served(look_up),
                Event::TimedOut(look_up) => self.timed_out(look_up),
                Event::Refused(look_up) => self.refused(look_up),
            }
        }
        self.now = end;
        (self.answered() - before) as f64 / (end - begun)
    }

    /// Has nothing to look up until `end`, by when connections are closed.
    fn idle_until(&mut self, end: f64) {
        for replica in &mut self.replicas {
            replica.is_idle = true;
            replica.level.pause();
        }
        self.rate_until(end);
        for replica in &mut self.replicas {
            replica.is_idle = false;
            replica.connections = CONNECTIONS;
        }
    }

    fn tick(&mut self, replica: usize) {
        let now = self.begun + Duration::from_secs_f64(self.now);
        let fetcher = &mut self.replicas[replica];
        if self.now >= fetcher.rests_until && !fetcher.is_idle {
            fetcher.level.observe(now, fetcher.counted);
            if fetcher.counted.in_flight >= fetcher.connections {
                fetcher.connections += CONNECTIONS;
            }
            fetcher.connections = fetcher.connections.min(fetcher.level.limit());
        }
        self.after(TICK, Event::Tick(replica));
        self.fill(replica);
    }

    /// Sends as many look-ups as are allowed.
    fn fill(&mut self, replica: usize) {
        loop {
            let fetcher = &mut self.replicas[replica];
            let allowed = fetcher.connections.min(fetcher.level.limit());
            let may_send = self.now >= fetcher.rests_until && !fetcher.is_idle;
            if fetcher.counted.in_flight >= allowed || !may_send {
                return;
            }
            fetcher.counted.in_flight += 1;
            self.look_ups.push(LookUp {
                replica,
                started: self.now,
                is_over: false,
            });
            self.arrive(self.look_ups.len() - 1);
        }
    }

    fn arrive(&mut self, look_up: usize) {
        if self.service.busy >= self.service.refuses_above {
            return self.after(0.001, Event::Refused(look_up));
        }
        self.after(TIMEOUT, Event::TimedOut(look_up));
        if self.service.busy < self.service.workers {
            self.service.busy += 1;
            self.serve(look_up);
        } else {
            self.service.queue.push_back(look_up);
        }
    }

    fn serve(&mut self, look_up: usize) {
        let latency = (self.service.latency)(self.now, &mut self.random);
        self.after(latency, Event::Served(look_up));
    }

    fn served(&mut self, look_up: usize) {
        self.service.busy -= 1;
        while let Some(next) = self.service.queue.pop_front() {
            if !self.look_ups[next].is_over {
                self.service.busy += 1;
                self.serve(next);
                break;
            }
        }
        if let Some(replica) = self.ended(look_up) {
            self.replicas[replica].counted.answered += 1;
            self.fill(replica);
        }
    }

    fn timed_out(&mut self, look_up: usize) {
        if let Some(replica) = self.ended(look_up) {
            self.replicas[replica].counted.timed_out += 1;
            self.fill(replica);
        }
    }

    /// As the breaker does it: a rest of a second, and half as much, once for look-ups in flight together.
    fn refused(&mut self, look_up: usize) {
        let started = self.look_ups[look_up].started;
        if let Some(replica) = self.ended(look_up) {
            let fetcher = &mut self.replicas[replica];
            fetcher.refused += 1;
            fetcher.rests_until = self.now + 1.0;
            if started > fetcher.eased {
                fetcher.eased = self.now;
                let now = self.begun + Duration::from_secs_f64(self.now);
                fetcher.level.halve(now);
            }
        }
    }

    /// Returns whose look-up it was, if it was not over before.
    fn ended(&mut self, look_up: usize) -> Option<usize> {
        let look_up = &mut self.look_ups[look_up];
        if std::mem::replace(&mut look_up.is_over, true) {
            return None;
        }
        let counted = &mut self.replicas[look_up.replica].counted;
        counted.in_flight -= 1;
        counted.ended += 1;
        Some(look_up.replica)
    }

    fn answered(&self) -> u64 {
        self.replicas
            .iter()
            .map(|replica| replica.counted.answered)
            .sum()
    }

    fn all_timed_out(&self) -> u64 {
        self.replicas
            .iter()
            .map(|replica| replica.counted.timed_out)
            .sum()
    }

    fn limit(&self) -> usize {
        self.replicas[0].level.limit()
    }

    fn queue(&self) -> usize {
        self.service.queue.len()
    }
}

/// The time that a look-up of the task's own client service takes.
fn of_the_task(_: f64, random: &mut StdRng) -> f64 {
    random.random_range(0.3..4.3)
}

/// Ten times slower for a minute.
fn slower(now: f64) -> f64 {
    if (30.0..90.0).contains(&now) {
        10.0
    } else {
        1.0
    }
}

#[test]
fn a_slow_service_without_a_limit_gets_all_look_ups_that_are_allowed() {
    let mut simulation = Simulation::new(Service::new(usize::MAX, of_the_task), 1);
    simulation.rate_until(25.0);
    assert_eq!(simulation.limit(), MAX);
    let rate = simulation.rate_until(60.0);
    assert!(rate > 7_000.0, "{rate}");
    assert_eq!(simulation.limit(), MAX);
    assert_eq!(simulation.all_timed_out(), 0);
}

#[test]
fn latencies_that_are_all_the_same_hold_nothing_up() {
    let mut simulation = Simulation::new(Service::new(usize::MAX, |_, _| 1.0), 1);
    simulation.rate_until(20.0);
    assert_eq!(simulation.limit(), MAX);
}

#[test]
fn after_a_time_without_ids_as_many_are_looked_up_as_before() {
    let services: [(usize, Latency); 4] = [
        (MAX, of_the_task),
        (1_000, of_the_task),
        (4_000, |_, _| 1.0),
        (4_000, |_, random| exponential(random, 0.2)),
    ];
    for (max, latency) in services {
        for seed in 1..=2 {
            let service = Service::new(usize::MAX, latency);
            let mut simulation = Simulation::with_maximum(max, service, 1).seeded(seed);
            simulation.rate_until(60.0);
            let before = simulation.rate_until(80.0);
            for begin in [100.0, 150.0] {
                simulation.idle_until(begin);
                simulation.rate_until(begin + 12.0);
                let after = simulation.rate_until(begin + 30.0);
                assert!(after > 0.95 * before, "seed {seed}: {after} after {before}");
            }
        }
    }
}

#[test]
fn a_service_with_few_workers_is_kept_busy_with_a_short_queue() {
    let services: [(Latency, f64); 3] = [
        (|_, random| random.random_range(0.01..0.03), 2_500.0),
        (|_, random| exponential(random, 0.1), 500.0),
        (|_, _| 0.1, 500.0),
    ];
    for (latency, best) in services {
        let mut simulation = Simulation::new(Service::new(50, latency), 1);
        simulation.rate_until(5.0);
        let (mut rates, mut queues) = (Vec::new(), Vec::new());
        for second in 6..=120 {
            rates.push(simulation.rate_until(second.into()));
            queues.push(simulation.queue());
        }
        let rate = mean(&rates);
        let queue = queues.iter().sum::<usize>() / queues.len();
        assert!(rate > 0.94 * best, "{rate} of {best}");
        assert!(queue < 30, "{queue}");
        assert_eq!(simulation.all_timed_out(), 0);
    }
}

#[test]
fn fewer_workers_than_look_ups_at_the_start_are_found_too() {
    let mut simulation = Simulation::new(Service::new(4, |_, _| 0.1), 1);
    simulation.rate_until(120.0);
    let rate = simulation.rate_until(180.0);
    assert!(rate > 38.0, "{rate}");
    assert!(simulation.queue() < 4, "{}", simulation.queue());
}

#[test]
fn workers_so_slow_that_a_queue_times_out_are_found_too() {
    const BEST: f64 = 21.7;
    let simulated = SEEDS.map(|seed| {
        let service = Service::new(50, of_the_task);
        let mut simulation = Simulation::new(service, 1).seeded(seed);
        simulation.rate_until(60.0);
        let before = simulation.all_timed_out();
        let rate = simulation.rate_until(300.0);
        let timed_out = simulation.all_timed_out() - before;
        assert!(rate > 0.7 * BEST, "seed {seed}: {rate}");
        assert!(
            timed_out < 600,
            "seed {seed}: {timed_out} of {}",
            240.0 * rate
        );
        (rate, timed_out as f64)
    });
    let (rates, timed_out): (Vec<_>, Vec<_>) = simulated.unzip();
    assert!(mean(&rates) > 0.9 * BEST, "{rates:?}");
    assert!(mean(&timed_out) < 200.0, "{timed_out:?}");
}

#[test]
fn a_service_that_answers_at_once_has_a_short_queue_at_most() {
    let latency: Latency = |_, random| random.random_range(20e-6..46e-6);
    let mut simulation = Simulation::new(Service::new(1, latency), 1);
    simulation.rate_until(3.0);
    let rate = simulation.rate_until(10.0);
    assert!(rate > 29_000.0, "{rate}");
    let limit = simulation.limit();
    assert!((START..1_000).contains(&limit), "{limit}");
}

#[test]
fn a_service_that_is_slower_for_a_minute_gets_as_many_look_ups_and_is_back_at_once() {
    let latency: Latency = |now, random| slower(now) * random.random_range(0.03..0.43);
    let service = Service::new(usize::MAX, latency);
    let mut simulation = Simulation::with_maximum(1_024, service, 1);
    simulation.rate_until(20.0);
    let before = simulation.rate_until(30.0);
    simulation.rate_until(60.0);
    let meanwhile = simulation.rate_until(90.0);
    simulation.rate_until(100.0);
    let after = simulation.rate_until(120.0);
    assert!(meanwhile > 0.09 * before, "{meanwhile} after {before}");
    assert!(after > 0.98 * before, "{after} after {before}");
}

#[test]
fn slower_workers_have_no_longer_queue_and_are_kept_busy() {
    const BEST: f64 = 2_500.0;
    let latency: Latency = |now, random| slower(now) * random.random_range(0.01..0.03);
    let simulated = SEEDS.map(|seed| {
        let mut simulation = Simulation::new(Service::new(50, latency), 1).seeded(seed);
        simulation.rate_until(50.0);
        let meanwhile = simulation.rate_until(90.0);
        assert!(meanwhile > 0.08 * BEST, "seed {seed}: {meanwhile}");
        assert!(
            simulation.queue() < 50,
            "seed {seed}: {}",
            simulation.queue()
        );
        simulation.rate_until(110.0);
        let after = simulation.rate_until(140.0);
        assert!(after > 0.9 * BEST, "seed {seed}: {after}");
        assert!(
            simulation.queue() < 50,
            "seed {seed}: {}",
            simulation.queue()
        );
        meanwhile
    });
    let rates: Vec<_> = simulated.collect();
    assert!(mean(&rates) > 0.09 * BEST, "{rates:?}");
}

#[test]
fn a_service_that_asks_for_rest_is_rarely_asked_for_too_much() {
    let service = Service {
        refuses_above: 50,
        ..Service::new(usize::MAX, |_, random| random.random_range(0.05..0.15))
    };
    let mut simulation = Simulation::new(service, 1);
    simulation.rate_until(10.0);
    let rate = simulation.rate_until(300.0);
    let refused = simulation.replicas[0].refused;
    assert!(rate > 0.85 * 500.0, "{rate}");
    assert!(refused < 150, "{refused}");
}

#[test]
fn replicas_share_workers_without_a_queue_that_times_out() {
    for (replicas, most) in [(2, 150), (4, 2_000)] {
        let latency: Latency = |_, random| random.random_range(0.05..0.15);
        let mut simulation = Simulation::new(Service::new(50, latency), replicas);
        simulation.rate_until(20.0);
        for minute in 1..=30 {
            let rate = simulation.rate_until(20.0 + 60.0 * f64::from(minute));
            let queue = simulation.queue();
            assert!(rate > 0.9 * 500.0, "{replicas} replicas: {rate}");
            assert!(queue < most, "{replicas} replicas: a queue of {queue}");
        }
        assert_eq!(simulation.all_timed_out(), 0);
    }
}
