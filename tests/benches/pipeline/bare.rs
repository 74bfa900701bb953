//! What the pipeline is held against: its parts without the pipeline. Servers are processes of
//! their own, as the pipeline's are; loops run here.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use broker::{Headers, Queue, set_due};
use bytes::Bytes;
use clap::ValueEnum;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use messages::{FetchChunk, Message, ObjectId, encode};
use rand::Rng;
use tests::wait::eventually;
use tests::world::World;
use time::macros::datetime;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::stage::CHUNK;
use crate::statistics::Durations;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Reads the body of a request and answers 202.
    Callbacks,
    /// A client service that answers at once: every object is online.
    Objects,
    /// One that answers after 0.3 to 4.3 s.
    SlowObjects,
}

/// A server that runs. It is killed when dropped.
pub(crate) struct Bare {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    http: reqwest::Client,
    _child: Child,
}

impl Bare {
    /// Starts a server.
    pub(crate) async fn start(part: Part) -> Self {
        let value = part.to_possible_value().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--serve", value.get_name()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.next_line().await.unwrap().unwrap();
        Self {
            address: address.parse().unwrap(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _child: child,
        }
    }

    /// How many look-ups it has answered.
    pub(crate) async fn answered(&self) -> u32 {
        let url = self.url() + ANSWERED_PATH;
        let answer = self.http.get(url).send().await.unwrap();
        answer.text().await.unwrap().parse().unwrap()
    }

    /// Where it listens, as a setting names it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Is a server until it is killed. Its first line of output is its address.
pub(crate) async fn serve(part: Part) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", listener.local_addr().unwrap());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let service = service_fn(move |request| answer(part, request));
        let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
        tokio::spawn(connection);
    }
}

/// How many look-ups were answered.
static ANSWERED: AtomicU32 = AtomicU32::new(0);

/// Where that is asked for.
const ANSWERED_PATH: &str = "/answered";

async fn answer(
    part: Part,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if request.uri().path() == ANSWERED_PATH {
        let answered = ANSWERED.load(Ordering::Relaxed).to_string();
        return Ok(Response::new(Full::from(answered)));
    }
    if part == Part::Callbacks {
        drop(request.into_body().collect().await);
        let mut response = Response::new(Full::from(r#"{"accepted":200}"#));
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    if part == Part::SlowObjects {
        let latency = rand::rng().random_range(300..=4_300);
        tokio::time::sleep(Duration::from_millis(latency)).await;
    }
    ANSWERED.fetch_add(1, Ordering::Relaxed);
    let id = request.uri().path().rsplit('/').next().unwrap_or_default();
    Ok(Response::new(Full::from(format!(
        r#"{{"id":{id},"online":true}}"#
    ))))
}

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

/// Looks so many ids up, so many at once; returns how many a second. The first tenth does not count,
/// as with the fetcher: connections are opened then.
pub(crate) async fn look_ups(url: &str, ids: u32, concurrency: usize) -> f64 {
    let client = reqwest::Client::builder()
        .pool_max_idle_per_host(concurrency)
        .no_proxy()
        .build()
        .unwrap();
    let next = Arc::new(AtomicUsize::new(0));
    let warm = Arc::new(OnceLock::new());
    let mut work = JoinSet::new();
    for _ in 0..concurrency {
        let warm = Arc::clone(&warm);
        let (client, url, next) = (client.clone(), url.to_owned(), Arc::clone(&next));
        work.spawn(async move {
            loop {
                let id = next.fetch_add(1, Ordering::Relaxed);
                if id >= ids as usize {
                    return;
                }
                if id >= ids as usize / 10 {
                    warm.get_or_init(Instant::now);
                }
                let answer = client.get(format!("{url}/objects/{id}")).send().await;
                assert!(!answer.unwrap().bytes().await.unwrap().is_empty());
            }
        });
    }
    work.join_all().await;
    0.9 * f64::from(ids) / warm.get().unwrap().elapsed().as_secs_f64()
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
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = Vec::new();
    for _ in 0..concurrency {
        let client = tests::servers::database::connect(database_url)
            .await
            .unwrap();
        let statement = client.prepare(fetcher::UPSERT.text).await.unwrap();
        clients.push((client, statement));
    }
    let begun = Instant::now();
    let mut work = JoinSet::new();
    for (client, statement) in clients {
        let next = Arc::clone(&next);
        work.spawn(async move {
            loop {
                let first = next.fetch_add(batch as usize, Ordering::Relaxed);
                if first >= ids as usize {
                    return;
                }
                let first = i64::try_from(first).unwrap();
                let rows: Vec<i64> = (first..first + i64::from(batch)).collect();
                let (ttl, age, deadline) = (3_600_000_i64, 0_i64, datetime!(9999-12-31 0:00 UTC));
                client
                    .query_one(&statement, &[&rows, &ttl, &age, &deadline])
                    .await
                    .unwrap();
            }
        });
    }
    work.join_all().await;
    f64::from(ids) / begun.elapsed().as_secs_f64()
}
