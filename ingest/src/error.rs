//! Every error that a client can get, and how it is answered:
//! `{"error":"<code>","message":"<what to do>"}`.

use bytes::Bytes;
use http::header::{ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use thiserror::Error;

use crate::request::CallbackError;

/// Seconds after which a client should try again.
const RETRY_AFTER_SECONDS: &str = "1";

/// Why a request was not accepted. The text tells the client what to do.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ApiError {
    /// The body is not a callback.
    #[error(transparent)]
    Callback(#[from] CallbackError),
    /// The body did not arrive whole.
    #[error("the body could not be read: {0}")]
    BrokenBody(String),
    /// No such path.
    #[error("there is no such path; POST callbacks to /callback")]
    NotFound,
    /// The path has other methods.
    #[error("this path takes {0} only")]
    MethodNotAllowed(&'static str),
    /// The body is larger than allowed.
    #[error("the body is larger than {0} bytes; send several callbacks")]
    PayloadTooLarge(usize),
    /// The body did not arrive in time.
    #[error("the body did not arrive in time; send the callback again")]
    RequestTimeout,
    /// More requests or connections than allowed.
    #[error("there is too much to do; send the callback again")]
    Overloaded,
    /// The ids could not be made safe, or something that `ingest` needs is unreachable.
    #[error("{0}; send the callback again")]
    Unavailable(String),
    /// A defect.
    #[error("an unforeseen error, which the log describes; send the callback again")]
    Internal,
}

impl ApiError {
    /// Status and error code of the answer.
    #[must_use]
    pub fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Callback(CallbackError::NotJson(_)) => (StatusCode::BAD_REQUEST, "invalid_json"),
            Self::Callback(CallbackError::WrongShape(_)) | Self::BrokenBody(_) => {
                (StatusCode::BAD_REQUEST, "invalid_request")
            }
            Self::Callback(CallbackError::TooManyIds { .. }) | Self::PayloadTooLarge(_) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large")
            }
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found"),
            Self::MethodNotAllowed(_) => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            Self::RequestTimeout => (StatusCode::REQUEST_TIMEOUT, "request_timeout"),
            Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            Self::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal_error"),
        }
    }

    /// Whether the answer is given before the whole body has been read.
    fn leaves_body_unread(&self) -> bool {
        matches!(
            self,
            Self::PayloadTooLarge(_)
                | Self::RequestTimeout
                | Self::BrokenBody(_)
                | Self::Overloaded
                | Self::NotFound
                | Self::MethodNotAllowed(_)
        )
    }

    /// The answer. `has_body` tells whether the request has a body over HTTP/1: where that is left
    /// unread, the connection cannot be used for another request.
    #[must_use]
    pub fn response(&self, has_body: bool) -> Response<Full<Bytes>> {
        let (status, code) = self.status_and_code();
        let mut response = json_response(
            status,
            &json!({ "error": code, "message": self.to_string() }),
        );
        let headers = response.headers_mut();
        if let Self::MethodNotAllowed(allowed) = self {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS));
        }
        if has_body && self.leaves_body_unread() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// An answer with a JSON body.
#[must_use]
pub fn json_response(status: StatusCode, body: &serde_json::Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The whole answer to a connection above the limit, whose request is not read.
#[must_use]
pub fn refusal() -> Bytes {
    let (status, code) = ApiError::Overloaded.status_and_code();
    let body = json!({ "error": code, "message": ApiError::Overloaded.to_string() }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         retry-after: {RETRY_AFTER_SECONDS}\r\nconnection: close\r\n\r\n{body}"
    )
    .into()
}
