//! Each alert has its paragraph and its tests, and asks for metrics that exist.

use std::collections::BTreeSet;
use std::path::Path;

use crate::links::leads_somewhere;
use crate::promql::unknown_metrics;
use crate::read;

/// An alert, as it is written.
struct Alert {
    name: String,
    expression: String,
    runbook: String,
}

/// The text after `key:` in `text`, up to a line that begins with one of `ends`.
fn value(text: &str, key: &str, ends: &[&str]) -> String {
    let (_, rest) = text
        .split_once(key)
        .unwrap_or_else(|| panic!("no {key} in {text}"));
    let ends = |line: &&str| !ends.iter().any(|end| line.trim_start().starts_with(end));
    rest.lines().take_while(ends).collect::<Vec<_>>().join("\n")
}

fn alerts() -> Vec<Alert> {
    let rules = read("deploy/prometheus/alerts.yml");
    let rules = rules.split("- alert: ").skip(1);
    let alert = |rule: &str| Alert {
        name: rule.lines().next().unwrap().to_owned(),
        expression: value(rule, "expr:", &["for:", "labels:"]),
        runbook: value(rule, "runbook_url:", &["- "]).trim().to_owned(),
    };
    rules.map(alert).collect()
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let page = read("deploy/runbook/alerts.md");
    let described: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .collect();
    let names: Vec<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let of = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    assert!(names.len() > 15, "only {names:?}");
    assert_eq!(of(&described), names.iter().cloned().collect());
}

#[test]
fn every_runbook_leads_to_a_section() {
    for alert in alerts() {
        let runbook = &alert.runbook;
        assert!(
            runbook.contains('#') && leads_somewhere(Path::new(""), runbook),
            "{}: {runbook}",
            alert.name
        );
    }
}

#[test]
fn every_alert_is_tested_for_firing_and_for_silence() {
    let files = ["alerts_test.yml", "objectives_test.yml"];
    let tests = files.map(|file| read(&format!("deploy/prometheus/{file}")));
    let tests = tests.concat();
    let checks: Vec<&str> = tests.split("eval_time: ").skip(1).collect();
    for Alert { name, .. } in alerts() {
        let of_alert = |check: &&&str| {
            let named = check.split_once("alertname: ").map(|(_, rest)| rest);
            named.is_some_and(|rest| {
                rest.split(|c: char| !c.is_alphanumeric()).next() == Some(&name)
            })
        };
        let (silent, firing): (Vec<&str>, Vec<&str>) = checks
            .iter()
            .filter(of_alert)
            .partition(|check| check.contains("exp_alerts: []"));
        assert!(!silent.is_empty(), "no test in which {name} is silent");
        assert!(!firing.is_empty(), "no test in which {name} fires");
    }
}

#[test]
fn objectives_are_recorded_from_metrics_that_exist() {
    let rules = read("deploy/prometheus/objectives.yml");
    let rules: Vec<&str> = rules.split("- record: ").skip(1).collect();
    assert!(rules.len() >= 10, "only {rules:?}");
    for rule in rules {
        let unknown = unknown_metrics(&value(rule, "expr:", &["- "]));
        assert!(unknown.is_empty(), "{rule} asks for {unknown:?}");
    }
}

#[test]
fn alerts_ask_for_metrics_that_exist() {
    for alert in alerts() {
        let unknown = unknown_metrics(&alert.expression);
        assert!(unknown.is_empty(), "{} asks for {unknown:?}", alert.name);
    }
}
