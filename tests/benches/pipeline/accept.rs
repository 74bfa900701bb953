//! Callbacks of 200 ids, posted as fast as they are answered.

use std::time::Duration;

use tests::servers::Servers;
use tests::tls::Authority;
use tests::world::World;

use crate::bare::{Confirmed, confirms};
use crate::figure::{Figure, Point};
use crate::form::{CONNECTIONS, Form};
use crate::load::{Accepted, CALLBACK, KEY, Way, post};
use crate::report::{Report, Used};
use crate::service::{Bare, Part};
use crate::stage::{self, CHUNK};
use crate::statistics::median;

/// Messages of one callback.
const MESSAGES: usize = (CALLBACK / CHUNK) as usize;
/// Confirms that are in flight where only the broker limits.
const WINDOW: usize = 1_000;

/// One round at [`CONNECTIONS`].
struct Round {
    ours: Accepted,
    /// The same, but each callback's signature is checked.
    signed: Accepted,
    /// The same as `ours`, but with TLS.
    encrypted: Accepted,
    http: Accepted,
    confirms: Confirmed,
    /// With as many confirms in flight as the connections can have.
    like_ours: Confirmed,
    used: Used,
}

impl Round {
    /// Callbacks a second whose messages only the broker limits.
    fn confirmed_callbacks(&self) -> f64 {
        self.confirms.rate / MESSAGES as f64
    }
}

pub(crate) async fn measure(servers: &Servers, form: &Form, report: &mut Report) {
    let mut rounds = Vec::new();
    for number in 1..=form.rounds {
        println!("round {number} of {}", form.rounds);
        rounds.push(round(servers, form.accepting).await);
    }
    add(&rounds, report);
    for connections in form.connections {
        let (accepted, ..) = post_to_ingest(servers, *connections, form.accepting, &[]).await;
        let point = Point::on_curve("connections", u32::try_from(*connections).unwrap());
        let callbacks = Figure::new("accept", "callbacks", accepted.rate, "/s");
        report.add(callbacks.at(&point));
        for (percentile, share) in [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)] {
            let latency = accepted.latency.percentile(share);
            report.add(Figure::new("accept", percentile, latency, "ms").at(&point));
        }
    }
}

fn add(rounds: &[Round], report: &mut Report) {
    let of = |what: fn(&Round) -> f64| median(rounds.iter().map(what));
    let callbacks = rounds.iter().map(|round| round.ours.rate);
    let callbacks = Figure::of_rounds("accept", "callbacks, 64 connections", callbacks, "/s");
    let http = of(|round| round.http.rate);
    let of_http = of(|round| round.ours.rate / round.http.rate);
    let confirms = of(Round::confirmed_callbacks);
    let of_confirms = of(|round| round.ours.rate / round.confirmed_callbacks());
    let ceilings = [
        ("bare HTTP server", http, of_http),
        ("bare confirms", confirms, of_confirms),
    ];
    report.add_rate(&callbacks, &ceilings, 0.6);
    let latency = of(|round| round.ours.latency.percentile(0.99));
    // With as many confirms in flight. The latency of 1,000 is mostly their own queue.
    let bare = of(|round| round.like_ours.latency.percentile(0.99));
    let p99 = Figure::new("accept", "p99, 64 connections", latency, "ms");
    let p99 = p99.beside("bare confirms, 256 in flight", bare);
    report.add(p99.at_most(5.0));
    let bare = of(|round| round.confirms.latency.percentile(0.99));
    let name = "p99 of bare confirms, 1,000 in flight";
    report.add(Figure::new("accept", name, bare, "ms"));
    let signed = of(|round| round.signed.rate);
    let of_unsigned = of(|round| round.signed.rate / round.ours.rate);
    let signed = Figure::new("accept", "callbacks, signed", signed, "/s");
    let unsigned = of(|round| round.ours.rate);
    let signed = signed.beside("unsigned", unsigned).with_ratio(of_unsigned);
    report.add(signed.at_least(0.95));
    let encrypted = of(|round| round.encrypted.rate);
    let of_plain = of(|round| round.encrypted.rate / round.ours.rate);
    let encrypted = Figure::new("accept", "callbacks, TLS", encrypted, "/s");
    let encrypted = encrypted.beside("without TLS", unsigned);
    report.add(encrypted.with_ratio(of_plain).at_least(0.8));
    let used = Used::median(rounds.iter().map(|round| round.used));
    report.add_process("accept", "ingest", used);
    for (what, accepted) in [
        ("accept", &rounds[0].ours),
        ("accept, bare HTTP server", &rounds[0].http),
    ] {
        report.add_processors(what, accepted.processors.clone());
    }
}

async fn round(servers: &Servers, duration: Duration) -> Round {
    let http = {
        let bare = Bare::start(Part::Callbacks).await;
        post(&bare.address.into(), CONNECTIONS, duration).await
    };
    let (ours, used) = post_to_ingest(servers, CONNECTIONS, duration, &[]).await;
    let key = [format!("--webhook-secrets={KEY}")];
    let (signed, _) = post_to_ingest(servers, CONNECTIONS, duration, &key).await;
    let encrypted = post_encrypted(servers, duration).await;
    let like_ours = bare_confirms(servers, CONNECTIONS * MESSAGES, duration).await;
    let confirms = bare_confirms(servers, WINDOW, duration).await;
    Round {
        ours,
        signed,
        encrypted,
        http,
        confirms,
        like_ours,
        used,
    }
}

async fn bare_confirms(servers: &Servers, in_flight: usize, duration: Duration) -> Confirmed {
    let world = World::create(servers).await;
    world.broker.declare().await;
    confirms(&world, in_flight, duration).await
}

/// Callbacks to an `ingest` that has a certificate. Each connection shakes hands once.
async fn post_encrypted(servers: &Servers, duration: Duration) -> Accepted {
    let authority = Authority::new("benchmark");
    let shown = authority.certify("ingest", &["127.0.0.1"]);
    let world = World::create(servers).await;
    world.broker.declare().await;
    let (_ingest, address) = stage::encrypted_ingest(&world, &shown).await;
    let tls = Some(authority.connector());
    post(&Way { address, tls }, CONNECTIONS, duration).await
}

/// Callbacks to an `ingest` with these settings, and what it took for them.
pub(crate) async fn post_to_ingest(
    servers: &Servers,
    connections: usize,
    duration: Duration,
    flags: &[String],
) -> (Accepted, Used) {
    let world = World::create(servers).await;
    world.broker.declare().await;
    let (process, address) = stage::ingest(&world, flags).await;
    let before = process.processor_time();
    let accepted = post(&address.into(), connections, duration).await;
    let ids = accepted.latency.len() as f64 * f64::from(CALLBACK);
    let used = Used::since(before, &process, ids);
    (accepted, used)
}
