use std::ffi::OsString;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

use futures::future::join_all;
use http::Response;
use process::Ask;
use settings::load;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
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

fn connections(names: &Names, port: u16, timeout: &str) -> ConnectionPool {
    speaking("auto", names, port, timeout)
}

fn speaking(version: &str, names: &Names, port: u16, timeout: &str) -> ConnectionPool {
    drop(rustls::crypto::ring::default_provider().install_default());
    let url = format!("--client-url=http://client.test:{port}");
    let timeout = format!("--fetch-timeout={timeout}");
    let version = format!("--client-http-version={version}");
    let arguments = ["fetcher", &url, &timeout, &version].map(OsString::from);
    let config = load::<Config, Ask>("fetcher", "", arguments, []).unwrap();
    let credentials = Credentials::new(&config.settings).unwrap();
    ConnectionPool::with_names(&config.settings, &credentials, Arc::new(names.clone())).unwrap()
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
    while let Ok(stream) = timeout(Duration::from_millis(100), TcpStream::connect(address)).await {
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
        assert_eq!(ask(&connections.unpooled(), port).await, "3", "{hosts:?}");
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
        assert_eq!(ask(connections.pooled().client(), port).await, "2");
        names.lead_to(&[3]);
        let moved = tokio::time::Instant::now();
        while ask(connections.pooled().client(), port).await == "2" {
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

/// Speaks HTTP/2, and answers each request with the number of those that came before on its connection, when it is
/// released.
async fn serve_http2(listener: TcpListener, released: watch::Receiver<bool>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let released = released.clone();
        tokio::spawn(async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut count = 0;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let (number, mut released) = (count, released.clone());
                count += 1;
                tokio::spawn(async move {
                    released.wait_for(|released| *released).await.unwrap();
                    let mut body = respond.send_response(Response::new(()), false).unwrap();
                    body.send_data(number.to_string().into(), true).unwrap();
                });
            }
        });
    }
}

#[tokio::test]
async fn over_http_2_requests_share_connections_that_take_a_hundred_each() {
    let (mut listeners, port) = listen(&[2]).await;
    let (release, released) = watch::channel(false);
    tokio::spawn(serve_http2(listeners.remove(0), released));
    let names = Names::default();
    names.lead_to(&[2]);
    let connections = speaking("2", &names, port, "10s");
    let ask = async || {
        let pooled = connections.pooled();
        let number = ask(pooled.client(), port).await;
        number.parse::<usize>().unwrap()
    };
    let all = join_all((0..2 * STREAMS).map(|_| ask()));
    let sent = async { release.send_replace(true) };
    let (mut numbers, _) = tokio::join!(all, sent);
    numbers.sort_unstable();
    let twice = (0..STREAMS).flat_map(|number| [number; 2]);
    assert!(numbers.into_iter().eq(twice), "not two connections");
    for number in STREAMS..STREAMS + 3 {
        assert_eq!(ask().await, number, "not the first connection");
    }
}
