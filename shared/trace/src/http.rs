//! Spans of requests, by OpenTelemetry's conventions for HTTP.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Method, Request, StatusCode};
use opentelemetry::KeyValue;
use opentelemetry::trace::{SpanBuilder, SpanKind};
use url::Url;

use crate::attribute::{
    CLIENT_ADDRESS, HTTP_REQUEST_METHOD, HTTP_RESPONSE_STATUS_CODE, HTTP_ROUTE, SERVER_ADDRESS,
    SERVER_PORT, URL_FULL, URL_PATH, URL_SCHEME, URL_TEMPLATE, USER_AGENT_ORIGINAL,
};
use crate::traces::{SpanSet, TraceSet};

/// The span of answering a request: continues the trace that it names, or begins one. `route` stands
/// for all paths that are answered alike; a path of no route has none.
pub fn serve<B>(request: &Request<B>, route: Option<&'static str>, remote: SocketAddr) -> SpanSet {
    TraceSet::begin(
        TraceSet::sender(request.headers()),
        SpanKind::Server,
        || {
            let (shown, method) = known(request.method());
            let mut attributes = vec![
                KeyValue::new(HTTP_REQUEST_METHOD, method),
                KeyValue::new(URL_PATH, request.uri().path().to_owned()),
                KeyValue::new(URL_SCHEME, "http"),
                KeyValue::new(CLIENT_ADDRESS, remote.ip().to_string()),
            ];
            attributes.extend(route.map(|route| KeyValue::new(HTTP_ROUTE, route)));
            let agent = request.headers().get(USER_AGENT);
            if let Some(agent) = agent.and_then(|agent| agent.to_str().ok()) {
                attributes.push(KeyValue::new(USER_AGENT_ORIGINAL, agent.to_owned()));
            }
            let name = route.map_or_else(|| shown.to_owned(), |route| format!("{shown} {route}"));
            (name, attributes)
        },
    )
}

/// The method in the name of a span, and as an attribute. Unknown methods share one name, because
/// clients can make up any number of them.
fn known(method: &Method) -> (&'static str, &'static str) {
    let known = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"];
    let known = known.into_iter().find(|known| method == known);
    known.map_or(("HTTP", "_OTHER"), |method| (method, method))
}

/// Notes the answer and ends the span. An error of the client is no failure of the span.
pub fn answer(mut span: SpanSet, status: StatusCode) {
    note_status(&mut span, status);
    if status.is_server_error() {
        span.fail(status.as_str(), &status);
    }
}

/// Notes the status of an answer.
pub fn note_status(span: &mut SpanSet, status: StatusCode) {
    let code = i64::from(status.as_u16());
    span.set(|| vec![KeyValue::new(HTTP_RESPONSE_STATUS_CODE, code)]);
}

/// The server that requests are sent to, as their spans describe it: without credentials.
#[derive(Clone, Debug)]
pub struct Target {
    url: Arc<str>,
    host: Arc<str>,
    port: Option<u16>,
}

impl Target {
    /// Requests are sent to `url`, or below it.
    #[must_use]
    pub fn new(url: &Url) -> Self {
        let mut shown = url.clone();
        // Neither fails for an address of http or https.
        if shown.set_username("").is_err() || shown.set_password(None).is_err() {
            shown.set_path("");
        }
        Self {
            url: shown.as_str().trim_end_matches('/').into(),
            host: url.host_str().unwrap_or_default().into(),
            port: url.port_or_known_default(),
        }
    }

    /// The span of a request for `path` below the target's address; `template` stands for all paths
    /// that are alike.
    #[must_use]
    pub fn request(&self, method: &'static str, template: &'static str, path: &str) -> SpanBuilder {
        SpanBuilder::from_name(format!("{method} {template}"))
            .with_kind(SpanKind::Client)
            .with_attributes(self.attributes(method, template, path))
    }

    /// The attributes of such a span.
    #[must_use]
    pub fn attributes(&self, method: &'static str, template: &str, path: &str) -> Vec<KeyValue> {
        let port = self.port.map(i64::from);
        let mut attributes = vec![
            KeyValue::new(HTTP_REQUEST_METHOD, method),
            KeyValue::new(URL_TEMPLATE, template.to_owned()),
            KeyValue::new(URL_FULL, format!("{}{path}", self.url)),
            KeyValue::new(SERVER_ADDRESS, Arc::clone(&self.host)),
        ];
        attributes.extend(port.map(|port| KeyValue::new(SERVER_PORT, port)));
        attributes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_in_no_span() {
        let target = Target::new(&Url::parse("http://user:secret@host:9010/api/").unwrap());
        let span = target.request("GET", "/objects/{id}", "/objects/7");
        let shown = format!("{:?}", span.attributes);
        assert!(shown.contains("http://host:9010/api/objects/7"), "{shown}");
        assert!(
            !shown.contains("secret") && !shown.contains("user"),
            "{shown}"
        );
    }

    #[test]
    fn a_method_that_somebody_made_up_is_none_of_the_names() {
        let made_up = Method::from_bytes(b"AAAA").unwrap();
        assert_eq!(known(&made_up), ("HTTP", "_OTHER"));
        assert_eq!(known(&Method::POST), ("POST", "POST"));
    }
}
