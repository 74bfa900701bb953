//! One connection to the database: how it is made, to which of several servers, and how a statement
//! on it is given up.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use deadpool_postgres::ClientWrapper;
use futures::future::{join_all, poll_fn};
use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tcp::{connect, stranger};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::config::Host;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::either::Either;

use crate::database_url::{DatabaseUrl, POSTGRES};
use crate::error::reason;
use crate::metrics::CONNECTIONS_OPENED;

/// How long a connection is idle before the kernel asks the server's host whether it is still there,
/// and the time between two such questions.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// The function of the server that warns of a commit that did not wait for its standby.
const STANDBY_WAIT: &str = "SyncRepWaitForLSN";

/// A stream to a server that gives notice of each read.
struct Wire {
    stream: Either<TcpStream, UnixStream>,
    heard: Arc<Notify>,
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        self.heard.notify_one();
        Poll::Ready(read)
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Where one server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// One server, or one address of a server with several.
#[derive(Clone, Debug)]
struct Server {
    place: Place,
    address: Address,
}

/// Host and port as the URL names them, or the path of a socket.
#[derive(Clone, Debug)]
struct Place {
    host: String,
    port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.host, self.port)
    }
}

impl Server {
    /// Opens a stream. The kernel ends it when the server's host has not acknowledged what was sent for
    /// `silence`.
    async fn open(&self, heard: &Arc<Notify>, silence: Duration) -> io::Result<Wire> {
        let stream = match &self.address {
            Address::Tcp(address) => {
                let stream = connect(*address, silence).await?;
                let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
                let keepalive = keepalive.with_interval(KEEPALIVE);
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                Either::Left(stream)
            }
            Address::Unix(path) => Either::Right(UnixStream::connect(path).await?),
        };
        let heard = Arc::clone(heard);
        Ok(Wire { stream, heard })
    }

    fn tls(&self, tls: &MakeRustlsConnect) -> Encryption {
        let mut tls = tls.clone();
        let Ok(tls) = MakeTlsConnect::<Wire>::make_tls_connect(&mut tls, &self.place.host);
        tls
    }
}

/// How a stream to one server is encrypted.
type Encryption = <MakeRustlsConnect as MakeTlsConnect<Wire>>::TlsConnect;

/// Makes connections, to the first of the servers that answers and can be written to.
pub(crate) struct Connector {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    timeout: Duration,
    /// The server of the last connection. It is tried first, because servers before it may hang.
    last: Mutex<Option<Address>>,
}

