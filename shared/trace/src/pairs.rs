//! Settings of several names with values, as OpenTelemetry writes them: `name=value,name=value`.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::KeyValue;
use percent_encoding::percent_decode_str;
use settings::Value;

/// The pairs, decoded. No error shows any part of them.
fn pairs(raw: &str) -> Result<Vec<(String, String)>, String> {
    let written = raw.split(',').map(str::trim);
    written.filter(|pair| !pair.is_empty()).map(pair).collect()
}

fn pair(written: &str) -> Result<(String, String), String> {
    let (name, value) = written
        .split_once('=')
        .filter(|(name, _)| !name.trim().is_empty())
        .ok_or("write it as name=value,name=value")?;
    Ok((decoded(name)?, decoded(value)?))
}

fn decoded(written: &str) -> Result<String, String> {
    let decoded = percent_decode_str(written.trim()).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|_| "what is percent-encoded is not UTF-8".to_owned())
}

/// Attributes of the process in its spans.
#[derive(Clone, Debug, Default)]
pub struct ResourceAttributes {
    raw: String,
    each: Vec<(String, String)>,
}

impl ResourceAttributes {
    pub(crate) fn each(&self) -> impl Iterator<Item = KeyValue> {
        let pairs = self.each.iter().cloned();
        pairs.map(|(name, value)| KeyValue::new(name, value))
    }
}

impl Value for ResourceAttributes {
    fn parse(raw: &str) -> Result<Self, String> {
        Ok(Self {
            raw: raw.to_owned(),
            each: pairs(raw)?,
        })
    }

    fn show(&self) -> String {
        self.raw.clone()
    }
}

/// Headers of requests to a collector. Each is sensitive.
#[derive(Clone, Default)]
pub struct CollectorHeaders(HeaderMap);

impl CollectorHeaders {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_map(self) -> HeaderMap {
        self.0
    }
}

fn header((name, value): (String, String)) -> Result<(HeaderName, HeaderValue), String> {
    let name = HeaderName::try_from(name).map_err(|_| "no name of a header stands before a =")?;
    let mut value = HeaderValue::try_from(value).map_err(|_| "a value is unfit for a header")?;
    value.set_sensitive(true);
    Ok((name, value))
}

impl Value for CollectorHeaders {
    const SECRET: bool = true;

    fn parse(raw: &str) -> Result<Self, String> {
        let headers = pairs(raw)?.into_iter().map(header);
        headers.collect::<Result<_, _>>().map(Self)
    }

    fn show(&self) -> String {
        if self.is_empty() { "" } else { "***" }.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_values_are_separated_by_commas_and_percent_encoded() {
        let read = pairs(" a.b=1, c = x%20y%2C%3Dz ,d=e=f,,g=").unwrap();
        let expected = [("a.b", "1"), ("c", "x y,=z"), ("d", "e=f"), ("g", "")];
        assert_eq!(read, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
        assert_eq!(pairs("a=100%,b=%zz").unwrap()[1].1, "%zz");
        assert!(pairs("").unwrap().is_empty());
    }

    #[test]
    fn what_is_no_pair_is_refused_and_not_shown() {
        let refused = ["hidden", "a=1,hidden", "=hidden", "hidden=%ff"];
        for raw in refused.into_iter().chain(["hid den=1", "a=hidden%0a"]) {
            let error = CollectorHeaders::parse(raw).map(drop).unwrap_err();
            assert!(!error.contains("hid"), "{error}");
        }
    }

    #[test]
    fn headers_are_shown_nowhere() {
        let headers = CollectorHeaders::parse("Authorization=Bearer%20hidden").unwrap();
        assert_eq!(headers.show(), "***");
        let sent = &headers.into_map()["authorization"];
        assert_eq!(sent, "Bearer hidden");
        assert!(sent.is_sensitive());
    }
}
