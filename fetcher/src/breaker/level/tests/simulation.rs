//! A client service and its fetchers, in simulated time, with chance from a seed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

/// The seed of simulations whose bounds leave room for chance.
const SEED: u64 = 1;

const TICK: f64 = 0.02;
const TIMEOUT: f64 = 5.0;
pub(super) const MAX: usize = 16_384;

/// New connections in each tick, as the limit allows them.
const CONNECTIONS: usize = 64;

pub(super) fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

/// How long a look-up that begins at a time takes, once it has a worker.
pub(super) type Latency = fn(f64, &mut StdRng) -> f64;

/// The client service.
pub(super) struct Service {
    latency: Latency,
    /// Maximum number of look-ups at work at once; the others wait.
    workers: usize,
    /// More at a time are answered with 429.
    refuses_above: usize,
    /// It refuses all before this time.
    refuses_until: f64,
    busy: usize,
    queue: VecDeque<usize>,
}

impl Service {
    pub(super) fn new(workers: usize, latency: Latency) -> Self {
        Self {
            latency,
            workers,
            refuses_above: usize::MAX,
            refuses_until: 0.0,
            busy: 0,
            queue: VecDeque::new(),
        }
    }

    pub(super) fn that_begins_at(mut self, time: f64) -> Self {
        self.refuses_until = time;
        self
    }

    pub(super) fn that_refuses_above(mut self, look_ups: usize) -> Self {
        self.refuses_above = look_ups;
        self
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
    cohort: usize,
    started: f64,
    is_over: bool,
}

/// A fetcher with ever more ids to look up.
pub(super) struct Replica {
    level: Level,
    cohorts: Cohorts,
    connections: usize,
    counted: Counted,
    pub(super) refused: u64,
    rests_until: f64,
    eased: f64,
    /// There are no ids to look up.
    is_idle: bool,
    /// When ids come. Without it there are always some.
    ids: Option<Ids>,
    sent: u64,
    longest_wait: f64,
}

/// When ids come: `first` at time 0, and from `begin` on `rate` a second, in 20 callbacks a second.
#[derive(Clone, Copy)]
pub(super) struct Ids {
    pub(super) first: u64,
    pub(super) begin: f64,
    pub(super) rate: u64,
}

impl Replica {
    /// When the id came that is next to be looked up, if there is one.
    fn waiting_since(&self, now: f64) -> Option<f64> {
        let Some(ids) = &self.ids else {
            return Some(now);
        };
        let came = match self.sent.checked_sub(ids.first) {
            Some(sent) => ids.begin + (sent / (ids.rate / 20)) as f64 / 20.0,
            None => 0.0,
        };
        (came <= now).then_some(came)
    }
}

pub(super) struct Simulation {
    begun: Instant,
    now: f64,
    random: StdRng,
    service: Service,
    pub(super) replicas: Vec<Replica>,
    look_ups: Vec<LookUp>,
    events: Vec<Event>,
    due: BinaryHeap<Reverse<(Duration, usize)>>,
}

impl Simulation {
    pub(super) fn new(service: Service, replicas: usize) -> Self {
        Self::with_maximum(MAX, service, replicas)
    }

    pub(super) fn with_maximum(max: usize, service: Service, replicas: usize) -> Self {
        let begun = Instant::now();
        let replica = || Replica {
            level: Level::new(max, Duration::from_secs_f64(TIMEOUT)),
            cohorts: Cohorts::new(begun),
            ids: None,
            sent: 0,
            longest_wait: 0.0,
            connections: CONNECTIONS,
            counted: Counted::default(),
            refused: 0,
            rests_until: 0.0,
            eased: -1.0,
            is_idle: false,
        };
        let mut simulation = Self {
            begun,
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

    pub(super) fn seeded(mut self, seed: u64) -> Self {
        self.random = StdRng::seed_from_u64(seed);
        self
    }

    /// With no more ids than these for each fetcher.
    pub(super) fn with_ids(mut self, ids: Ids) -> Self {
        for replica in &mut self.replicas {
            replica.ids = Some(ids);
        }
        self
    }

    /// The longest time that an id waited to be looked up since the last call, in seconds.
    pub(super) fn take_longest_wait(&mut self) -> f64 {
        let waits = self.replicas.iter_mut();
        let waits = waits.map(|replica| std::mem::take(&mut replica.longest_wait));
        waits.fold(0.0, f64::max)
    }

    fn after(&mut self, seconds: f64, event: Event) {
        let due = Duration::from_secs_f64(self.now + seconds);
        self.due.push(Reverse((due, self.events.len())));
        self.events.push(event);
    }

    /// Goes on until `end`; returns answers a second.
    pub(super) fn rate_until(&mut self, end: f64) -> f64 {
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
    pub(super) fn idle_until(&mut self, end: f64) {
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
        if fetcher.waiting_since(self.now).is_none() {
            fetcher.level.pause();
            fetcher.level.watch(now, &fetcher.cohorts);
        } else if self.now >= fetcher.rests_until && !fetcher.is_idle {
            fetcher
                .level
                .observe(now, fetcher.counted, &fetcher.cohorts);
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
            let Some(since) = fetcher.waiting_since(self.now) else {
                return;
            };
            if fetcher.counted.in_flight >= allowed || !may_send {
                return;
            }
            fetcher.counted.in_flight += 1;
            fetcher.sent += 1;
            fetcher.longest_wait = fetcher.longest_wait.max(self.now - since);
            let cohort = fetcher
                .cohorts
                .begin(self.begun + Duration::from_secs_f64(self.now));
            self.look_ups.push(LookUp {
                replica,
                cohort,
                started: self.now,
                is_over: false,
            });
            self.arrive(self.look_ups.len() - 1);
        }
    }

    fn arrive(&mut self, look_up: usize) {
        if self.service.busy >= self.service.refuses_above || self.now < self.service.refuses_until
        {
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
                fetcher.level.halve(now, fetcher.counted.answered);
            }
        }
    }

    /// Returns whose look-up it was, if it was not over before.
    fn ended(&mut self, look_up: usize) -> Option<usize> {
        let look_up = &mut self.look_ups[look_up];
        if std::mem::replace(&mut look_up.is_over, true) {
            return None;
        }
        self.replicas[look_up.replica].cohorts.end(look_up.cohort);
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

    pub(super) fn all_timed_out(&self) -> u64 {
        self.replicas
            .iter()
            .map(|replica| replica.counted.timed_out)
            .sum()
    }

    pub(super) fn limit(&self) -> usize {
        self.replicas[0].level.limit()
    }

    pub(super) fn queue(&self) -> usize {
        self.service.queue.len()
    }
}
