//! What the pipeline is held against: loops that do the work of its parts, and no more.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use broker::{Headers, Queue, set_due};
use clap::ValueEnum;
use fetcher::{Object, UPSERT, UpsertParameters};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use messages::{FetchChunk, Message, ObjectId, encode};
use serde_json::{from_value, json};
use tests::processes::Process;
use tests::wait::eventually;
use tests::world::World;
use time::macros::datetime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::service::{Bare, start};
use crate::stage::CHUNK;
use crate::statistics::Durations;

/// What a broker confirmed.
pub(crate) struct Confirmed {
    /// Messages a second.
    pub(crate) rate: f64,
    /// From the publish to its confirm.
    pub(crate) latency: Durations,
}

/// The ids in its messages are as long as in those of the load.
const FIRST_ID: u32 = 30_000_000;

/// Publishes one message again and again, with so many confirms in flight.
pub(crate) async fn confirms(world: &World, in_flight: usize, duration: Duration) -> Confirmed {
    let connection = tests::servers::broker::connect(&world.amqp_url)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .unwrap();
    let ids = FIRST_ID..FIRST_ID + CHUNK;
    let object_ids = ids.map(|id| ObjectId(id.into())).collect();
    let body = encode(&FetchChunk { object_ids }).unwrap();
    let topology = &world.broker.topology;
    let exchange = topology.exchange();
    let key = topology.name(Queue::Fetch);
    let mut headers = Headers::default().to_table();
    set_due(&mut headers, Queue::Fetch, SystemTime::now());
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/json".into())
        .with_type(FetchChunk::KIND.into())
        .with_timestamp(0)
        .with_headers(headers);
    let publish = async || {
        let published = Instant::now();
        let options = BasicPublishOptions::default();
        let (exchange, key) = (exchange.as_str().into(), key.as_str().into());
        let confirm = channel
            .basic_publish(exchange, key, options, &body, properties.clone())
            .await
            .unwrap();
        assert!(confirm.await.unwrap().is_ack());
        published.elapsed()
    };
    let mut waiting = FuturesUnordered::new();
    let mut latencies = Vec::new();
    let begun = Instant::now();
    while begun.elapsed() < duration {
        while waiting.len() < in_flight {
            waiting.push(publish());
        }
        latencies.extend(waiting.next().await);
    }
    while let Some(latency) = waiting.next().await {
        latencies.push(latency);
    }
    let elapsed = begun.elapsed();
    Confirmed {
        rate: latencies.len() as f64 / elapsed.as_secs_f64(),
        latency: latencies.into_iter().collect(),
    }
}

/// A version of HTTP, without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Http {
    #[value(name = "1.1")]
    One,
    #[value(name = "2")]
    Two,
}

impl Http {
    /// The setting of the fetcher that makes it speak this version.
    pub(crate) fn flag(self) -> String {
        format!("--client-http-version={self}")
    }

    /// Clients for so many requests at once. With HTTP/2 each has one connection, which takes a limited
    /// number of them.
    fn clients(self, at_once: usize) -> Vec<reqwest::Client> {
        /// As hyper's server says.
        const STREAMS: usize = 200;
        let client = |_| {
            let builder = reqwest::Client::builder().pool_max_idle_per_host(at_once);
            let builder = match self {
                Self::One => builder.http1_only(),
                Self::Two => builder.http2_prior_knowledge(),
            };
            builder.no_proxy().build().unwrap()
        };
        let count = match self {
            Self::One => 1,
            Self::Two => at_once.div_ceil(STREAMS),
        };
        (0..count).map(client).collect()
    }
}

impl fmt::Display for Http {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.to_possible_value().unwrap().get_name())
    }
}

/// Looks so many ids up, so many at once; returns how many a second. The first tenth does not count,
/// as with the fetcher: connections are opened then.
pub(crate) async fn look_ups(url: &str, http: Http, ids: u32, concurrency: usize) -> f64 {
    let clients = http.clients(concurrency);
    let next = Arc::new(AtomicUsize::new(0));
    let warm = Arc::new(OnceLock::new());
    let mut work = JoinSet::new();
    for number in 0..concurrency {
        let (warm, next) = (Arc::clone(&warm), Arc::clone(&next));
        let (client, url) = (clients[number % clients.len()].clone(), url.to_owned());
        work.spawn(async move {
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id >= ids as usize {
                    return;
                }
                if id >= ids as usize / 10 {
                    warm.get_or_init(Instant::now);
                }
                look_up(&client, &url, id).await;
            }
        });
    }
    work.join_all().await;
    0.9 * f64::from(ids) / warm.get().unwrap().elapsed().as_secs_f64()
}

