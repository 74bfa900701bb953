//! How many look-ups a fetcher has in flight, from a cold start on, with client services of four kinds:
//! how many ids it looks up, what it does to the service, and what it takes for that.

use std::time::Duration;

use tests::processes::Process;
use tests::servers::Servers;
use tests::wait::eventually;
use tests::world::World;
use tokio::time::{Instant, sleep, sleep_until};
use trace::Traces;

use crate::bare::{Http, LookingUp, look_ups};
use crate::figure::{Figure, Point};
use crate::form::Form;
use crate::processors::Processors;
use crate::report::{Curve, Report};
use crate::service::{Bare, Part};
use crate::stage::{self, Metrics, Page};
use crate::statistics::median;

/// A kind of client service.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    http: Http,
    part: Part,
    /// More ids a second than it can answer here, so that the queue does not run dry.
    rate: u32,
}

const SLOW: Kind = Kind {
    name: "0.3 to 4.3 s",
    http: Http::One,
    part: Part::SlowObjects,
    rate: 10_000,
};
const SLOW_HTTP2: Kind = Kind {
    name: "0.3 to 4.3 s, HTTP/2",
    http: Http::Two,
    ..SLOW
};
const FEW: Kind = Kind {
    name: "50 at a time",
    http: Http::One,
    part: Part::FewObjects,
    rate: 3_000,
};
const AT_ONCE: Kind = Kind {
    name: "at once",
    http: Http::One,
    part: Part::Objects,
    rate: 100_000,
};
const FICKLE: Kind = Kind {
    name: "slow for a while",
    http: Http::One,
    part: Part::FickleObjects,
    rate: 4_500,
};

/// How much slower the fickle service becomes.
const FACTOR: u32 = 10;
/// How long its recovery may take.
const RECOVERY: Duration = Duration::from_secs(30);
/// Look-ups in flight that keep the service busy that works on 50 at a time.
const ENOUGH: usize = 100;
/// The share of a level that counts as having reached it.
const REACHED: f64 = 0.9;
/// The time between two looks at the fetcher.
const PAUSE: Duration = Duration::from_millis(250);
/// A rate is measured over so many of them.
const PAUSES: usize = 4;

/// What a look at the fetcher and the client service found.
struct Look {
    at: Instant,
    page: Page,
    waiting: f64,
    processor_time: Duration,
}

/// A fetcher that works on a queue, and what was seen of it.
struct Run {
    kind: Kind,
    begun: Instant,
    processors: Processors,
    /// Memory of the process before its first look-up, in KiB.
    kib_at_start: usize,
    looks: Vec<Look>,
    fetcher: Process,
    metrics: Metrics,
    service: Bare,
    /// The last field, because fields are dropped in this order: the processes end first.
    _world: World,
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    slow(servers, SLOW, form, report).await;
    slow(servers, SLOW_HTTP2, form, report).await;
    few(servers, form, report).await;
    at_once(servers, form, report).await;
    fickle(servers, form, report).await;
}

async fn slow(servers: &Servers, kind: Kind, form: &Form, report: &mut Report) {
    let mut run = Run::start(servers, kind, form.levelling).await;
    run.look_for(form.levelling, |_| false).await;
    let level = last_third(&run.looks);
    let ids = run.figure("ids", rate(level), "/s");
    report.add(ids.no_less_than(7_000.0));
    report.add(run.reached_after(rate(level)).limit(60.0));
    run.add(level, report);
    let in_flight = middle(level, Look::in_flight);
    let kib = (run.fetcher.peak_kib() - run.kib_at_start) as f64 / in_flight;
    let memory = run.figure("memory for each look-up in flight", kib, "KiB");
    let time = run.figure("processor time for each look-up", micros(level), "us");
    drop(run);
    let (kib, micros) = bare(kind.http, in_flight).await;
    report.add(memory.beside("bare look-ups", kib).at_most(1.15));
    report.add(time.beside("bare look-ups", micros));
}

/// What a bare loop takes for as many look-ups in flight: KiB for each, and microseconds of processor
/// time for each that is answered.
async fn bare(http: Http, in_flight: f64) -> (f64, f64) {
    const LONGEST: Duration = Duration::from_millis(4_300);
    let service = Bare::start(SLOW.part).await;
    let looking_up = LookingUp::start(&service, http, in_flight).await;
    let process = &looking_up.0;
    let kib_at_start = process.resident_kib();
    eventually("look-ups in flight", async || {
        (f64::from(service.load().await.in_flight) >= 0.99 * in_flight).then_some(())
    })
    .await;
    sleep(LONGEST).await;
    let before = (process.processor_time(), service.answered().await);
    sleep(LONGEST).await;
    let answered = f64::from(service.answered().await - before.1);
    let micros = 1e6
        * process
            .processor_time()
            .saturating_sub(before.0)
            .as_secs_f64()
        / answered;
    (
        (process.peak_kib() - kib_at_start) as f64 / in_flight,
        micros,
    )
}

