//! `ingest` behind nginx and `HAProxy`: what it answers arrives, and is not made a 502.

use std::net::SocketAddr;
use std::process::Stdio;

use tempfile::TempDir;
use tests::servers::programs;
use tests::wait::{BOUND, eventually};
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::sources::many;

/// A proxy that hands requests to `ingest` over connections that it keeps.
#[derive(Clone, Copy)]
enum Proxy {
    Nginx,
    Haproxy,
    /// It passes TCP on, and names its clients by the PROXY protocol. What it accepts at its socket names them to it in the
    /// same way, so that a test can say where they come from; at its socket `plain` they have no address.
    HaproxyOfTcp,
}

/// One that runs. It is killed when dropped.
struct Running {
    _child: Child,
    folder: TempDir,
}

impl Proxy {
    fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy | Self::HaproxyOfTcp => "haproxy",
        }
    }

    /// It takes heads that are larger than those that `ingest` takes.
    fn configuration(self, ingest: SocketAddr) -> String {
        match self {
            Self::Nginx => format!(
                "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\n\
                 access_log off;\nlarge_client_header_buffers 4 128k;\n\
                 client_body_temp_path .;\nproxy_temp_path .;\nfastcgi_temp_path .;\nuwsgi_temp_path .;\nscgi_temp_path .;\n\
                 upstream ingest {{ server {ingest}; keepalive 8; }}\n\
                 server {{ listen unix:socket; location / {{\n\
                 proxy_pass http://ingest; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
                 proxy_next_upstream off; }} }} }}\n"
            ),
            Self::Haproxy => format!(
                "global\n  tune.bufsize 262144\n  tune.http.maxhdr 1000\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  retries 0\n\
                 listen ingest\n  bind unix@socket\n  http-reuse always\n  server ingest {ingest}\n"
            ),
            Self::HaproxyOfTcp => format!(
                "global\n  stats socket unix@statistics\n\
                 defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
                 listen ingest\n  bind unix@socket accept-proxy\n  bind unix@plain\n\
                 option httpchk GET /readyz\n\
                 server ingest {ingest} send-proxy-v2 check inter 50ms fall 1\n"
            ),
        }
    }

    async fn start(self, ingest: SocketAddr) -> Running {
        let program = programs::find(self.name());
        let program = program.unwrap_or_else(|| panic!("{} is not installed", self.name()));
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("proxy.conf"), self.configuration(ingest)).unwrap();
        let mut command = Command::new(program);
        match self {
            Self::Nginx => command.args(["-e", "stderr", "-p", ".", "-c", "proxy.conf"]),
            Self::Haproxy | Self::HaproxyOfTcp => command.args(["-db", "-f", "proxy.conf"]),
        };
        let child = command
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let running = Running {
            _child: child,
            folder,
        };
        eventually("the proxy to listen", async || {
            running.connect("socket").await.ok()
        })
        .await;
        running
    }
}

impl Running {
    async fn connect(&self, socket: &str) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.folder.path().join(socket)).await
    }

    /// What comes back until the proxy closes.
    async fn exchange(&self, bytes: &str) -> String {
        self.exchange_at("socket", bytes).await
    }

    async fn exchange_at(&self, socket: &str, bytes: &str) -> String {
        let mut stream = self.connect(socket).await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(BOUND, stream.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        answer
    }
}

const CALLBACK: &str = r#"{"object_ids":[1]}"#;

fn callback(more: &str) -> String {
    callback_of(more, CALLBACK)
}

fn callback_of(more: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n{body}"
    )
}

async fn refusals_of_heads_arrive(proxy: Proxy) {
    if programs::is_missing(proxy.name()) {
        return;
    }
    let world = &mut World::new().await;
    let ingest = world.ingest(&[]).await;
    let proxy = proxy.start(ingest).await;
    let many = "x: y\r\n".repeat(101);
    for large in [50_000, 100_000] {
        let cookie = format!("cookie: {}\r\n", "c".repeat(large));
        for more in [&cookie, &many] {
            // One after the other on a connection that the proxy keeps.
            let answer = proxy.exchange(&callback("")).await;
            assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
            let answer = proxy.exchange(&callback(more)).await;
            let begin = &more[..6];
            assert!(answer.starts_with("HTTP/1.1 431 "), "{begin}: {answer}");
        }
    }
}

async fn kept_connections_serve_many_callbacks(proxy: Proxy) {
    if programs::is_missing(proxy.name()) {
        return;
    }
    let world = &mut World::new().await;
    let ingest = world.ingest(&[]).await;
    let proxy = proxy.start(ingest).await;
    for _ in 0..50 {
        let requests = (0..8).map(|_| callback(""));
        let answers = requests.map(async |request| proxy.exchange(&request).await);
        for answer in futures::future::join_all(answers).await {
            assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_heads_arrive_through_nginx() {
    refusals_of_heads_arrive(Proxy::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_heads_arrive_through_haproxy() {
    refusals_of_heads_arrive(Proxy::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_connections_serve_many_callbacks_through_nginx() {
    kept_connections_serve_many_callbacks(Proxy::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_connections_serve_many_callbacks_through_haproxy() {
    kept_connections_serve_many_callbacks(Proxy::Haproxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn haproxy_names_its_clients_by_the_proxy_protocol() {
    if programs::is_missing("haproxy") {
        return;
    }
    let world = &mut World::new().await;
    let flags = [
        "--proxy-protocol=true",
        "--trusted-proxies=127.0.0.1",
        "--source-ids-rate=1",
    ];
    let ingest = world.ingest(&flags).await;
    let proxy = Proxy::HaproxyOfTcp.start(ingest).await;
    let many = String::from_utf8(many()).unwrap();
    let (one, many) = (callback(""), callback_of("", &many));
    for (client, request, status) in [
        ("TCP4 198.51.100.1 10.0.0.1", &many, "202"),
        ("TCP4 198.51.100.1 10.0.0.1", &one, "429"),
        ("TCP4 198.51.100.2 10.0.0.1", &one, "202"),
        ("TCP6 2001:db8::1 2001:db8::2", &many, "202"),
        ("TCP6 2001:db8::3 2001:db8::2", &one, "429"),
        ("TCP6 2001:db8:0:1::1 2001:db8::2", &one, "202"),
    ] {
        let answer = proxy
            .exchange(&format!("PROXY {client} 4711 443\r\n{request}"))
            .await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{client}: {answer}");
    }
    // Clients that have no address have one account, which is that of the proxy.
    for (request, status) in [(&many, "202"), (&one, "429")] {
        let answer = proxy.exchange_at("plain", request).await;
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_of_haproxy_succeed_with_the_proxy_protocol() {
    if programs::is_missing("haproxy") {
        return;
    }
    let world = &mut World::new().await;
    let flags = ["--proxy-protocol=true", "--trusted-proxies=127.0.0.1"];
    let ingest = world.ingest(&flags).await;
    let proxy = Proxy::HaproxyOfTcp.start(ingest).await;
    eventually("a health check", async || {
        let shown = proxy.exchange_at("statistics", "show stat\n").await;
        assert!(!shown.contains("DOWN"), "{shown}");
        shown.contains("L7OK").then_some(())
    })
    .await;
}
