//! Every error that a client can get, and its answer:
//! `{"error":"<code>","message":"<what to do>"}`.

use bytes::Bytes;
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use metric_definitions::Label;
use serde_json::json;
use thiserror::Error;
use webhook::Refusal;

use crate::request::CallbackError;

/// The codings that are understood, as `Accept-Encoding` lists them.
const UNDERSTOOD_CODINGS: &str = "gzip, deflate, identity";

/// What 401 asks for; HTTP has no registered name for it.
const CHALLENGE: &str = "StandardWebhooks";

/// Seconds after which a client should try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why a request was not accepted. The text tells the client what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum ApiError {
    #[error(transparent)]
    Callback(#[from] CallbackError),
    #[error("the body could not be read: {0}")]
    BrokenBody(String),
    #[error("the body could not be decoded as Content-Encoding says: {0}")]
    Undecodable(String),
    #[error(
        "Content-Encoding may be gzip or deflate; send the callback in one of them, or as it is"
    )]
    UnsupportedCoding,
    #[error(
        "Transfer-Encoding may be chunked, and nothing else; send the callback in chunks or at once"
    )]
    UnsupportedTransferCoding,
    /// The callback is not signed, and has to be.
    #[error(transparent)]
    Unauthorized(#[from] Refusal),
    #[error("there is no such path; POST callbacks to /callback, and see /openapi.json")]
    NotFound,
    /// With the methods that the path takes.
    #[error("this path takes {0} only")]
    MethodNotAllowed(&'static str),
    #[error("the body is larger than {0} bytes; send several callbacks")]
    PayloadTooLarge(usize),
    #[error("the body did not arrive in time; send the callback again")]
    RequestTimeout,
    /// A limit of the source is reached. With the seconds after which it may send again.
    #[error("too much came from this source; send the callback again after Retry-After")]
    TooManyRequests(u64),
    /// A limit of requests, connections or memory is reached.
    #[error("there is too much to do; send the callback again")]
    Overloaded,
    /// Neither broker nor spool could store the ids, or both are down.
    #[error("{0}; send the callback again")]
    Unavailable(String),
    /// A defect.
    #[error("an unforeseen error, which the log describes; send the callback again")]
    Internal,
}

impl ApiError {
    pub(crate) fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Callback(CallbackError::NotJson(_)) => (StatusCode::BAD_REQUEST, "invalid_json"),
            Self::Callback(CallbackError::WrongShape(_))
            | Self::BrokenBody(_)
            | Self::Undecodable(_) => (StatusCode::BAD_REQUEST, "invalid_request"),
            Self::UnsupportedCoding => {
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type")
            }
            Self::UnsupportedTransferCoding => (StatusCode::NOT_IMPLEMENTED, "not_implemented"),
            Self::Callback(CallbackError::TooManyIds { .. }) | Self::PayloadTooLarge(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large")
            }
            Self::Unauthorized(_) => (StatusCode::UNAUTHORIZED, "unauthorized"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::TooManyRequests(_) => (StatusCode::TOO_MANY_REQUESTS, "too_many_requests"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        }
    }

    pub(crate) fn response(&self) -> Response<Full<Bytes>> {
        let (status, code) = self.status_and_code();
        let mut response = json_response(
            status,
            &json!({ "error": code, "message": self.to_string() }),
        );
        let headers = response.headers_mut();
        match self {
            Self::MethodNotAllowed(allowed) => {
                headers.insert(ALLOW, HeaderValue::from_static(allowed));
            }
            Self::UnsupportedCoding => {
                let understood = HeaderValue::from_static(UNDERSTOOD_CODINGS);
                headers.insert(ACCEPT_ENCODING, understood);
            }
            Self::Unauthorized(_) => {
                let challenge = HeaderValue::from_static(CHALLENGE);
                headers.insert(WWW_AUTHENTICATE, challenge);
            }
            Self::TooManyRequests(seconds) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(*seconds));
            }
            // Proxies may disagree where such a body ends: no further request may follow it.
            Self::UnsupportedTransferCoding => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        response
    }
}

/// The codes of the errors that a callback can be answered with.
impl Label for ApiError {
    const NAME: &'static str = "reason";
    const VALUES: &'static [&'static str] = &[
        "invalid_json",
        "invalid_request",
        "unauthorized",
        "method_not_allowed",
        "payload_too_large",
        "unsupported_media_type",
        "not_implemented",
        "request_timeout",
        "too_many_requests",
        "overloaded",
        "unavailable",
        "internal_error",
    ];

    fn value(&self) -> &'static str {
        self.status_and_code().1
    }
}

pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = json_document(body.to_string());
    *response.status_mut() = status;
    response
}

/// The answer 200 with a body that is JSON already.
pub(crate) fn json_document(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The whole answer to a refused connection, whose request is not read.
pub(crate) fn refusal() -> Bytes {
    let (status, code) = ApiError::Overloaded.status_and_code();
    let body = json!({ "error": code, "message": ApiError::Overloaded.to_string() }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         retry-after: {RETRY_AFTER_SECONDS}\r\nconnection: close\r\n\r\n{body}"
    )
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_connection_is_answered_as_a_shed_request() {
        let refusal = String::from_utf8(refusal().to_vec()).unwrap();
        let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 ") && head.contains("retry-after: 1"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(body).unwrap()["error"],
            "overloaded"
        );
    }
}