async fn few(servers: &Servers, form: &Form, report: &mut Report) {
    let duration = form.levelling / 2;
    let mut run = Run::start(servers, FEW, duration).await;
    run.look_for(duration, |_| false).await;
    let level = last_third(&run.looks);
    let best = {
        let service = Bare::start(FEW.part).await;
        look_ups(&service.url(), FEW.http, 3 * FEW.rate, ENOUGH).await
    };
    let ids = run.figure("ids", rate(level), "/s");
    report.add(ids.beside("the best", best).at_least(REACHED));
    report.add(run.reached_after(rate(level)));
    let waiting = run.figure("waiting there", middle(level, |look| look.waiting), "ids");
    report.add(waiting.limit(50.0));
    run.add(level, report);
    report.add(run.figure("processor time for each look-up", micros(level), "us"));
}

async fn at_once(servers: &Servers, form: &Form, report: &mut Report) {
    let duration = form.levelling / 2;
    let mut run = Run::start(servers, AT_ONCE, duration).await;
    run.look_for(duration, |_| false).await;
    let level = last_third(&run.looks);
    report.add(run.figure("ids", rate(level), "/s"));
    report.add(run.reached_after(rate(level)));
    run.add(level, report);
    report.add(run.figure("processor time for each look-up", micros(level), "us"));
}

async fn fickle(servers: &Servers, form: &Form, report: &mut Report) {
    let longest = form.levelling + form.slowed + RECOVERY;
    let mut run = Run::start(servers, FICKLE, longest).await;
    run.look_for(form.levelling / 2, |_| false).await;
    let before = rate(last_third(&run.looks));
    run.service.slow_down(FACTOR).await;
    let slowed = run.looks.len();
    run.look_for(form.slowed, |_| false).await;
    run.service.slow_down(1).await;
    let recovered = (run.looks.len(), Instant::now());
    run.look_for(RECOVERY + PAUSE, |looks| {
        let new = &looks[recovered.0..];
        new.len() > PAUSES && rate(&new[new.len() - 1 - PAUSES..]) >= REACHED * before
    })
    .await;
    let back = recovered.1.elapsed().as_secs_f64();
    report.add(run.figure("ids", before, "/s"));
    report.add(run.reached_after(before));
    let while_slow = rate(&run.looks[slowed..recovered.0]);
    report.add(run.figure("ids while slow", while_slow, "/s"));
    let back = run.figure("90 % of that again after", back, "s");
    report.add(back.limit(RECOVERY.as_secs_f64()));
    let is_open = |look: &&Look| {
        look.page
            .sum("callback_pipeline_client_service_breaker_open")
            > 0.0
    };
    let open = run.looks.iter().filter(is_open).count() as f64;
    let open = run.figure("breaker open", open * PAUSE.as_secs_f64(), "s");
    report.add(open.limit(0.0));
    run.add(last_third(&run.looks[..slowed]), report);
}

impl Run {
    /// Starts a fetcher that has enough to do for `duration`.
    async fn start(servers: &Servers, kind: Kind, duration: Duration) -> Self {
        let mut world = World::create(servers).await;
        let ids = kind.rate * u32::try_from(duration.as_secs()).unwrap();
        stage::queue(&world, ids, |_| Traces::default()).await;
        let service = Bare::start(kind.part).await;
        let (begun, processors) = (Instant::now(), Processors::watch());
        let flags = ["--object-ttl=1h".to_owned(), kind.http.flag()];
        let fetcher = stage::fetcher(&mut world, &service.url(), &flags);
        let metrics = Metrics::of(&fetcher).await;
        Self {
            kind,
            begun,
            processors,
            kib_at_start: fetcher.resident_kib(),
            looks: Vec::new(),
            fetcher,
            metrics,
            service,
            _world: world,
        }
    }

    /// Looks at the fetcher for so long, or until what was seen is enough.
    async fn look_for(&mut self, duration: Duration, is_enough: impl Fn(&[Look]) -> bool) {
        let begun = Instant::now();
        for number in 0.. {
            let due = PAUSE * number;
            if due > duration || is_enough(&self.looks) {
                return;
            }
            sleep_until(begun + due).await;
            self.looks.push(Look {
                at: Instant::now(),
                page: self.metrics.page().await,
                waiting: self.service.load().await.waiting.into(),
                processor_time: self.fetcher.processor_time(),
            });
        }
    }

