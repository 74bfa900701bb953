//! Look-ups prove who asks, to the client service and to a proxy on the way.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use broker::{Headers, Queue};
use messages::{FetchChunk, ObjectId};
use tests::client::{ClientService, Reply};
use tests::processes::{Process, address_in};
use tests::wait::eventually;
use tests::world::World;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::binaries::started;
use crate::secrets::{SecretFile, assert_kept_secrets, until_said};

/// A fetcher that logs all it can, and its admin address.
async fn fetcher(world: &mut World, flags: &[&str]) -> (Process, SocketAddr) {
    let flags = [&["--log=trace", "--probe-interval=100ms"], flags].concat();
    let mut process = started(world, "fetcher", &flags).await;
    let admin = address_in(&process.lines[process.lines.len() - 1]);
    process.until_logged("broker (consuming)").await;
    (process, admin)
}

async fn publish(world: &World, id: i64) {
    let object_ids = vec![ObjectId(id)];
    let chunk = FetchChunk { object_ids };
    let headers = Headers::default();
    world.broker.publish(Queue::Fetch, &chunk, &headers).await;
}

/// Has one id after the other looked up until a look-up has the header.
async fn until_sent(world: &World, client: &ClientService, header: &str, value: &str) {
    let mut ids = 1..;
    eventually(&format!("{header}: {value}"), async || {
        let id = ids.next().unwrap();
        publish(world, id).await;
        let sent = async || client.headers(id).pop();
        let sent = eventually("a look-up", sent).await;
        (sent.get(header)? == value).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_have_the_token_that_is_in_the_file_now() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let token = SecretFile::new("hidden-1\n");
    let url = client.url.replace("http://", "http://user:hidden@");
    let flags = [
        &format!("--client-url={url}"),
        &format!("--client-token-file={}", token.name()),
        "--client-header=X-Api-Key: hidden-key",
    ];
    let (process, admin) = fetcher(world, &flags).await;
    until_sent(world, &client, "authorization", "Bearer hidden-1").await;
    until_sent(world, &client, "x-api-key", "hidden-key").await;
    token.write("hidden-2");
    until_sent(world, &client, "authorization", "Bearer hidden-2").await;
    token.remove();
    let reason = format!("down: reading {}: No such file", token.name());
    until_said(admin, "client credentials", &reason).await;
    until_sent(world, &client, "authorization", "Bearer hidden-2").await;
    // As if the token had come to its end.
    client.fail(Reply::Status(401, None));
    publish(world, 0).await;
    until_said(admin, "client service", "status 401").await;
    token.write("hidden-3");
    client.recover();
    until_sent(world, &client, "authorization", "Bearer hidden-3").await;
    until_said(admin, "client credentials", "ok").await;
    until_said(admin, "client service", "ok").await;
    assert_kept_secrets(process, admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_have_the_user_and_password_that_the_address_in_the_file_has_now() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let with = |password: &str| {
        let login = format!("http://user:{password}@");
        client.url.replace("http://", &login)
    };
    let file = SecretFile::new(&with("hidden-1"));
    let flag = format!("--client-url-file={}", file.name());
    let (process, admin) = fetcher(world, &[&flag]).await;
    until_sent(
        world,
        &client,
        "authorization",
        "Basic dXNlcjpoaWRkZW4tMQ==",
    )
    .await;
    file.write(&with("hidden-2"));
    until_sent(
        world,
        &client,
        "authorization",
        "Basic dXNlcjpoaWRkZW4tMg==",
    )
    .await;
    assert_kept_secrets(process, admin).await;
}

/// A forward proxy that lets in the user `user` with the password `hidden-right`.
struct ForwardProxy {
    address: SocketAddr,
    /// The first line of each request that it has passed on.
    passed: Arc<Mutex<Vec<String>>>,
}

impl ForwardProxy {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let passed = Arc::new(Mutex::default());
        let noted = Arc::clone(&passed);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(pass(stream, Arc::clone(&noted)));
            }
        });
        Self { address, passed }
    }

    fn url(&self, password: &str) -> String {
        format!("http://user:{password}@{}", self.address)
    }
}

/// Passes on the one request of a connection.
async fn pass(mut stream: TcpStream, passed: Arc<Mutex<Vec<String>>>) -> io::Result<()> {
    const LOGIN: &str = "proxy-authorization: Basic dXNlcjpoaWRkZW4tcmlnaHQ=";
    const REFUSAL: &[u8] = b"HTTP/1.1 407 Proxy Authentication Required\r\n\
        connection: close\r\ncontent-length: 0\r\n\r\n";
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(char::from(stream.read_u8().await?));
    }
    let (first, fields) = head.split_once("\r\n").unwrap();
    let is_login = |field: &&str| field.to_lowercase().starts_with("proxy-authorization:");
    let (login, fields): (Vec<&str>, Vec<&str>) = fields.split("\r\n").partition(is_login);
    if login != [LOGIN] {
        return stream.write_all(REFUSAL).await;
    }
    passed.lock().unwrap().push(first.to_owned());
    if let Some(target) = first.strip_prefix("CONNECT ") {
        let target = target.strip_suffix(" HTTP/1.1").unwrap();
        let mut upstream = TcpStream::connect(target).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
        return copy_bidirectional(&mut stream, &mut upstream)
            .await
            .map(drop);
    }
    let (target, path) = first
        .strip_prefix("GET http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut upstream = TcpStream::connect(target).await?;
    let request = format!(
        "GET /{path}\r\nconnection: close\r\n{}",
        fields.join("\r\n")
    );
    upstream.write_all(request.as_bytes()).await?;
    copy(&mut upstream, &mut stream).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_pass_a_proxy_whose_password_may_change() {
    let world = &mut World::new().await;
    let client = ClientService::start(|_, _| Reply::Online).await;
    let proxy = ForwardProxy::start().await;
    let file = SecretFile::new(&proxy.url("hidden-wrong"));
    let flags = [
        &format!("--client-url={}", client.url),
        &format!("--client-proxy-file={}", file.name()),
        "--client-token=hidden-token",
    ];
    let (process, admin) = fetcher(world, &flags.map(|flag| flag as &str)).await;
    publish(world, 7).await;
    until_said(admin, "client service", "status 407").await;
    assert_eq!(client.total(), 0);
    file.write(&proxy.url("hidden-right"));
    world.database.until_ids(&[7]).await;
    let host = client.url.strip_prefix("http://").unwrap();
    let looked_up = client.total();
    let passed = proxy.passed.lock().unwrap().clone();
    assert!(passed.contains(&format!("GET http://{host}/objects/7 HTTP/1.1")));
    assert!(passed.len() >= looked_up, "{passed:?}");
    assert_eq!(client.headers(7)[0]["authorization"], "Bearer hidden-token");
    assert_kept_secrets(process, admin).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn look_ups_with_tls_go_through_a_tunnel_that_the_proxy_opens() {
    let world = &mut World::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy = ForwardProxy::start().await;
    let flags = [
        format!("--client-url=https://{address}"),
        format!("--client-proxy={}", proxy.url("hidden-right")),
    ];
    let (process, admin) = fetcher(world, &[&flags[0], &flags[1]]).await;
    publish(world, 7).await;
    let (mut stream, _) = listener.accept().await.unwrap();
    // A handshake of TLS.
    assert_eq!(stream.read_u8().await.unwrap(), 0x16);
    drop(stream);
    let passed = proxy.passed.lock().unwrap()[0].clone();
    assert_eq!(passed, format!("CONNECT {address} HTTP/1.1"));
    assert_kept_secrets(process, admin).await;
}
