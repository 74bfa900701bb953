//! Asking the client service for one object, and judging its answer.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use http::header::{ACCEPT_ENCODING, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::Response;
use reqwest::redirect::Policy;
use serde::Deserialize;
use shared::messages::{ObjectId, shortened};
use shared::trace::http::{Target, note_status};
use shared::trace::{Spans, Traces};
use url::Url;

use crate::answer::{Answer, Failure, Reason};
use crate::config::Config;

/// Without it a server may choose any coding (RFC 9110, 12.5.3).
const NOT_COMPRESSED: HeaderValue = HeaderValue::from_static("identity");

/// The body of an answer; other members are ignored.
#[derive(Deserialize)]
struct Object {
    id: ObjectId,
    online: bool,
}

/// The client service.
#[derive(Clone, Debug)]
pub struct ClientService {
    http: reqwest::Client,
    /// Below it are the objects.
    objects: Url,
    target: Target,
    answer_limit: usize,
}

impl ClientService {
    /// Makes the connection pool; connections are made when they are needed.
    ///
    /// # Errors
    /// The TLS set-up fails.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("callback-pipeline-fetcher/", env!("CARGO_PKG_VERSION")))
            .default_headers(HeaderMap::from_iter([(ACCEPT_ENCODING, NOT_COMPRESSED)]))
            .timeout(config.fetch_timeout)
            .pool_max_idle_per_host(config.fetch_concurrency.get())
            // Shorter than servers keep idle connections, which would close as they are used.
            .pool_idle_timeout(Duration::from_secs(15))
            // A redirect is not an answer, and a proxy of the environment is not the client service.
            .redirect(Policy::none())
            // Tries are the pipeline's own, which counts them.
            .retry(reqwest::retry::never())
            .no_proxy()
            .build()
            .context("setting up the HTTP client")?;
        Ok(Self {
            http,
            objects: config.client_url.objects(),
            target: Target::new(config.client_url.url()),
            answer_limit: config.answer_limit.bytes(),
        })
    }

    /// Looks one object up, once.
    pub async fn look_up(&self, id: ObjectId, traces: &Traces) -> Answer {
        let mut span = traces.start(|| {
            let path = format!("/objects/{id}");
            self.target.request("GET", "/objects/{id}", &path)
        });
        match self.ask(id, &mut span).await {
            Ok(answer) => answer,
            Err(failure) => {
                span.fail(&failure.reason.error_type(), &failure.reason);
                Answer::Failed(failure)
            }
        }
    }

    async fn ask(&self, id: ObjectId, span: &mut Spans) -> Result<Answer, Failure> {
        let mut headers = HeaderMap::new();
        span.traces().inject(&mut headers);
        let request = self.http.get(self.object(id)).headers(headers);
        let response = request.send().await.map_err(|error| transport(&error))?;
        note_status(span, response.status());
        match response.status() {
            StatusCode::OK => self.judge(id, response).await,
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Answer::Gone),
            status => Err(Failure {
                reason: refusal(status),
                retry_after: retry_after(response.headers(), SystemTime::now()),
            }),
        }
    }

    fn object(&self, id: ObjectId) -> Url {
        let mut url = self.objects.clone();
        // To parse all of it anew would take longer.
        url.set_path(&format!("{}{id}", url.path()));
        url
    }

    /// An answer counts only when it is small, well-formed, and about the object asked for.
    async fn judge(&self, id: ObjectId, response: Response) -> Result<Answer, Failure> {
        let body = self.read(response).await?;
        let object: Object = serde_json::from_slice(&body)
            .map_err(|error| Reason::Malformed(shortened(&error.to_string())))?;
        if object.id != id {
            return Err(Reason::Malformed("it is about another object".to_owned()).into());
        }
        Ok(if object.online {
            Answer::Online
        } else {
            Answer::Offline
        })
    }

    async fn read(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| transport(&error))? {
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

fn transport(error: &reqwest::Error) -> Failure {
    if error.is_timeout() {
        return Reason::Timeout.into();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    if error.is_decode() {
        return Reason::Malformed(cause.to_string()).into();
    }
    Reason::Connection(cause.to_string()).into()
}

fn refusal(status: StatusCode) -> Reason {
    let passing = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    if status.is_client_error() && !passing.contains(&status) {
        Reason::Refused(status.as_u16())
    } else {
        Reason::Status(status.as_u16())
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
        for status in [400, 401, 403, 405, 451] {
            assert!(
                !refusal(StatusCode::from_u16(status).unwrap()).may_pass(),
                "{status}"
            );
        }
        for status in [204, 302, 408, 425, 429, 500, 503, 599] {
            assert!(
                refusal(StatusCode::from_u16(status).unwrap()).may_pass(),
                "{status}"
            );
        }
    }
}
