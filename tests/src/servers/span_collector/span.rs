//! A span, in the terms of Zipkin's API (version 2).

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

/// The process that made a span, or that it asked.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Endpoint {
    /// Name of the service.
    #[serde(default)]
    pub service_name: String,
    /// Address.
    pub ipv4: Option<String>,
    /// Address.
    pub ipv6: Option<String>,
    /// Port.
    pub port: Option<u16>,
}

/// What happened at a moment.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Annotation {
    /// Microseconds since 1970.
    pub timestamp: u64,
    /// What.
    pub value: String,
}

/// Side of an exchange.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Kind {
    /// The span of a request at its sender.
    Client,
    /// The span of a request at its receiver.
    Server,
    /// The span of a message at its publisher.
    Producer,
    /// The span of a message at its consumer.
    Consumer,
}

/// A span as Zipkin's API describes it.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Span {
    /// 16 or 32 hexadecimal digits.
    pub trace_id: String,
    /// 16 hexadecimal digits; none in a root.
    pub parent_id: Option<String>,
    /// 16 hexadecimal digits.
    pub id: String,
    /// Side of an exchange; none if it is none.
    pub kind: Option<Kind>,
    /// What it is.
    pub name: String,
    /// Begin, in microseconds since 1970.
    pub timestamp: u64,
    /// Microseconds.
    pub duration: u64,
    /// The process that made it.
    pub local_endpoint: Endpoint,
    /// The process that it asked.
    pub remote_endpoint: Option<Endpoint>,
    /// What happened meanwhile.
    #[serde(default)]
    pub annotations: Vec<Annotation>,
    /// What is known of it.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Whether it was recorded for certain.
    #[serde(default)]
    pub debug: bool,
    /// Whether client and server share its id.
    #[serde(default)]
    pub shared: bool,
}

impl Span {
    /// What is wrong with it, as far as the types do not say so already.
    pub(super) fn defect(&self) -> Option<&'static str> {
        let is_hex = |id: &str, lengths: &[usize]| {
            let digits = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
            lengths.contains(&id.len()) && id.chars().all(digits) && id.chars().any(|c| c != '0')
        };
        let parent = self.parent_id.as_ref();
        let checks = [
            (!is_hex(&self.trace_id, &[16, 32]), "traceId"),
            (!is_hex(&self.id, &[16]), "id"),
            (parent.is_some_and(|id| !is_hex(id, &[16])), "parentId"),
            (self.name.is_empty(), "name"),
            (self.timestamp < 1_600_000_000_000_000, "timestamp"),
            (self.local_endpoint.service_name.is_empty(), "localEndpoint"),
        ];
        checks
            .iter()
            .find(|(wrong, _)| *wrong)
            .map(|(_, what)| *what)
    }

    /// The moment at which it ended, in microseconds since 1970.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.timestamp + self.duration
    }

    /// A tag; empty where there is none.
    #[must_use]
    pub fn tag(&self, name: &str) -> &str {
        self.tags.get(name).map_or("", String::as_str)
    }

    /// The service and the name.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}: {}", self.local_endpoint.service_name, self.name)
    }
}

/// What a trace lacks to be whole: one root, and each parent there and begun before its children.
#[must_use]
pub fn defect(trace: &[Span]) -> Option<String> {
    let by_id: HashMap<_, _> = trace.iter().map(|span| (&span.id, span)).collect();
    if by_id.len() < trace.len() {
        return Some("an id is there twice".to_owned());
    }
    let roots = trace.iter().filter(|span| span.parent_id.is_none()).count();
    if roots != 1 {
        return Some(format!("{roots} roots"));
    }
    let mut others = trace.iter().filter(|span| span.parent_id.is_some());
    others.find_map(|span| {
        let parent = span.parent_id.as_ref().and_then(|id| by_id.get(id));
        match parent {
            None => Some(format!("{} lacks its parent", span.title())),
            Some(parent) if parent.timestamp > span.timestamp => {
                Some(format!("{} begins before {}", span.title(), parent.title()))
            }
            Some(_) => None,
        }
    })
}
