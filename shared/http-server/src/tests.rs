//! The server with a service that does as it is asked: wait, or panic.

use http::StatusCode;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::*;
use crate::displacement::GRACE;

const BOUND: Duration = Duration::from_secs(20);
/// Longer than any test takes.
const LONG: Duration = Duration::from_mins(5);
const SHORT: Duration = Duration::from_millis(100);
const REFUSAL: &[u8] = b"HTTP/1.1 503 Refused\r\nconnection: close\r\n\r\n";

/// Answers without looking at the body of the request.
#[derive(Default)]
struct Obedient {
    go_on: Notify,
    waits: Notify,
}

impl Service for Obedient {
    async fn respond(&self, request: Request<RequestBody>, _: SocketAddr) -> Response<Full<Bytes>> {
        match request.uri().path() {
            "/panic" => panic!("as asked"),
            "/wait" => {
                self.waits.notify_one();
                self.go_on.notified().await;
            }
            "/read" => drop(request.into_body().collect().await.unwrap()),
            _ => {}
        }
        Response::new(Full::default())
    }
}

struct Serving {
    address: SocketAddr,
    service: Arc<Obedient>,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Serving {
    async fn with_connections(connections: usize) -> Self {
        Self::start(connections, LONG, LONG).await
    }

    async fn start(connections: usize, header_timeout: Duration, idle_timeout: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = ServerLimits {
            connections,
            header_timeout,
            idle_timeout,
            refusal: Bytes::from_static(REFUSAL),
        };
        let (service, shutdown) = (Arc::new(Obedient::default()), Shutdown::new(4 * BOUND));
        let (serving, ending) = (Arc::clone(&service), shutdown.clone());
        let task =
            tokio::spawn(async move { serve(listener, None, limits, serving, &ending).await });
        Self {
            address,
            service,
            shutdown,
            task,
        }
    }

    async fn client(&self, request: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// What comes back until the connection ends.
    async fn answer(&self, request: &str) -> String {
        let (mut client, mut answer) = (self.client(request).await, String::new());
        let read = timeout(BOUND, client.read_to_string(&mut answer)).await;
        read.unwrap().unwrap();
        answer
    }

    async fn stops(self) {
        self.shutdown.begin();
        timeout(BOUND, self.task).await.unwrap().unwrap();
    }
}

/// With it, the connection ends when it has been answered.
const ONLY_REQUEST: &str = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

/// Status of the next answer.
async fn status(stream: &mut TcpStream) -> StatusCode {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(timeout(BOUND, stream.read_u8()).await.unwrap().unwrap());
    }
    let status = answer.get(9..12).unwrap();
    StatusCode::from_bytes(status).unwrap()
}

#[tokio::test]
async fn a_panic_is_answered_and_ends_neither_the_connection_nor_the_shut_down() {
    let server = Serving::with_connections(10).await;
    let mut client = server.client(&[get("/panic"), get("/")].concat()).await;
    assert_eq!(status(&mut client).await, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(status(&mut client).await, StatusCode::OK);
    server.stops().await;
}

#[tokio::test]
async fn an_answer_reaches_also_a_client_that_goes_on_sending() {
    const LENGTH: usize = 10 << 20;
    let server = Serving::with_connections(10).await;
    let header = format!("POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {LENGTH}\r\n\r\n");
    let mut client = server.client(&header).await;
    // If this takes long, what is too much is not read any more; the answer is there before.
    drop(client.write_all(&vec![b' '; LENGTH]).await);
    assert_eq!(status(&mut client).await, StatusCode::OK);
    server.stops().await;
}

#[tokio::test]
async fn a_refusal_reaches_also_a_client_that_goes_on_sending() {
    let server = Serving::with_connections(1).await;
    let mut first = server.client(&get("/wait")).await;
    timeout(BOUND, server.service.waits.notified())
        .await
        .unwrap();
    let mut second = server.client(&get("/")).await;
    drop(second.write_all(&vec![b' '; 10 << 20]).await);
    assert_eq!(status(&mut second).await, StatusCode::SERVICE_UNAVAILABLE);
    server.service.go_on.notify_one();
    assert_eq!(status(&mut first).await, StatusCode::OK);
    server.stops().await;
}

#[tokio::test]
async fn refusals_have_no_end() {
    let server = Serving::with_connections(1).await;
    let first = server.client(&get("/wait")).await;
    timeout(BOUND, server.service.waits.notified())
        .await
        .unwrap();
    let mut refused = Vec::new();
    for _ in 0..2 * OVERFLOW_CONNECTIONS {
        refused.push(server.client("").await);
    }
    for client in &mut refused {
        assert_eq!(status(client).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    server.service.go_on.notify_one();
    drop(first);
    server.stops().await;
}

#[tokio::test]
async fn connections_that_wait_for_their_clients_make_room() {
    let server = Serving::with_connections(1).await;
    let half_a_header = "GET / HTTP/1.1\r\n";
    let half_a_body = "POST /wait HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n12";
    for request in ["", half_a_header, half_a_body] {
        let mut displaced = server.client(request).await;
        let room = async {
            while !server
                .answer(ONLY_REQUEST)
                .await
                .starts_with("HTTP/1.1 200")
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(BOUND, room).await.unwrap();
        let mut rest = Vec::new();
        let closed = timeout(BOUND, displaced.read_to_end(&mut rest)).await;
        assert!(rest.is_empty(), "{:?}, {rest:?}", closed.unwrap());
    }
    server.stops().await;
}

#[tokio::test]
async fn a_request_that_follows_its_connection_is_answered_or_refused() {
    let server = Serving::with_connections(2).await;
    let started = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(server.client("").await);
    }
    for mut client in clients {
        let mut answer = String::new();
        let sent = client.write_all(ONLY_REQUEST.as_bytes()).await;
        let read = timeout(BOUND, client.read_to_string(&mut answer)).await;
        // Only a machine that stood still explains another end.
        assert!(
            answer.starts_with("HTTP/1.1 ") || started.elapsed() >= GRACE,
            "{sent:?}, {:?}",
            read.unwrap()
        );
    }
    server.stops().await;
}

#[tokio::test]
async fn an_answer_does_not_wait_for_what_follows_its_request() {
    let server = Serving::with_connections(10).await;
    for rest in ["\r\n", "\r\n\r\n", "x", "GET / HTTP/1.1\r\nho", "PRI * "] {
        let mut client = server.client(&[&get("/"), rest].concat()).await;
        assert_eq!(status(&mut client).await, StatusCode::OK, "{rest:?}");
    }
    server.stops().await;
}

#[tokio::test]
async fn empty_lines_between_requests_are_ignored() {
    let server = Serving::with_connections(10).await;
    let requests = [&get("/"), "\r\n", &get("/"), "\r\n\r\n", &get("/")].concat();
    let mut client = server.client(&requests).await;
    for _ in 0..3 {
        assert_eq!(status(&mut client).await, StatusCode::OK);
    }
    server.stops().await;
}

#[tokio::test]
async fn the_answer_to_an_unreadable_head_reaches_also_a_client_that_goes_on_sending() {
    let server = Serving::with_connections(10).await;
    let rest = vec![b'x'; 10 << 20];
    for (begin, expected) in [
        ("GARBAGE\r\n\r\n", StatusCode::BAD_REQUEST),
        (
            "GET / HTTP/1.1\r\nx: ",
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        ),
    ] {
        let mut client = server.client(begin).await;
        drop(client.write_all(&rest).await);
        assert_eq!(status(&mut client).await, expected, "{begin:?}");
    }
    server.stops().await;
}

#[tokio::test]
async fn a_connection_may_be_idle_for_longer_than_a_head_may_take() {
    let server = Serving::start(10, SHORT, LONG).await;
    let mut idle = server.client(&get("/")).await;
    assert_eq!(status(&mut idle).await, StatusCode::OK);
    let mut unused = server.client("").await;
    for slow in ["GET", "PRI * HTTP/2.0\r\n", "\r\nG"] {
        let mut slow = server.client(slow).await;
        let closed = timeout(BOUND, slow.read_to_end(&mut Vec::new())).await;
        assert_eq!(closed.unwrap().unwrap_or_default(), 0);
    }
    for client in [&mut idle, &mut unused] {
        client.write_all(get("/").as_bytes()).await.unwrap();
        assert_eq!(status(client).await, StatusCode::OK);
    }
    server.stops().await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_one_at_work_is_not() {
    let server = Serving::start(10, LONG, SHORT).await;
    let mut at_work = server.client(&get("/wait")).await;
    let half_a_body = "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\n12";
    let mut half_sent = server.client(half_a_body).await;
    for idle in ["", "\r\n", &get("/"), "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut idle = server.client(idle).await;
        let closed = timeout(BOUND, idle.read_to_end(&mut Vec::new())).await;
        closed.unwrap().unwrap();
    }
    server.service.go_on.notify_one();
    half_sent.write_all(b"345").await.unwrap();
    for client in [&mut at_work, &mut half_sent] {
        assert_eq!(status(client).await, StatusCode::OK);
    }
    server.stops().await;
}

#[tokio::test]
async fn answers_say_how_long_a_connection_may_be_idle() {
    let server = Serving::with_connections(10).await;
    let kept = [&get("/"), ONLY_REQUEST].concat();
    let answers = server.answer(&kept).await;
    assert_eq!(
        answers.matches("keep-alive: timeout=300\r\n").count(),
        1,
        "{answers}"
    );
    server.stops().await;
}