    fn figure(&self, name: &str, value: f64, unit: &'static str) -> Figure {
        let point = Point::kind("client service", self.kind.name);
        Figure::new("inflight", name, value, unit).at(&point)
    }

    /// How long it took from the start of the process to most of a rate.
    fn reached_after(&self, level: f64) -> Figure {
        let mut looks = self.looks.windows(1 + PAUSES);
        let reached = looks.find(|looks| rate(looks) >= REACHED * level);
        let after = reached.map(|looks| looks[PAUSES].at - self.begun);
        let after = after.map_or(f64::NAN, |after| after.as_secs_f64());
        self.figure("90 % of that after", after, "s")
    }

    /// Adds what is measured with each kind.
    fn add(&self, level: &[Look], report: &mut Report) {
        let page = &self.looks.last().unwrap().page;
        let failed = |outcome| page.sum_of("callback_pipeline_fetches_total", outcome);
        let retried = page.sum("callback_pipeline_fetch_retries_total");
        let memory = self.fetcher.peak_kib() as f64 / 1_024.0;
        report.add(self.figure("limit", middle(level, Look::limit), "look-ups"));
        report.add(self.figure("in flight", middle(level, Look::in_flight), "look-ups"));
        report.add(self.figure("mean of a look-up", latency(level), "ms"));
        report.add(
            self.figure("refused", failed("connection"), "look-ups")
                .limit(0.0),
        );
        report.add(
            self.figure("timed out", failed("timeout"), "look-ups")
                .limit(0.0),
        );
        report.add(self.figure("retried", retried, "ids").limit(0.0));
        report.add(self.figure("memory, peak", memory, "MiB"));
        let what = format!("inflight, {}", self.kind.name);
        report.add_processors(&what, self.processors.shares());
        self.add_curves(report);
    }

    fn add_curves(&self, report: &mut Report) {
        let seconds = |look: &Look| (look.at - self.begun).as_secs_f64();
        let rates = self.looks.windows(1 + PAUSES);
        let rates = rates.map(|looks| (seconds(&looks[PAUSES]), rate(looks)));
        let of = |value: fn(&Look) -> f64| {
            let points = self.looks.iter().map(|look| (seconds(look), value(look)));
            points.collect()
        };
        for (unit, name, points) in [
            ("look-ups", "limit", of(Look::limit)),
            ("look-ups", "in flight", of(Look::in_flight)),
            ("look-ups", "waiting there", of(|look| look.waiting)),
            ("ids/s", "ids", rates.collect()),
        ] {
            report.curves.push(Curve {
                panel: format!("inflight, {}, {unit}", self.kind.name),
                name: name.to_owned(),
                x: "s from a cold start".to_owned(),
                points,
            });
        }
    }
}

impl Look {
    fn stored(&self) -> f64 {
        self.page.sum("callback_pipeline_objects_stored_total")
    }

    fn limit(&self) -> f64 {
        self.page.sum("callback_pipeline_fetch_limit")
    }

    fn in_flight(&self) -> f64 {
        self.page.sum("callback_pipeline_fetches_in_flight")
    }

    fn looked_up(&self) -> f64 {
        self.page
            .sum("callback_pipeline_fetch_duration_seconds_count")
    }
}

/// The looks of a phase in which nothing changes any more.
fn last_third(looks: &[Look]) -> &[Look] {
    &looks[looks.len() * 2 / 3..]
}

/// The growth of a number from the first look to the last.
fn growth(looks: &[Look], of: impl Fn(&Look) -> f64) -> f64 {
    of(&looks[looks.len() - 1]) - of(&looks[0])
}

/// Rows stored in each second. All objects are online: what is not stored was not looked up, or failed.
fn rate(looks: &[Look]) -> f64 {
    let elapsed = looks[looks.len() - 1].at - looks[0].at;
    growth(looks, Look::stored) / elapsed.as_secs_f64()
}

fn middle(looks: &[Look], of: impl Fn(&Look) -> f64) -> f64 {
    median(looks.iter().map(of))
}

/// How long look-ups took on average, in milliseconds.
fn latency(looks: &[Look]) -> f64 {
    let seconds = growth(looks, |look| {
        look.page
            .sum("callback_pipeline_fetch_duration_seconds_sum")
    });
    1e3 * seconds / growth(looks, Look::looked_up)
}

/// Processor time of the fetcher for each look-up, in microseconds.
fn micros(looks: &[Look]) -> f64 {
    let seconds = growth(looks, |look| look.processor_time.as_secs_f64());
    1e6 * seconds / growth(looks, Look::looked_up)
}
