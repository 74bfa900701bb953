//! Connections to the client service: kept for further look-ups, until its name leads elsewhere.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use tokio::sync::watch;
use tokio::time::sleep;
use url::{Host, Url};

use crate::config::Config;

/// How long a connection is kept without use. Shorter than most servers keep it.
pub const IDLE: Duration = Duration::from_secs(15);

/// How often the name is looked up while connections are kept.
const LOOK_AGAIN: Duration = Duration::from_secs(15);

/// Without it a server may choose any coding (RFC 9110, 12.5.3).
const NOT_COMPRESSED: HeaderValue = HeaderValue::from_static("identity");

/// What makes connections.
#[derive(Clone)]
struct Connector {
    names: Arc<dyn Resolve>,
    timeout: Duration,
}

impl Connector {
    /// Keeps at most `idle` connections that are not used.
    fn client(&self, idle: usize) -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder()
            .user_agent(concat!("callback-pipeline-fetcher/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, NOT_COMPRESSED)]))
            .timeout(self.timeout)
            // Shared by all addresses, so that the next one is tried while there is time for an answer.
            .connect_timeout(self.timeout / 2)
            .dns_resolver(Arc::clone(&self.names))
            .pool_max_idle_per_host(idle)
            .pool_idle_timeout(IDLE)
            // A redirect is not an answer, and a proxy of the environment is not the client service.
            .redirect(Policy::none())
            // Tries are the pipeline's own, which counts them.
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
    }
}

/// Connections to the client service.
pub struct Connections {
    connector: Connector,
    /// Maximum number of connections that are kept.
    most: usize,
    /// Name of the client service, if it has one.
    name: Option<String>,
    kept: watch::Sender<reqwest::Client>,
    single: reqwest::Client,
}

impl Connections {
    /// They are made when they are needed.
    ///
    /// # Errors
    /// The TLS set-up fails.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        Self::with_names(config, Arc::new(SystemNames))
    }

    /// The same, with addresses from `names`.
    ///
    /// # Errors
    /// The TLS set-up fails.
    pub fn with_names(config: &Config, names: Arc<dyn Resolve>) -> anyhow::Result<Self> {
        let connector = Connector {
            names,
            timeout: config.fetch_timeout,
        };
        let most = config.fetch_concurrency.get();
        let client = |idle| connector.client(idle).context("setting up the HTTP client");
        Ok(Self {
            kept: watch::Sender::new(client(most)?),
            single: client(0)?,
            most,
            name: name(config.client_url.url()),
            connector,
        })
    }

    /// What sends on a connection that is kept, if there is one.
    #[must_use]
    pub fn kept(&self) -> reqwest::Client {
        self.kept.borrow().clone()
    }

    /// What makes a connection for each request.
    #[must_use]
    pub fn single(&self) -> &reqwest::Client {
        &self.single
    }

    /// Looks the name up again and again. When its addresses have changed, further requests are sent on
    /// connections to the new ones; those under way end where they are.
    pub async fn follow(&self) {
        let Some(name) = &self.name else {
            return std::future::pending().await;
        };
        let mut known = None;
        loop {
            let found = self.addresses(name).await;
            if found.is_some() && known.is_some() && found != known {
                tracing::info!(name, addresses = ?found, "client service has moved");
                self.renew().await;
            }
            known = found.or(known);
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn addresses(&self, name: &str) -> Option<BTreeSet<IpAddr>> {
        let found = self.connector.names.resolve(Name::from_str(name).ok()?);
        let addresses = found.await.ok()?.map(|address| address.ip()).collect();
        Some(addresses).filter(|addresses: &BTreeSet<IpAddr>| !addresses.is_empty())
    }

    /// Reading the system's certificates takes a while.
    async fn renew(&self) {
        let (connector, most) = (self.connector.clone(), self.most);
        match tokio::task::spawn_blocking(move || connector.client(most)).await {
            Ok(Ok(client)) => drop(self.kept.send_replace(client)),
            Ok(Err(error)) => tracing::warn!(%error, "connections are kept to where it was"),
            Err(error) => tracing::error!(%error, "connections are kept to where it was"),
        }
    }
}

fn name(url: &Url) -> Option<String> {
    match url.host()? {
        Host::Domain(name) => Some(name.to_owned()),
        Host::Ipv4(_) | Host::Ipv6(_) => None,
    }
}

/// The system's names.
struct SystemNames;

impl Resolve for SystemNames {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let addresses: Vec<SocketAddr> = found.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::io::ErrorKind;
    use std::net::Ipv4Addr;

    use parking_lot::Mutex;
    use process::Ask;
    use settings::load;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket, TcpStream};
    use tokio::time::timeout;

    use super::*;

    /// Names as a test has them.
    #[derive(Clone, Default)]
    struct Names(Arc<Mutex<Vec<Ipv4Addr>>>);

    impl Names {
        fn lead_to(&self, hosts: &[u8]) {
            let hosts = hosts.iter().map(|host| Ipv4Addr::new(127, 0, 0, *host));
            *self.0.lock() = hosts.collect();
        }
    }

    impl Resolve for Names {
        fn resolve(&self, _: Name) -> Resolving {
            let hosts = self.0.lock().clone();
            let addresses = hosts.into_iter().map(|host| SocketAddr::from((host, 0)));
            Box::pin(async move { Ok(Box::new(addresses) as Addrs) })
        }
    }

    fn connections(names: &Names, port: u16, timeout: &str) -> Connections {
        drop(rustls::crypto::ring::default_provider().install_default());
        let url = format!("--client-url=http://client.test:{port}");
        let timeout = format!("--fetch-timeout={timeout}");
        let arguments = ["fetcher", &url, &timeout].map(OsString::from);
        let config = load::<Config, Ask>("fetcher", "", arguments, []).unwrap();
        Connections::with_names(&config.settings, Arc::new(names.clone())).unwrap()
    }

    /// Answers every request with the last number of the server's address.
    async fn serve(listener: TcpListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(answer_all(stream));
        }
    }

