//! One connection to the database, and how a statement on it is given up.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use futures::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::connect_error::ConnectFailure;
use crate::error::reason;
use crate::server::Server;
use crate::wire::Wire;

/// The function of the server that warns of a commit that did not wait for its standby.
const STANDBY_WAIT: &str = "SyncRepWaitForLSN";

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
    /// Shakes hands with `server` over `wire`. A statement on the connection is cancelled within `timeout`.
    pub(crate) async fn open(
        config: &Config,
        tls: Option<MakeRustlsConnect>,
        server: &Server,
        wire: Wire,
        timeout: Duration,
    ) -> Result<Self, tokio_postgres::Error> {
        let is_unreplicated = Arc::new(AtomicBool::new(false));
        let unreplicated = Arc::clone(&is_unreplicated);
        let client = match &tls {
            None => carried(config.connect_raw(wire, NoTls).await?, unreplicated),
            Some(tls) => {
                let connected = config.connect_raw(wire, server.tls(tls)).await?;
                carried(connected, unreplicated)
            }
        };
        Ok(Self {
            client,
            is_unreplicated,
            is_retired: AtomicBool::new(false),
            server: server.clone(),
            tls,
            timeout,
        })
    }

    pub(crate) async fn is_read_only(&self) -> Result<bool, tokio_postgres::Error> {
        let shown = self
            .client
            .simple_query("show transaction_read_only")
            .await?;
        Ok(shown.iter().any(
            |message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("on")),
        ))
    }

    /// Keeps the pool from using the connection again.
    pub(crate) fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// Whether the pool may use the connection again.
    pub(crate) fn is_usable(&self) -> bool {
        !self.is_closed() && !self.is_retired.load(Ordering::Relaxed)
    }

    /// Whether a commit after the last call did not wait for its standby, because somebody cancelled the
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
                Ok::<_, ConnectFailure>(())
            };
            match timeout(self.timeout, ended).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => tracing::debug!(%failure, "could not cancel a statement"),
                Err(_) => tracing::debug!("cancelling a statement took too long"),
            }
        });
    }

    async fn cancel(&self) -> Result<(), ConnectFailure> {
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

fn carried<T>(
    (client, connection): (Client, tokio_postgres::Connection<Wire, T>),
    unreplicated: Arc<AtomicBool>,
) -> ClientWrapper
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    ClientWrapper::new(client, tokio::spawn(carry(connection, unreplicated)))
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
