//! The limit in simulated client services.

#![expect(
    clippy::cast_precision_loss,
    reason = "2^52 look-ups are not simulated"
)]

use rand::Rng;
use rand::rngs::StdRng;

use super::*;

mod simulation;

use simulation::{Ids, Latency, MAX, Service, Simulation, exponential};

/// The seeds of simulations in which chance decides much: of a few look-ups a second the level learns slowly. The bounds
/// are for all of them together, with wider ones for each.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=16;

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
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
    let service = Service::new(usize::MAX, |_, random| random.random_range(0.05..0.15));
    let service = service.that_refuses_above(50);
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

#[test]
fn at_a_cold_start_ids_wait_little_for_a_service_that_takes_seconds() {
    // With a callback before, that was too small to learn much, and without.
    for (first, rate) in [(0, 1_000), (0, 4_000), (100, 4_000), (199, 4_000)] {
        let waits = SEEDS.map(|seed| {
            let begin = if first == 0 { 0.0 } else { 10.0 };
            let ids = Ids { first, begin, rate };
            let service = Service::new(usize::MAX, of_the_task);
            let simulation = Simulation::new(service, 1).seeded(seed);
            let mut simulation = simulation.with_ids(ids);
            simulation.rate_until(begin + 10.0);
            let longest = simulation.take_longest_wait();
            simulation.rate_until(begin + 60.0);
            let later = simulation.take_longest_wait();
            assert!(longest < 3.0, "{first}, {rate}, seed {seed}: {longest} s");
            assert!(later < 0.1, "{first}, {rate}, seed {seed}: {later} s");
            assert_eq!(simulation.all_timed_out(), 0);
            longest
        });
        let waits: Vec<_> = waits.collect();
        assert!(mean(&waits) < 2.0, "{waits:?}");
    }
}

#[test]
fn a_service_that_comes_later_is_not_taken_for_one_that_can_do_little() {
    let service = Service::new(usize::MAX, of_the_task).that_begins_at(3.0);
    let mut simulation = Simulation::new(service, 1);
    simulation.rate_until(15.0);
    assert_eq!(simulation.limit(), MAX);
    assert_eq!(simulation.all_timed_out(), 0);
}

#[test]
fn a_cold_start_asks_slow_workers_for_little_more_than_they_can_do() {
    for workers in [50, 100, 200, 500, 1_000, 2_000, 4_000] {
        let timed_out = SEEDS.take(4).map(|seed| {
            let service = Service::new(workers, of_the_task);
            let mut simulation = Simulation::new(service, 1).seeded(seed);
            simulation.rate_until(40.0);
            simulation.all_timed_out() as f64 / workers as f64
        });
        let timed_out: Vec<_> = timed_out.collect();
        assert!(mean(&timed_out) < 4.0, "{workers} workers: {timed_out:?}");
    }
}
