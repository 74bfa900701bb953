//! Client services, and what else runs as a process that is not the pipeline's: this program, started to
//! be one of these parts.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rand::Rng;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tests::processes::Process;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::sleep;

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Reads the body of a request and answers 202.
    Callbacks,
    /// A client service that answers at once: every object is online.
    Objects,
    /// One that answers after 0.3 to 4.3 s.
    SlowObjects,
    /// One that works on 50 look-ups at a time, for 20 ms each. Others wait.
    FewObjects,
    /// One that works on 200 look-ups at a time, for 50 ms each, or longer while it is told to.
    FickleObjects,
}

/// A server that runs. It is killed when dropped.
pub(crate) struct Bare {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    http: reqwest::Client,
    _process: Process,
}

impl Bare {
    /// Starts a server.
    pub(crate) async fn start(part: Part) -> Self {
        let value = part.to_possible_value().unwrap();
        let process = start(&["--serve", value.get_name()]);
        Self {
            address: process.address_in_log("listening").await,
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            _process: process,
        }
    }

    /// What it has to do and has done.
    pub(crate) async fn load(&self) -> Load {
        self.ask(LOAD_PATH).await
    }

    /// How many look-ups it has answered.
    pub(crate) async fn answered(&self) -> u32 {
        self.load().await.answered
    }

    /// From now on each look-up takes `factor` times as long as usual.
    pub(crate) async fn slow_down(&self, factor: u32) {
        self.ask::<u32>(&format!("{FACTOR_PATH}{factor}")).await;
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> T {
        let answer = self.http.get(self.url() + path).send().await.unwrap();
        answer.json().await.unwrap()
    }

    /// Where it listens, as a setting names it.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Starts this program with other arguments.
pub(crate) fn start(arguments: &[&str]) -> Process {
    let program = std::env::current_exe().unwrap();
    let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
    Process::started(program.to_str().unwrap(), &arguments)
}

/// What a client service has to do and has done.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Look-ups that were answered.
    pub(crate) answered: u32,
    /// Look-ups that have come and were not answered, with those that wait.
    pub(crate) in_flight: u32,
    /// Look-ups that wait until others are answered.
    pub(crate) waiting: u32,
}

static ANSWERED: AtomicU32 = AtomicU32::new(0);
static IN_FLIGHT: AtomicU32 = AtomicU32::new(0);
static WAITING: AtomicU32 = AtomicU32::new(0);
/// How many times as long as by itself each look-up takes.
static FACTOR: AtomicU32 = AtomicU32::new(1);

/// Where a [`Load`] is asked for.
const LOAD_PATH: &str = "/load";
/// Where the factor is set that follows.
const FACTOR_PATH: &str = "/factor/";

/// Adds one to a number for as long as it lives: a look-up may be cut off.
struct Counted(&'static AtomicU32);

impl Counted {
    fn in_number(number: &'static AtomicU32) -> Self {
        number.fetch_add(1, Ordering::Relaxed);
        Self(number)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Is a server until it is killed. Its first line of output has its address. 128 connections may wait to
/// be accepted, as is usual: of more at once some are only made a second later.
pub(crate) async fn serve(part: Part) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("listening address={}", listener.local_addr().unwrap());
    let places = Arc::new(Semaphore::new(match part {
        Part::FewObjects => 50,
        Part::FickleObjects => 200,
        _ => Semaphore::MAX_PERMITS,
    }));
    // HTTP/1.1 and, without TLS, HTTP/2.
    let server = auto::Builder::new(TokioExecutor::new());
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let places = Arc::clone(&places);
        let service = service_fn(move |request| answer(part, Arc::clone(&places), request));
        let server = server.clone();
        tokio::spawn(async move {
            let connection = server.serve_connection(TokioIo::new(stream), service);
            // It may be cut off.
            drop(connection.await);
        });
    }
}

async fn answer(
    part: Part,
    places: Arc<Semaphore>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if part == Part::Callbacks {
        drop(request.into_body().collect().await);
        let mut response = Response::new(Full::from(r#"{"accepted":200}"#));
        *response.status_mut() = StatusCode::ACCEPTED;
        return Ok(response);
    }
    let path = request.uri().path();
    let text = if let Some(factor) = path.strip_prefix(FACTOR_PATH) {
        FACTOR.store(factor.parse().unwrap(), Ordering::Relaxed);
        factor.to_owned()
    } else if path == LOAD_PATH {
        serde_json::to_string(&load()).unwrap()
    } else {
        look_up(part, &places).await;
        let id = path.rsplit('/').next().unwrap_or_default();
        format!(r#"{{"id":{id},"online":true}}"#)
    };
    Ok(Response::new(Full::from(text)))
}

fn load() -> Load {
    let number = |number: &AtomicU32| number.load(Ordering::Relaxed);
    Load {
        answered: number(&ANSWERED),
        in_flight: number(&IN_FLIGHT),
        waiting: number(&WAITING),
    }
}

/// Takes as long as a look-up does.
async fn look_up(part: Part, places: &Semaphore) {
    let _in_flight = Counted::in_number(&IN_FLIGHT);
    let _place = {
        let _waiting = Counted::in_number(&WAITING);
        places.acquire().await.unwrap()
    };
    let latency = match part {
        Part::SlowObjects => rand::rng().random_range(300..=4_300),
        Part::FewObjects => 20,
        Part::FickleObjects => 50 * FACTOR.load(Ordering::Relaxed),
        _ => 0,
    };
    if latency > 0 {
        sleep(Duration::from_millis(latency.into())).await;
    }
    ANSWERED.fetch_add(1, Ordering::Relaxed);
}