    async fn answer_all(mut stream: TcpStream) {
        let IpAddr::V4(own) = stream.local_addr().unwrap().ip() else {
            panic!("not asked for by IPv4");
        };
        let body = own.octets()[3].to_string();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        while stream.read(&mut [0; 4_096]).await.unwrap() > 0 {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    /// Listens on the same port of each of the hosts.
    async fn listen(hosts: &[u8]) -> (Vec<TcpListener>, u16) {
        let mut listeners = vec![TcpListener::bind("127.0.0.1:0").await.unwrap()];
        let port = listeners[0].local_addr().unwrap().port();
        for host in hosts {
            let address = (Ipv4Addr::new(127, 0, 0, *host), port);
            listeners.push(TcpListener::bind(address).await.unwrap());
        }
        (listeners.split_off(1), port)
    }

    async fn ask(client: &reqwest::Client, port: u16) -> String {
        let response = client.get(format!("http://client.test:{port}/")).send();
        response.await.unwrap().text().await.unwrap()
    }

    /// A host to which no further connection can be made, and which refuses none: its backlog is full.
    async fn black_hole(host: u8, port: u16) -> (TcpListener, Vec<TcpStream>) {
        let address = SocketAddr::from(([127, 0, 0, host], port));
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address).unwrap();
        let listener = socket.listen(0).unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) =
            timeout(Duration::from_millis(100), TcpStream::connect(address)).await
        {
            match stream {
                Ok(stream) => waiting.push(stream),
                Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
            }
        }
        (listener, waiting)
    }

    #[tokio::test]
    async fn the_next_address_is_asked_when_the_first_is_dead() {
        let (mut listeners, port) = listen(&[3]).await;
        let _full = black_hole(2, port).await;
        tokio::spawn(serve(listeners.remove(0)));
        let names = Names::default();
        let connections = connections(&names, port, "4s");
        // Nobody listens at the fourth.
        for hosts in [[4, 3], [2, 3]] {
            names.lead_to(&hosts);
            assert_eq!(ask(connections.single(), port).await, "3", "{hosts:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_is_followed_although_the_old_address_still_answers() {
        let (listeners, port) = listen(&[2, 3]).await;
        for listener in listeners {
            tokio::spawn(serve(listener));
        }
        let names = Names::default();
        names.lead_to(&[2]);
        let connections = connections(&names, port, "10m");
        let steady_load = async {
            assert_eq!(ask(&connections.kept(), port).await, "2");
            names.lead_to(&[3]);
            let moved = tokio::time::Instant::now();
            while ask(&connections.kept(), port).await == "2" {
                sleep(Duration::from_millis(100)).await;
            }
            moved.elapsed()
        };
        let took = tokio::select! {
            () = connections.follow() => panic!("it goes on for ever"),
            took = steady_load => took,
        };
        assert!(took < Duration::from_mins(1), "{took:?}");
    }
}
