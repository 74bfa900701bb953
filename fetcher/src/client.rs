//! Asking the client service for one object, and judging its answer.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::iter::successors;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use broker::shortened;
use futures::future::OptionFuture;
use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};
use lifecycle::Dependency;
use messages::ObjectId;
use reqwest::{Request, Response};
use trace::http::{Target, note_status};
use trace::{SpanSet, TraceSet};
use url::Url;

use crate::answer::{Answer, Failure, Reason};
use crate::config::Config;
use crate::connection_pool::ConnectionPool;
use crate::credentials::Credentials;
use crate::object::Object;

#[derive(Clone)]
pub(crate) struct ClientService {
    connections: Arc<ConnectionPool>,
    /// The address below which the objects are, without credentials.
    objects: Url,
    credentials: Credentials,
    target: Target,
    answer_limit: usize,
}

impl ClientService {
    /// # Errors
    /// The TLS set-up fails, or the credentials cannot be read.
    pub(crate) fn new(config: &Config) -> anyhow::Result<Self> {
        let credentials = Credentials::new(config)?;
        let connections = ConnectionPool::new(config, &credentials)?;
        credentials.read(&connections.unpooled())?;
        let url = config.client_url.get()?;
        Ok(Self {
            connections: Arc::new(connections),
            objects: url.objects(),
            credentials,
            target: Target::new(url.url()),
            answer_limit: config.answer_limit.bytes(),
        })
    }

    /// Its address, as a person would write it.
    pub(crate) fn place(&self) -> String {
        self.objects.origin().ascii_serialization()
    }

    /// Moves further requests when the client service's name leads elsewhere, or its certificates change, and gives them
    /// the credentials that files have by then, for ever. Says of the files whether they can be read, if there are some.
    pub(crate) async fn follow(&self, files: Option<&Dependency>) {
        let client = self.connections.unpooled();
        let files = files.map(|dependency| self.credentials.follow_files(&client, dependency));
        tokio::join!(self.connections.follow(), OptionFuture::from(files));
    }

    /// Looks one object up, once.
    pub(crate) async fn look_up(&self, id: ObjectId, traces: &TraceSet) -> Answer {
        let mut span = traces.start(|| {
            let path = format!("/objects/{id}");
            self.target.request("GET", "/objects/{id}", &path)
        });
        match self.request(id, &mut span).await {
            Ok(answer) => answer,
            Err(failure) => {
                if !matches!(failure.reason, Reason::Gone(_)) {
                    span.fail(&failure.reason.error_type(), &failure.reason);
                }
                Answer::Failed(failure)
            }
        }
    }

    async fn request(&self, id: ObjectId, span: &mut SpanSet) -> Result<Answer, Failure> {
        let pooled = self.connections.pooled();
        let sent = self.send(pooled.client(), id, &span.traces()).await;
        let mut response = sent.map_err(|error| transport_failure(&error))?;
        note_status(span, response.status());
        match response.status() {
            StatusCode::OK => self.parse(id, &mut response).await,
            status => Err(Failure {
                reason: reason_of(status),
                retry_after: retry_after(response.headers(), SystemTime::now()),
            }),
        }
    }

    /// A server may close an idle connection at the very moment at which it is used again. That says
    /// nothing of the object, and it does no harm to ask twice.
    async fn send(
        &self,
        client: &reqwest::Client,
        id: ObjectId,
        traces: &TraceSet,
    ) -> reqwest::Result<Response> {
        match client.execute(self.get(id, traces)).await {
            Err(error) if was_cut_off(&error) => {
                let unpooled = self.connections.unpooled();
                unpooled.execute(self.get(id, traces)).await
            }
            sent => sent,
        }
    }

    fn get(&self, id: ObjectId, traces: &TraceSet) -> Request {
        let mut url = self.objects.clone();
        // Faster than to parse the whole URL.
        url.set_path(&format!("{}{id}", url.path()));
        let mut request = Request::new(Method::GET, url);
        request
            .headers_mut()
            .clone_from(&self.credentials.headers());
        traces.inject(request.headers_mut());
        request
    }

