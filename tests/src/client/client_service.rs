//! A client service that answers as a test tells it to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use http_server::{RequestBody, Service};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use crate::servers::http_server::start_serving;
use crate::wait::eventually;

/// How one look-up is answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The object is online.
    Online,
    /// The object is offline.
    Offline,
    /// A status, with a `Retry-After` header where there is one.
    Status(u16, Option<&'static str>),
    /// Status 200 with this body.
    Body(String),
    /// A status and a page, as gateways answer, and log-in pages: about no object. It leads elsewhere
    /// where the status says so.
    Page(u16),
    /// No answer.
    Silence,
}

impl Reply {
    fn response(self, id: i64) -> Response<Full<Bytes>> {
        let online = |online: bool| serde_json::json!({ "id": id, "online": online }).to_string();
        let page = "<html><body>Hello</body></html>".to_owned();
        let (status, retry_after, body) = match self {
            Self::Online => (200, None, online(true)),
            Self::Offline => (200, None, online(false)),
            Self::Body(body) => (200, None, body),
            Self::Page(status) => (status, None, page),
            Self::Status(status, retry_after) => (status, retry_after, "{}".to_owned()),
            Self::Silence => (500, None, String::new()),
        };
        let mut response = Response::builder().status(status);
        if (300..400).contains(&status) {
            response = response.header("location", "/login");
        }
        if let Some(retry_after) = retry_after {
            response = response.header("retry-after", retry_after);
        }
        response.body(Full::from(body)).unwrap()
    }
}

/// Chooses the reply to the `n`th look-up (from 1) of an id.
type Script = dyn Fn(i64, usize) -> Reply + Send + Sync;

#[derive(Default)]
struct Record {
    looked_up: HashMap<i64, Vec<Instant>>,
    headers: HashMap<i64, Vec<HeaderMap>>,
    in_flight: usize,
    most_in_flight: usize,
}

struct Scripted {
    script: Box<Script>,
    /// What everything is answered, whatever the script says.
    outage: Mutex<Option<Reply>>,
    record: Mutex<Record>,
    held: watch::Receiver<bool>,
    /// How many answers may be given although they are held back.
    let_through: Semaphore,
}

/// The client service of a test. It ends with the test's runtime.
pub struct ClientService {
    /// Address for `CLIENT_URL`.
    pub url: String,
    scripted: Arc<Scripted>,
    hold: watch::Sender<bool>,
    /// Bound but not listening: connections are refused.
    refusing: Option<TcpSocket>,
}

impl ClientService {
    /// Starts to answer.
    pub async fn start(script: impl Fn(i64, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = Self::new(script, listener.local_addr().unwrap());
        client.serve(listener);
        client
    }

    /// Refuses connections, until [`Self::listen`].
    pub fn refuse(script: impl Fn(i64, usize) -> Reply + Send + Sync + 'static) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let mut client = Self::new(script, socket.local_addr().unwrap());
        client.refusing = Some(socket);
        client
    }

    /// Starts to answer, after all.
    pub fn listen(&mut self) {
        let socket = self.refusing.take().unwrap();
        self.serve(socket.listen(1_024).unwrap());
    }

    fn new(
        script: impl Fn(i64, usize) -> Reply + Send + Sync + 'static,
        address: SocketAddr,
    ) -> Self {
        let (hold, watched) = watch::channel(false);
        Self {
            url: format!("http://{address}"),
            scripted: Arc::new(Scripted {
                script: Box::new(script),
                outage: Mutex::default(),
                record: Mutex::default(),
                held: watched,
                let_through: Semaphore::new(0),
            }),
            hold,
            refusing: None,
        }
    }

    fn serve(&self, listener: TcpListener) {
        start_serving(listener, Arc::clone(&self.scripted));
    }

    /// From now on answers everything with `reply`.
    pub fn fail(&self, reply: Reply) {
        *self.scripted.outage.lock().unwrap() = Some(reply);
    }

    /// From now on answers as the script says.
    pub fn recover(&self) {
        *self.scripted.outage.lock().unwrap() = None;
    }

    /// Holds back all answers until [`Self::release`].
    pub fn hold(&self) {
        self.hold.send_replace(true);
    }

    /// Gives the answers that were held back, and further ones at once.
    pub fn release(&self) {
        self.hold.send_replace(false);
    }

    /// Gives `count` of the answers that are held back.
    pub fn let_through(&self, count: usize) {
        self.scripted.let_through.add_permits(count);
    }

    /// When an id was looked up.
    #[must_use]
    pub fn look_ups(&self, id: i64) -> Vec<Instant> {
        self.scripted
            .record
            .lock()
            .unwrap()
            .looked_up
            .get(&id)
            .cloned()
            .unwrap_or_default()
    }

    /// The headers that an id was looked up with, each time.
    #[must_use]
    pub fn headers(&self, id: i64) -> Vec<HeaderMap> {
        let record = self.scripted.record.lock().unwrap();
        record.headers.get(&id).cloned().unwrap_or_default()
    }

    /// How many look-ups there were in all.
    #[must_use]
    pub fn total(&self) -> usize {
        self.scripted
            .record
            .lock()
            .unwrap()
            .looked_up
            .values()
            .map(Vec::len)
            .sum()
    }

    /// When there were look-ups, of whatever id, in their order.
    #[must_use]
    pub fn times(&self) -> Vec<Instant> {
        let record = self.scripted.record.lock().unwrap();
        let mut times: Vec<Instant> = record.looked_up.values().flatten().copied().collect();
        times.sort_unstable();
        times
    }

    /// Most look-ups that were in flight at once.
    #[must_use]
    pub fn most_in_flight(&self) -> usize {
        self.scripted.record.lock().unwrap().most_in_flight
    }

    /// Waits until `count` look-ups are in flight.
    pub async fn until_in_flight(&self, count: usize) {
        let in_flight =
            async || (self.scripted.record.lock().unwrap().in_flight == count).then_some(());
        eventually(&format!("{count} look-ups in flight"), in_flight).await;
    }
}

impl Service for Scripted {
    async fn respond(&self, request: Request<RequestBody>, _: SocketAddr) -> Response<Full<Bytes>> {
        let id: i64 = request
            .uri()
            .path()
            .strip_prefix("/objects/")
            .unwrap()
            .parse()
            .unwrap();
        let nth = {
            let mut record = self.record.lock().unwrap();
            record.in_flight += 1;
            record.most_in_flight = record.most_in_flight.max(record.in_flight);
            let looked_up = record.looked_up.entry(id).or_default();
            looked_up.push(Instant::now());
            let nth = looked_up.len();
            let headers = request.headers().clone();
            record.headers.entry(id).or_default().push(headers);
            nth
        };
        let _in_flight = InFlight(self);
        self.released().await;
        let outage = self.outage.lock().unwrap().clone();
        let reply = outage.unwrap_or_else(|| (self.script)(id, nth));
        if matches!(reply, Reply::Silence) {
            std::future::pending::<()>().await;
        }
        reply.response(id)
    }
}

impl Scripted {
    async fn released(&self) {
        let mut held = self.held.clone();
        let released = async {
            if held.wait_for(|held| !held).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            biased;
            () = released => {}
            permit = self.let_through.acquire() => permit.unwrap().forget(),
        }
    }
}

struct InFlight<'a>(&'a Scripted);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.record.lock().unwrap().in_flight -= 1;
    }
}
