//! Asking over each version of HTTP.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Full;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Answer, HttpClient, Stream, request};
use crate::wait::BOUND;

/// Every version that is served.
pub const VERSIONS: [Version; 2] = [Version::HTTP_11, Version::HTTP_2];

/// Sends one request with these headers, on a connection that it has for itself.
pub async fn ask(
    version: Version,
    address: SocketAddr,
    headers: &[(&str, &str)],
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> Answer {
    let stream = TcpStream::connect(address).await.unwrap();
    let host = address.to_string();
    ask_over(stream, version, &host, headers, method, path, body).await
}

/// Sends one request with these headers over a connection that there is.
pub async fn ask_over(
    stream: impl Stream,
    version: Version,
    host: &str,
    headers: &[(&str, &str)],
    method: Method,
    path: &str,
    body: impl Into<Bytes>,
) -> Answer {
    if version < Version::HTTP_2 {
        let mut client = HttpClient::over(stream, host).await;
        return client.send_with(headers, method, path, body).await;
    }
    let request = request(headers, method, &format!("http://{host}{path}"), body);
    timeout(BOUND, over_http2(stream, request)).await.unwrap()
}

async fn over_http2(stream: impl Stream, request: Request<Full<Bytes>>) -> Answer {
    let (mut sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    Answer::read(sender.send_request(request).await.unwrap()).await
}