impl Connector {
    /// Connects as `process` to the servers of `url`. They share `timeout`: each server is given up when
    /// it is silent for its part.
    pub(crate) fn new(url: &DatabaseUrl, process: &str, timeout: Duration) -> Self {
        let mut config = url.config().clone();
        config.application_name(process);
        Self {
            config,
            tls: url.tls().cloned().map(MakeRustlsConnect::new),
            timeout,
            last: Mutex::default(),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// Why each of the servers could not be connected to.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let (servers, mut failures) = self.servers().await;
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let silence = self.timeout / count.max(1);
        for server in servers {
            // A future that is far larger than all others, and rarely needed.
            match Box::pin(self.connect_to(&server, silence, count > 1)).await {
                Ok(connection) => {
                    CONNECTIONS_OPENED.increment(1);
                    *self.last.lock() = Some(server.address);
                    return Ok(connection);
                }
                Err(why) => failures.push((server.place, why)),
            }
        }
        Err(ConnectError(failures))
    }

    /// Every address of every server, that of the last connection first, and the servers without a known
    /// address.
    async fn servers(&self) -> (Vec<Server>, Vec<(Place, Failure)>) {
        let (hosts, ports) = (self.config.get_hosts(), self.config.get_ports());
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let looked_up = hosts.iter().enumerate().map(async |(index, host)| {
            let port = port(index);
            let place = |host: &str| Place {
                host: host.to_owned(),
                port,
            };
            match host {
                Host::Tcp(name) => {
                    let known = self.config.get_hostaddrs().get(index);
                    let known = known.map(|address| SocketAddr::new(*address, port));
                    (place(name), self.addresses(name, port, known).await)
                }
                Host::Unix(folder) => {
                    let path = folder.join(format!(".s.PGSQL.{port}"));
                    (
                        place(&folder.display().to_string()),
                        Ok(vec![Address::Unix(path)]),
                    )
                }
            }
        });
        let (mut servers, mut failures) = (Vec::new(), Vec::new());
        for (place, addresses) in join_all(looked_up).await {
            match addresses {
                Ok(addresses) => servers.extend(addresses.into_iter().map(|address| Server {
                    place: place.clone(),
                    address,
                })),
                Err(failure) => failures.push((place, failure)),
            }
        }
        let last = self.last.lock().clone();
        servers.sort_by_key(|server| Some(&server.address) != last.as_ref());
        (servers, failures)
    }

    async fn addresses(
        &self,
        name: &str,
        port: u16,
        known: Option<SocketAddr>,
    ) -> Result<Vec<Address>, Failure> {
        if let Some(address) = known {
            return Ok(vec![Address::Tcp(address)]);
        }
        let found = timeout(self.timeout, lookup_host((name, port))).await;
        let found = found.map_err(|_| Failure::Silent(self.timeout))??;
        Ok(found.map(Address::Tcp).collect())
    }

    /// The handshake takes several round trips, each of which may take as long as `silence`.
    async fn connect_to(
        &self,
        server: &Server,
        silence: Duration,
        is_choice: bool,
    ) -> Result<Connection, Failure> {
        let heard = Arc::new(Notify::new());
        let opened = timeout(silence, server.open(&heard, self.timeout)).await;
        let wire = opened.map_err(|_| Failure::Silent(silence))??;
        let connecting = async {
            let connection = self.shake_hands(server, wire).await?;
            if is_choice && connection.is_read_only().await? {
                return Err(Failure::ReadOnly);
            }
            Ok(connection)
        };
        while_heard(&heard, silence, connecting).await
    }

    async fn shake_hands(&self, server: &Server, wire: Wire) -> Result<Connection, Failure> {
        let is_unreplicated = Arc::new(AtomicBool::new(false));
        let unreplicated = Arc::clone(&is_unreplicated);
        let client = match &self.tls {
            None => self.shake_hands_over(NoTls, wire, unreplicated).await?,
            Some(tls) => {
                let tls = server.tls(tls);
                self.shake_hands_over(tls, wire, unreplicated).await?
            }
        };
        Ok(Connection {
            client,
            is_unreplicated,
            is_retired: AtomicBool::new(false),
            server: server.clone(),
            tls: self.tls.clone(),
            timeout: self.timeout,
        })
    }

    async fn shake_hands_over<T>(
        &self,
        tls: T,
        wire: Wire,
        unreplicated: Arc<AtomicBool>,
    ) -> Result<ClientWrapper, tokio_postgres::Error>
    where
        T: TlsConnect<Wire>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = self.config.connect_raw(wire, tls).await?;
        let carrying = tokio::spawn(carry(connection, unreplicated));
        Ok(ClientWrapper::new(client, carrying))
    }
}

impl Manager for Connector {
    type Type = Connection;
    type Error = ConnectError;

    async fn create(&self) -> Result<Connection, ConnectError> {
        self.connect().await
    }

    async fn recycle(
        &self,
        connection: &mut Connection,
        _: &Metrics,
    ) -> RecycleResult<ConnectError> {
        if connection.is_closed() || connection.is_retired.load(Ordering::Relaxed) {
            return Err(RecycleError::message("of no further use"));
        }
        Ok(())
    }
}

/// Waits for `work`, unless nothing is heard for `silence`.
async fn while_heard<T>(
    heard: &Notify,
    silence: Duration,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            heard = timeout(silence, heard.notified()) => {
                heard.map_err(|_| Failure::Silent(silence))?;
            }
        }
    }
}

