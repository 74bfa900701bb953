//! The network between two parts of the pipeline, with faults at will.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// How a network behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Everything passes.
    Pass,
    /// Every connection is reset, and so is every new one.
    Cut,
    /// A black hole: connections stay, and nothing passes.
    Hang,
    /// Whatever passes comes late by this time.
    Slow(Duration),
}

#[derive(Clone, Copy)]
struct State {
    network: Network,
    /// Where new connections lead to.
    upstream: SocketAddr,
    /// How often the open connections were reset.
    resets: u32,
    /// How often the open connections were forgotten.
    forgotten: u32,
}

/// A TCP proxy with one address for as long as it lives. It ends with the test's runtime.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    state: watch::Sender<State>,
    accepted: Arc<AtomicUsize>,
}

impl Proxy {
    /// Starts to listen, and leads to `upstream`.
    pub async fn start(upstream: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (state, watched) = watch::channel(State {
            network: Network::Pass,
            upstream,
            resets: 0,
            forgotten: 0,
        });
        let accepted = Arc::new(AtomicUsize::new(0));
        tokio::spawn(accept(listener, watched, Arc::clone(&accepted)));
        Self {
            address,
            state,
            accepted,
        }
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Changes how the network behaves, for open connections too.
    pub fn set(&self, network: Network) {
        self.state.send_modify(|state| state.network = network);
    }

    /// Leads new connections elsewhere.
    pub fn lead_to(&self, upstream: SocketAddr) {
        self.state.send_modify(|state| state.upstream = upstream);
    }

    /// Resets the open connections. New ones pass.
    pub fn reset(&self) {
        self.state.send_modify(|state| state.resets += 1);
    }

    /// Forgets the open connections, as a router does that restarts: neither side hears of
    /// it, and nothing passes on them any more. New ones pass.
    pub fn forget(&self) {
        self.state.send_modify(|state| state.forgotten += 1);
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>, accepted: Arc<AtomicUsize>) {
    // For instance no file descriptors left: it passes.
    const PAUSE: Duration = Duration::from_millis(50);
    loop {
        let Ok((downstream, _)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        accepted.fetch_add(1, Ordering::Relaxed);
        let opened = *state.borrow();
        tokio::spawn(connection(downstream, opened, state.clone()));
    }
}

/// One connection from its opening to its end, orderly or not.
async fn connection(mut downstream: TcpStream, opened: State, mut state: watch::Receiver<State>) {
    let mut upstream = None;
    let ended = tokio::select! {
        ended = carry(&mut downstream, &mut upstream, opened, state.clone()) => ended.is_ok(),
        _ = state.wait_for(|now| now.network == Network::Cut || now.resets != opened.resets) => false,
    };
    if !ended {
        for stream in upstream.iter().chain([&downstream]) {
            // Closing then sends a reset in place of an orderly end.
            drop(stream.set_zero_linger());
        }
    }
}

async fn carry(
    downstream: &mut TcpStream,
    upstream: &mut Option<TcpStream>,
    opened: State,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let address = passage(&mut state, opened).await.upstream;
    let upstream = upstream.insert(TcpStream::connect(address).await?);
    downstream.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let (from_client, to_client) = downstream.split();
    let (from_server, to_server) = upstream.split();
    let up = copy(from_client, to_server, opened, state.clone());
    let down = copy(from_server, to_client, opened, state);
    tokio::try_join!(up, down).map(drop)
}

async fn copy(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    opened: State,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if let Network::Slow(by) = passage(&mut state, opened).await.network {
            tokio::time::sleep(by).await;
        }
        if read == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// Waits until something can pass on a connection that was opened in the state `opened`.
async fn passage(state: &mut watch::Receiver<State>, opened: State) -> State {
    let passes = |now: &State| now.network != Network::Hang && now.forgotten == opened.forgotten;
    if let Ok(now) = state.wait_for(passes).await {
        return *now;
    }
    // The test is over.
    std::future::pending().await
}