    /// An answer counts only when it is small, well-formed, and about the object asked for.
    async fn parse(&self, id: ObjectId, response: &mut Response) -> Result<Answer, Failure> {
        let body = self.read_bounded(response).await?;
        let object: Object = serde_json::from_slice(&body)
            .map_err(|error| Reason::Malformed(shortened(&error.to_string())))?;
        if object.id != id {
            return Err(Reason::Malformed("it is about another object".to_owned()).into());
        }
        Ok(if object.online {
            Answer::Online(object)
        } else {
            Answer::Offline
        })
    }

    async fn read_bounded(&self, response: &mut Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(part) = response
            .chunk()
            .await
            .map_err(|error| transport_failure(&error))?
        {
            if body.len() + part.len() > self.answer_limit {
                return Err(
                    Reason::Malformed(format!("longer than {} bytes", self.answer_limit)).into(),
                );
            }
            body.extend_from_slice(&part);
        }
        Ok(body)
    }
}

fn transport_failure(error: &reqwest::Error) -> Failure {
    if error.is_timeout() && !error.is_connect() {
        return Reason::Timeout.into();
    }
    let cause = causes(error).last().map(ToString::to_string);
    let cause = cause.unwrap_or_default();
    let reason = if error.is_connect() {
        Reason::Unreachable(cause)
    } else if error.is_decode() {
        Reason::Malformed(cause)
    } else {
        Reason::Connection(cause)
    };
    reason.into()
}

/// The error itself, and its causes.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let first: &(dyn Error + 'static) = error;
    successors(Some(first), |error| (*error).source())
}

/// Whether the connection ended after the request was sent and before an answer began, or the server
/// refused the request unread because it ends the connection.
fn was_cut_off(error: &reqwest::Error) -> bool {
    error.is_request() && !error.is_connect() && causes(error).any(is_end_of_connection)
}

fn is_end_of_connection(cause: &(dyn Error + 'static)) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    let http = cause.downcast_ref::<hyper::Error>();
    let http2 = cause.downcast_ref::<h2::Error>();
    let network = cause.downcast_ref::<io::Error>();
    let network = network.or_else(|| http2?.get_io()).map(io::Error::kind);
    http.is_some_and(hyper::Error::is_incomplete_message)
        || http2.is_some_and(is_refusal)
        || matches!(
            network,
            Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
        )
}

/// Whether a server has not worked on a request (RFC 9113, 8.7), or closes its connection in order.
fn is_refusal(error: &h2::Error) -> bool {
    let is_end = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let is_refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    error.is_remote() && (is_end || is_refused)
}

fn reason_of(status: StatusCode) -> Reason {
    match status.as_u16() {
        status @ (404 | 410) => Reason::Gone(status),
        429 => Reason::Throttled,
        // 407 is what a proxy says of itself.
        status @ (407 | 408 | 425) => Reason::Status(status),
        status @ 400..500 => Reason::Refused(status),
        status => Reason::Status(status),
    }
}

/// The header is a number of seconds or a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    Some(
        httpdate::parse_http_date(value)
            .ok()?
            .duration_since(now)
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn header(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(value))])
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let after = |value| retry_after(&header(value), now);
        assert_eq!(after("90"), Some(Duration::from_secs(90)));
        assert_eq!(
            after("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::from_secs(7))
        );
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(after("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn only_client_errors_that_will_not_change_are_final() {
        let reason = |status| reason_of(StatusCode::from_u16(status).unwrap());
        for status in [400, 401, 403, 405, 451] {
            assert!(matches!(reason(status), Reason::Refused(_)), "{status}");
        }
        for status in [204, 302, 404, 407, 408, 410, 425, 429, 500, 503, 599] {
            assert!(!matches!(reason(status), Reason::Refused(_)), "{status}");
        }
    }
}
