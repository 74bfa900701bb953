//! Prometheus' text format.

use std::collections::BTreeMap;

/// The labels of a series, by name.
pub type Labels = BTreeMap<String, String>;

/// One value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The name of the metric; of a histogram, with what it ends in.
    pub name: String,
    /// The labels of the value.
    pub labels: Labels,
    /// The value.
    pub value: f64,
}

impl Series {
    /// The value of a label; empty when there is none, as Prometheus has it.
    pub(crate) fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }
}

/// The series in an answer. What is none is passed over.
#[must_use]
pub fn read(text: &str) -> Vec<Series> {
    text.lines().filter_map(series).collect()
}

/// The series in a line; `None` if the line is a comment, or has no series.
#[must_use]
pub fn series(line: &str) -> Option<Series> {
    if line.starts_with('#') {
        return None;
    }
    let (name, rest) = line.split_at(line.find(['{', ' '])?);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    // A time may follow the value.
    let value = rest.split_whitespace().next()?.parse().ok()?;
    let name = name.to_owned();
    Some(Series {
        name,
        labels,
        value,
    })
}

/// The labels, and what follows their brace.
fn labels(mut rest: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, value) = rest.split_once("=\"")?;
        let (value, after) = quoted(value)?;
        labels.insert(name.to_owned(), value);
        rest = after;
    }
}

/// A value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match characters.next()?.1 {
                'n' => value.push('\n'),
                escaped => value.push(escaped),
            },
            other => value.push(other),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{Labels, Series, read};

    fn series(name: &str, labels: &[(&str, &str)], value: f64) -> Series {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        Series {
            name: name.to_owned(),
            labels: labels.iter().map(own).collect::<Labels>(),
            value,
        }
    }

    #[test]
    fn values_are_read_with_and_without_labels() {
        let text = "# HELP a_total What a is.\n# TYPE a_total counter\na_total 3\n\
                    b{x=\"1\",y=\"two words\"} 0.5\nc{} 1e3 1395066363000\n";
        let expected = [
            series("a_total", &[], 3.0),
            series("b", &[("x", "1"), ("y", "two words")], 0.5),
            series("c", &[], 1000.0),
        ];
        assert_eq!(read(text), expected);
    }

    #[test]
    fn a_value_may_have_braces_quotes_commas_and_line_breaks() {
        let text = r#"a{x="}, {\"\\\n",y="="} 1"#;
        let expected = series("a", &[("x", "}, {\"\\\n"), ("y", "=")], 1.0);
        assert_eq!(read(text), [expected]);
    }

    #[test]
    fn numbers_may_be_without_bounds() {
        assert_eq!(read("a +Inf"), [series("a", &[], f64::INFINITY)]);
        assert!(read("a NaN")[0].value.is_nan());
    }

    #[test]
    fn what_is_no_series_is_passed_over() {
        for line in [
            "",
            "a",
            "a{x=\"1\" 2",
            "a{x=1} 2",
            "a{x=\"1\\",
            "a b",
            "<html>",
            "a{x=\"1\"}",
        ] {
            assert_eq!(read(line), [], "{line}");
        }
    }
}
