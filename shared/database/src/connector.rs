//! Making connections: to which of several servers, and each within its time.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use futures::future::join_all;
use parking_lot::Mutex;
use settings::SecretError;
use tokio::net::lookup_host;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_postgres::Config;
use tokio_postgres::config::Host;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::connect_error::{ConnectError, ConnectFailure};
use crate::connection::Connection;
use crate::encryption::Encryption;
use crate::metrics::CONNECTIONS_OPENED;
use crate::server::{Address, Place, Server};
use crate::store::DatabaseSettings;

/// Makes connections, to the first of the servers that answers and can be written to.
pub(crate) struct Connector {
    settings: DatabaseSettings,
    process: String,
    timeout: Duration,
    /// The server of the last connection. It is tried first, because servers before it may hang.
    last: Mutex<Option<Address>>,
}

/// Where to connect to, and as whom, by the settings as they are now.
struct Access {
    config: Config,
    encryption: Option<Encryption>,
}

impl Connector {
    /// Connects as `process` to the servers that `settings` name. They share the time-out: each server is
    /// given up when it is silent for its part.
    pub(crate) fn new(settings: &DatabaseSettings, process: &str) -> Self {
        Self {
            settings: settings.clone(),
            process: process.to_owned(),
            timeout: settings.database_timeout,
            last: Mutex::default(),
        }
    }

    fn access(&self) -> Result<Access, SecretError> {
        let url = self.settings.address()?;
        let mut config = url.config().clone();
        config.application_name(&self.process);
        let encryption = url.encryption().cloned();
        Ok(Access { config, encryption })
    }

    /// Connects.
    ///
    /// # Errors
    /// Why each of the servers could not be connected to, or why the credentials cannot be read.
    pub(crate) async fn connect(&self) -> Result<Connection, ConnectError> {
        let access = self.access()?;
        let (servers, failures) = self.servers(&access.config).await;
        self.connect_to_any(&access, servers, failures).await
    }

    /// `failures` are those of servers without a known address.
    async fn connect_to_any(
        &self,
        access: &Access,
        servers: Vec<Server>,
        mut failures: Vec<(Place, ConnectFailure)>,
    ) -> Result<Connection, ConnectError> {
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX);
        let silence = self.timeout / count.max(1);
        for server in servers {
            // A future that is far larger than all others, and rarely needed.
            match Box::pin(self.connect_to(access, &server, silence, count > 1)).await {
                Ok(connection) => {
                    CONNECTIONS_OPENED.increment(1);
                    *self.last.lock() = Some(server.address);
                    return Ok(connection);
                }
                Err(why) => failures.push((server.place, why)),
            }
        }
        Err(ConnectError::Servers(failures))
    }

    /// Every address of every server, that of the last connection first, and the servers without a known
    /// address.
    async fn servers(&self, config: &Config) -> (Vec<Server>, Vec<(Place, ConnectFailure)>) {
        let (hosts, ports) = (config.get_hosts(), config.get_ports());
        let port = |index: usize| ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        let looked_up = hosts.iter().enumerate().map(async |(index, host)| {
            let port = port(index);
            let place = |host: &str| Place {
                host: host.to_owned(),
                port,
            };
            match host {
                Host::Tcp(name) => {
                    let known = config.get_hostaddrs().get(index);
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
    ) -> Result<Vec<Address>, ConnectFailure> {
        if let Some(address) = known {
            return Ok(vec![Address::Tcp(address)]);
        }
        let found = timeout(self.timeout, lookup_host((name, port))).await;
        let found = found.map_err(|_| ConnectFailure::Silent(self.timeout))??;
        Ok(found.map(Address::Tcp).collect())
    }

    /// The handshake takes several round trips, each of which may take as long as `silence`.
    async fn connect_to(
        &self,
        access: &Access,
        server: &Server,
        silence: Duration,
        is_choice: bool,
    ) -> Result<Connection, ConnectFailure> {
        let heard = Arc::new(Notify::new());
        let opened = timeout(silence, server.open(&heard, self.timeout)).await;
        let wire = opened.map_err(|_| ConnectFailure::Silent(silence))??;
        let connecting = async {
            let tls = access.encryption.as_ref();
            let tls = tls.map(|encryption| encryption.config(&self.settings.trust));
            let tls = tls.transpose()?.map(MakeRustlsConnect::new);
            let (config, timeout) = (&access.config, self.timeout);
            let connection = Connection::open(config, tls, server, wire, timeout).await?;
            if is_choice && connection.is_read_only().await? {
                return Err(ConnectFailure::ReadOnly);
            }
            Ok(connection)
        };
        while_heard(&heard, silence, connecting).await
    }
}

/// Waits for `work`, unless nothing is heard for `silence`.
async fn while_heard<T>(
    heard: &Notify,
    silence: Duration,
    work: impl Future<Output = Result<T, ConnectFailure>>,
) -> Result<T, ConnectFailure> {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            result = &mut work => return result,
            heard = timeout(silence, heard.notified()) => {
                heard.map_err(|_| ConnectFailure::Silent(silence))?;
            }
        }
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
        if connection.is_usable() {
            return Ok(());
        }
        Err(RecycleError::message("of no further use"))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::Instant;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(2);

    /// The user is let in; the server is ready.
    const WELCOME: &[u8] = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";

    /// One row with `off` in it; the server is ready.
    const WRITABLE: &[u8] =
        b"T\0\0\0\x1d\0\x01mode\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0\
        D\0\0\0\x0d\0\x01\0\0\0\x03off\
        C\0\0\0\x09SHOW\0\
        Z\0\0\0\x05I";

    async fn listening() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    /// Says what a server that can be written to says when it is connected to.
    async fn answer(mut stream: TcpStream) {
        for answer in [WELCOME, WRITABLE] {
            assert!(stream.read(&mut [0; 1_024]).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        }
        // The connection stays until the other side ends it.
        drop(stream.read(&mut [0; 1_024]).await);
    }

    #[tokio::test]
    async fn addresses_that_refuse_or_say_nothing_leave_time_for_the_next() {
        let ((silent, _silent), (address, listener)) = (listening().await, listening().await);
        let (refusing, closed) = listening().await;
        drop(closed);
        tokio::spawn(async move { answer(listener.accept().await.unwrap().0).await });
        let words = ["test", "--database-timeout=2s"].map(Into::into);
        let settings = settings::load::<DatabaseSettings, ()>("test", "", words, []);
        let connector = Connector::new(&settings.unwrap().settings, "test");
        let server = |address| Server {
            place: Place {
                host: "name".to_owned(),
                port: 5432,
            },
            address: Address::Tcp(address),
        };
        let servers = [refusing, silent, address].map(server).to_vec();
        let begun = Instant::now();
        let connected = connector
            .connect_to_any(&connector.access().unwrap(), servers, Vec::new())
            .await;
        assert!(connected.is_ok(), "{:?}", connected.err());
        assert!(begun.elapsed() < LIMIT, "after {:?}", begun.elapsed());
        assert_eq!(*connector.last.lock(), Some(Address::Tcp(address)));
    }
}
