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

/// A proxy that hands requests to `ingest` over connections that it keeps.
#[derive(Clone, Copy)]
enum Proxy {
    Nginx,
    HaProxy,
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
            Self::HaProxy => "haproxy",
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
            Self::HaProxy => format!(
                "global\n  tune.bufsize 262144\n  tune.http.maxhdr 1000\n\
                 defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  retries 0\n\
                 listen ingest\n  bind unix@socket\n  http-reuse always\n  server ingest {ingest}\n"
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
            Self::HaProxy => command.args(["-db", "-f", "proxy.conf"]),
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
        eventually("the proxy to listen", async || running.connect().await.ok()).await;
        running
    }
}

impl Running {
    async fn connect(&self) -> std::io::Result<UnixStream> {
        UnixStream::connect(self.folder.path().join("socket")).await
    }

    /// What comes back until the proxy closes.
    async fn exchange(&self, bytes: &str) -> String {
        let mut stream = self.connect().await.unwrap();
        stream.write_all(bytes.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = timeout(BOUND, stream.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        answer
    }
}

fn callback(more: &str) -> String {
    const CALLBACK: &str = r#"{"object_ids":[1]}"#;
    let length = CALLBACK.len();
    format!(
        "POST /callback HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}content-length: {length}\r\n\r\n{CALLBACK}"
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
    refusals_of_heads_arrive(Proxy::HaProxy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_connections_serve_many_callbacks_through_nginx() {
    kept_connections_serve_many_callbacks(Proxy::Nginx).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_connections_serve_many_callbacks_through_haproxy() {
    kept_connections_serve_many_callbacks(Proxy::HaProxy).await;
}
