//! Which metrics an expression asks Prometheus for, and whether they exist.

use crate::{metrics as catalogue, read};

/// Metrics of every process that are not in the catalogue: of the process itself, and of its traces.
const OTHERS: [&str; 5] = [
    "process_cpu_seconds_total",
    "process_resident_memory_bytes",
    "process_open_fds",
    "process_max_fds",
    "process_start_time_seconds",
];

/// What the names of a histogram's series end with.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Words that are no metrics.
const KEYWORDS: [&str; 7] = [
    "and",
    "or",
    "unless",
    "bool",
    "offset",
    "group_left",
    "group_right",
];

/// Words that are followed by labels.
const LABELLING: [&str; 6] = [
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
];

/// The metrics that `expression` asks for and that neither a process nor RabbitMQ or Prometheus has.
pub(crate) fn unknown_metrics(expression: &str) -> Vec<String> {
    let mut metrics = metrics(expression);
    assert!(!metrics.is_empty(), "no metric in {expression}");
    metrics.retain(|name| !exists(name));
    metrics
}

fn exists(name: &str) -> bool {
    let of_servers = name.starts_with("rabbitmq_") || matches!(name, "up" | "ALERTS");
    let bases = SUFFIXES.iter();
    let mut bases = bases.filter_map(|suffix| name.strip_suffix(suffix));
    of_servers
        || is_recorded(name)
        || OTHERS.contains(&name)
        || is_in_catalogue(name)
        || bases.any(is_in_catalogue)
}

/// Whether a rule records it.
fn is_recorded(name: &str) -> bool {
    let rules = read("deploy/prometheus/objectives.yml");
    let mut recorded = rules.lines().filter_map(|line| line.split_once("record: "));
    recorded.any(|(_, recorded)| recorded == name)
}

fn is_in_catalogue(name: &str) -> bool {
    let parts = catalogue().into_iter().flat_map(|(_, parts)| parts);
    parts.copied().flatten().any(|metric| metric.name == name)
}

fn metrics(expression: &str) -> Vec<String> {
    let code = without_labels(&without_strings(expression));
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':' | '$');
    let mut found = Vec::new();
    let mut rest = code.as_str();
    while let Some(begin) = rest.find(is_word) {
        let word = &rest[begin..];
        let end = word.find(|c| !is_word(c)).unwrap_or(word.len());
        let (word, after) = word.split_at(end);
        let is_name = word.starts_with(|c: char| c.is_ascii_alphabetic());
        let is_function = after.trim_start().starts_with('(');
        if is_name && !is_function && !KEYWORDS.contains(&word) {
            found.push(word.to_owned());
        }
        rest = after;
    }
    found
}

fn without_strings(expression: &str) -> String {
    // There are no quotes in quotes.
    expression.split('"').step_by(2).collect()
}

/// Without matchers, ranges, and the labels of `by`, `on` and the like.
fn without_labels(expression: &str) -> String {
    let mut left = String::new();
    let mut until = None;
    for c in expression.chars() {
        if until.is_some() {
            until = until.filter(|end| *end != c);
            continue;
        }
        let before = left.trim_end();
        let word = before
            .rsplit(char::is_whitespace)
            .next()
            .unwrap_or_default();
        until = match c {
            '{' => Some('}'),
            '[' => Some(']'),
            '(' if LABELLING.contains(&word) => {
                left.truncate(before.len() - word.len());
                Some(')')
            }
            _ => None,
        };
        if until.is_none() {
            left.push(c);
        }
    }
    left
}

#[test]
fn metrics_are_told_from_the_rest_of_an_expression() {
    let expression = r#"
        sum by (job, le) (rate(a_total{reason=~"b|c"}[$__rate_interval])) / d unless on () max(e_bucket) == 1
        or label_replace(absent(f{g="h"}), "i", "j", "", "") offset 5m"#;
    assert_eq!(metrics(expression), ["a_total", "d", "e_bucket", "f"]);
}
