//! A client as exact as the tests need it.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::{BOUND, eventually};

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, if that is JSON.
    pub body: Value,
}

impl Answer {
    /// Reads the whole of it.
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let bytes = timeout(BOUND, body.collect())
            .await
            .unwrap()
            .unwrap()
            .to_bytes();
        Self {
            status: parts.status,
            headers: parts.headers,
            body: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        }
    }

    /// The error code in the body.
    #[must_use]
    pub fn error(&self) -> &str {
        self.body["error"].as_str().unwrap_or_default()
    }

    /// The message in the body.
    #[must_use]
    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }
}

/// A request with these headers.
pub(crate) fn request(
    headers: &[(&str, &str)],
    method: Method,
    uri: &str,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let request = Request::builder().method(method).uri(uri);
    let with_headers = headers.iter().fold(request, |request, (name, value)| {
        request.header(*name, *value)
    });
    with_headers.body(Full::new(body.into())).unwrap()
}

/// What HTTP is spoken over.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// One kept connection.
pub struct HttpClient {
    host: String,
    sender: SendRequest<Full<Bytes>>,
}

impl HttpClient {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, &address.to_string()).await
    }

    /// A client of this host over a connection that there is.
    pub(crate) async fn over(stream: impl Stream, host: &str) -> Self {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let host = host.to_owned();
        Self { host, sender }
    }

    /// Sends a request and waits for the answer.
    pub async fn send(&mut self, method: Method, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send_with(&[], method, path, body).await
    }

    /// Sends a request with further headers and waits for the answer.
    pub async fn send_with(
        &mut self,
        headers: &[(&str, &str)],
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Answer {
        let headers = [&[("host", &*self.host)], headers].concat();
        let request = request(&headers, method, path, body);
        // A moment after the answer before.
        assert!(self.reusable().await, "the connection is closed");
        let response = timeout(BOUND, self.sender.send_request(request))
            .await
            .unwrap()
            .unwrap();
        Answer::read(response).await
    }

    /// Waits until the connection can take another request; false if it is closed.
    pub async fn reusable(&mut self) -> bool {
        timeout(BOUND, self.sender.ready()).await.unwrap().is_ok()
    }
}

/// Sends one request on a new connection.
pub async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> Answer {
    HttpClient::connect(address)
        .await
        .send(method, path, body)
        .await
}

/// Waits until `GET /` says that the service at `address` reaches all that it needs.
pub async fn until_ready(address: SocketAddr) {
    eventually("the service to be ready", async || {
        let answer = send(address, Method::GET, "/", "").await;
        (answer.body["status"] == "ok").then_some(())
    })
    .await;
}

/// Posts a callback.
pub async fn post(address: SocketAddr, body: impl Into<Bytes>) -> Answer {
    send(address, Method::POST, "/callback", body).await
}

/// Posts ids and expects them to be accepted.
pub async fn post_ids(address: SocketAddr, ids: &[i64]) {
    post_ids_with(address, &[], ids).await;
}

/// Posts ids with further headers and expects them to be accepted.
pub async fn post_ids_with(address: SocketAddr, headers: &[(&str, &str)], ids: &[i64]) {
    let body = serde_json::json!({ "object_ids": ids }).to_string();
    let mut client = HttpClient::connect(address).await;
    let answer = client
        .send_with(headers, Method::POST, "/callback", body)
        .await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{answer:?}");
}

/// Sends bytes as they are, and returns what comes back until the other side closes.
pub async fn exchange(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    // A reset after the answer is as good as a close.
    if let Err(error) = timeout(BOUND, stream.read_to_end(&mut answer))
        .await
        .unwrap()
    {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    String::from_utf8_lossy(&answer).into_owned()
}
