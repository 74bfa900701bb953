//! Settings of several names with values, as OpenTelemetry writes them: `name=value,name=value`.

use std::borrow::Cow;

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

/// What is known of who makes the spans.
#[derive(Clone, Debug, Default)]
pub struct Attributes {
    raw: String,
    each: Vec<(String, String)>,
}

impl Attributes {
    /// Each of them.
    pub(crate) fn each(&self) -> impl Iterator<Item = KeyValue> {
        let pairs = self.each.iter().cloned();
        pairs.map(|(name, value)| KeyValue::new(name, value))
    }
}

impl Value for Attributes {
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
        for raw in ["hidden", "a=1,hidden", "=hidden", "hidden=%ff"] {
            let error = pairs(raw).unwrap_err();
            assert!(!error.contains("hidden"), "{error}");
        }
    }
}
