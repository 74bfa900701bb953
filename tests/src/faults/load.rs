//! Callbacks without end, as the client service sends them: what was answered 2xx is remembered.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// What takes longer is late: a client service would send it again.
const PATIENCE: Duration = Duration::from_secs(1);

/// After this time a callback is given up.
const GIVEN_UP: Duration = Duration::from_secs(5);

/// How many connections callbacks come on.
const SENDERS: usize = 6;

/// How often a callback comes on each.
const INTERVAL: Duration = Duration::from_millis(300);

/// Ids in a callback.
const IDS: i64 = 20;

/// So many callbacks on a connection, and one comes again.
const REPEAT: u32 = 6;

/// What the callbacks were answered.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Every id of a callback that was answered 2xx.
    pub accepted: BTreeSet<i64>,
    /// How many callbacks were.
    pub callbacks: u64,
    /// Those of them that were answered late.
    pub late: u64,
    /// Callbacks that were answered otherwise, or not at all.
    pub refused: u64,
    /// How long the slowest 2xx took.
    pub slowest: Duration,
}

/// What the senders do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flow {
    On,
    Paused,
    Ended,
}

/// Callbacks that come until told otherwise. They end with the test's runtime.
pub struct Load {
    source: Arc<Source>,
    flow: watch::Sender<Flow>,
    senders: JoinSet<()>,
}

struct Source {
    ingest: SocketAddr,
    next_id: AtomicI64,
    next_probe: AtomicI64,
    answers: Mutex<Answers>,
}

impl Load {
    /// Will post to `ingest` from [`Self::resume`] on. Ids count up from 1, those of probes down from
    /// -1.
    #[must_use]
    pub fn new(ingest: SocketAddr) -> Self {
        let source = Arc::new(Source {
            ingest,
            next_id: AtomicI64::new(1),
            next_probe: AtomicI64::new(-1),
            answers: Mutex::default(),
        });
        let (flow, watched) = watch::channel(Flow::Paused);
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            senders.spawn(send(Arc::clone(&source), watched.clone()));
        }
        Self {
            source,
            flow,
            senders,
        }
    }

    /// Sends nothing until [`Self::resume`].
    pub fn pause(&self) {
        self.flow.send_replace(Flow::Paused);
    }

    /// Begins, or goes on after [`Self::pause`].
    pub fn resume(&self) {
        self.flow.send_replace(Flow::On);
    }

    /// Ends, and returns when the last callback is answered or given up.
    pub async fn stop(&mut self) {
        self.flow.send_replace(Flow::Ended);
        while self.senders.join_next().await.is_some() {}
    }

    /// Posts a callback with a new id, which is online.
    pub fn probe(&self) {
        let id = self.source.next_probe.fetch_sub(1, Ordering::Relaxed);
        let source = Arc::clone(&self.source);
        tokio::spawn(async move { source.post(&mut None, &[id]).await });
    }

    /// The id of the next probe; those that follow it are below.
    #[must_use]
    pub fn next_probe(&self) -> i64 {
        self.source.next_probe.load(Ordering::Relaxed)
    }

    /// What was answered until now.
    #[must_use]
    pub fn answers(&self) -> Answers {
        self.source.answers.lock().unwrap().clone()
    }
}

type Connection = Option<SendRequest<Full<Bytes>>>;

async fn send(source: Arc<Source>, mut flow: watch::Receiver<Flow>) {
    let mut ticks = interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut connection = None;
    let mut ids = Vec::new();
    let mut sent = 0_u32;
    loop {
        ticks.tick().await;
        match flow.wait_for(|flow| *flow != Flow::Paused).await.as_deref() {
            Ok(Flow::On) => {}
            _ => return,
        }
        if !sent.is_multiple_of(REPEAT) || ids.is_empty() {
            let first = source.next_id.fetch_add(IDS, Ordering::Relaxed);
            ids = (first..first + IDS).collect();
        }
        source.post(&mut connection, &ids).await;
        sent += 1;
    }
}

impl Source {
    async fn post(&self, connection: &mut Connection, ids: &[i64]) {
        let started = Instant::now();
        let answer = timeout(GIVEN_UP, self.status(connection, ids)).await;
        let took = started.elapsed();
        let accepted = matches!(answer, Ok(Some(status)) if status.is_success());
        if !matches!(answer, Ok(Some(_))) {
            *connection = None;
        }
        let mut answers = self.answers.lock().unwrap();
        if accepted {
            answers.accepted.extend(ids);
            answers.callbacks += 1;
            answers.late += u64::from(took > PATIENCE);
            answers.slowest = answers.slowest.max(took);
        } else {
            answers.refused += 1;
        }
    }

    /// The status of the answer, or nothing where none came.
    async fn status(&self, connection: &mut Connection, ids: &[i64]) -> Option<StatusCode> {
        let reusable = match connection {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !reusable {
            let stream = TcpStream::connect(self.ingest).await.ok()?;
            let (sender, work) = handshake(TokioIo::new(stream)).await.ok()?;
            tokio::spawn(work);
            *connection = Some(sender);
        }
        let request = Request::post("/callback")
            .header("host", self.ingest.to_string())
            .body(Full::from(
                serde_json::json!({ "object_ids": ids }).to_string(),
            ));
        let answer = connection.as_mut()?.send_request(request.ok()?).await;
        Some(answer.ok()?.status())
    }
}