/// A process that keeps look-ups in flight until it is killed.
pub(crate) struct LookingUp(pub(crate) Process);

impl LookingUp {
    /// Starts it. It has not begun when its first line is there.
    pub(crate) async fn start(service: &Bare, http: Http, in_flight: f64) -> Self {
        let (url, http) = (service.url(), http.to_string());
        let in_flight = format!("{in_flight:.0}");
        let flags = [
            "--look-up",
            &url,
            "--http",
            &http,
            "--in-flight",
            &in_flight,
        ];
        let process = start(&flags);
        process.address_in_log("looking up").await;
        Self(process)
    }
}

/// Is such a process. A few look-ups are begun at a time: a service may refuse many new connections at
/// once.
pub(crate) async fn keep_looking_up(url: &str, http: Http, in_flight: usize) {
    const AT_A_TIME: usize = 64;
    const PAUSE: Duration = Duration::from_millis(20);
    let clients = http.clients(in_flight);
    println!("looking up address={}", url.trim_start_matches("http://"));
    let mut work = JoinSet::new();
    for number in 0..in_flight {
        if number % AT_A_TIME == 0 {
            sleep(PAUSE).await;
        }
        let (client, url) = (clients[number % clients.len()].clone(), url.to_owned());
        work.spawn(async move {
            for id in (number..).step_by(in_flight) {
                look_up(&client, &url, id).await;
            }
        });
    }
    work.join_all().await;
}

async fn look_up(client: &reqwest::Client, url: &str, id: usize) {
    let answer = client.get(format!("{url}/objects/{id}")).send().await;
    assert!(!answer.unwrap().bytes().await.unwrap().is_empty());
}

/// What share of the updates of the table so far changed their row in place, touching no index (HOT).
pub(crate) async fn in_place(world: &World) -> f64 {
    // Backends report what they did when they end.
    let reported = async || {
        let query = "select count(*) from pg_stat_activity
            where datname = current_database() and query like '%insert into objects%'
                and pid <> pg_backend_pid()";
        (world.database.number(query).await == 0).then_some(())
    };
    eventually("the statements to end", reported).await;
    let query = "
        select n_tup_hot_upd::float8 / nullif(n_tup_upd, 0)
        from pg_stat_user_tables where relname = 'objects'";
    let row = world.database.client.query_one(query, &[]).await.unwrap();
    row.get::<_, Option<f64>>(0).unwrap_or(f64::NAN)
}

/// Stores so many ids as the fetcher does, in statements of `batch`, so many at once; returns how
/// many ids a second.
pub(crate) async fn upserts(database_url: &str, ids: u32, batch: u32, concurrency: usize) -> f64 {
    let template: Object = from_value(json!({ "id": 0, "online": true })).unwrap();
    let object = |id, template: &Object| Object {
        id: ObjectId(id),
        ..template.clone()
    };
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..concurrency {
        let client = tests::servers::database::connect(database_url)
            .await
            .unwrap();
        let statement = client.prepare(UPSERT.text).await.unwrap();
        clients.push((client, statement));
    }
    let begun = Instant::now();
    let mut work = JoinSet::new();
    for (client, statement) in clients {
        let (next, template) = (Arc::clone(&next), template.clone());
        work.spawn(async move {
            loop {
                let first = next.fetch_add(batch as usize, Ordering::Relaxed);
                if first >= ids as usize {
                    return;
                }
                let first = i64::try_from(first).unwrap();
                let ids = first..first + i64::from(batch);
                let objects: Vec<_> = ids.map(|id| object(id, &template)).collect();
                let never = datetime!(9999-12-31 0:00 UTC);
                let parameters = UpsertParameters::new(&objects, 3_600_000, 0, never);
                let values = parameters.typed().map(|(value, _)| value);
                client.query_one(&statement, &values).await.unwrap();
            }
        });
    }
    work.join_all().await;
    f64::from(ids) / begun.elapsed().as_secs_f64()
}