/// Carries statements and answers. Notes when the server warns that a commit did not wait for its
/// standby: the warning comes before the end of the answer.
async fn carry<T>(
    mut connection: tokio_postgres::Connection<Wire, T>,
    unreplicated: Arc<AtomicBool>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
        match message {
            Ok(AsyncMessage::Notice(notice)) => {
                tracing::debug!(%notice, "the database gave notice");
                if notice.routine() == Some(STANDBY_WAIT) {
                    unreplicated.store(true, Ordering::Release);
                }
            }
            Ok(_) => {}
            // A statement that was under way fails with it, and says so.
            Err(error) => {
                tracing::debug!(error = reason(&error), "a connection to the database ended");
                return;
            }
        }
    }
}

/// A connection. It is closed when dropped.
pub struct Connection {
    client: ClientWrapper,
    is_unreplicated: Arc<AtomicBool>,
    is_retired: AtomicBool,
    server: Server,
    tls: Option<MakeRustlsConnect>,
    timeout: Duration,
}

impl Connection {
    async fn is_read_only(&self) -> Result<bool, tokio_postgres::Error> {
        let shown = self
            .client
            .simple_query("show transaction_read_only")
            .await?;
        Ok(shown.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on")),
        ))
    }

    /// Keeps the pool from using it again.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// Whether a commit since the last call did not wait for its standby, because somebody cancelled the
    /// wait. The server reports such a commit as a success.
    pub(crate) fn was_unreplicated(&self) -> bool {
        self.is_unreplicated.swap(false, Ordering::Acquire)
    }

    /// Cancels the statement at the server, within the time-out, and closes the connection. Otherwise the
    /// server would go on with it, and hold its locks, for as long as it waits for a lock or a standby.
    pub(crate) fn abandon(self) {
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        runtime.spawn(async move {
            let ended = async {
                self.cancel().await?;
                // Its answer follows that of the statement.
                self.client.check_connection().await?;
                Ok::<_, Failure>(())
            };
            match timeout(self.timeout, ended).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => tracing::debug!(%failure, "could not cancel a statement"),
                Err(_) => tracing::debug!("cancelling a statement took too long"),
            }
        });
    }

    async fn cancel(&self) -> Result<(), Failure> {
        let wire = self.server.open(&Arc::default(), self.timeout).await?;
        let token = self.client.cancel_token();
        match &self.tls {
            None => token.cancel_query_raw(wire, NoTls).await?,
            Some(tls) => {
                let tls = self.server.tls(tls);
                token.cancel_query_raw(wire, tls).await?;
            }
        }
        Ok(())
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Why a server could not be connected to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Nothing came for this long.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The network failed, or the name is not known.
    #[error("{}", reason(.0))]
    Network(#[from] io::Error),
    /// The server refused, or what answers is no such server.
    #[error("{}", reason(.0))]
    Database(#[from] tokio_postgres::Error),
    /// It can only be read.
    #[error("it can only be read")]
    ReadOnly,
}

impl Failure {
    /// Whether something else than a database may be what answers there.
    fn may_be_a_stranger_s(&self) -> bool {
        match self {
            Self::Silent(_) => true,
            Self::Database(error) => error.as_db_error().is_none(),
            Self::Network(_) | Self::ReadOnly => false,
        }
    }
}

/// Why each of the servers could not be connected to.
#[derive(Debug)]
pub(crate) struct ConnectError(Vec<(Place, Failure)>);

impl ConnectError {
    /// All of the reasons, with what answers where that is no database.
    pub(crate) async fn explained(&self) -> String {
        let explained = self.0.iter().map(async |(place, failure)| {
            let stranger = if failure.may_be_a_stranger_s() {
                stranger(&place.host, place.port, POSTGRES).await
            } else {
                None
            };
            // Silence is what a database is known for that was stopped.
            let stranger = stranger.filter(|what| !what.ends_with("it says nothing"));
            format!(
                "{place}: {}",
                stranger.unwrap_or_else(|| failure.to_string())
            )
        });
        join_all(explained).await.join("; ")
    }
}
