//! The dashboard is one that Grafana can show, and asks for metrics that exist.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::promql::unknown_metrics;
use crate::read;

/// Grafana's grid has so many columns.
const COLUMNS: u64 = 24;

fn panels() -> Vec<Value> {
    let dashboard: Value =
        serde_json::from_str(&read("deploy/grafana/dashboards/pipeline.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().clone();
    assert!(panels.len() > 20, "only {} panels", panels.len());
    panels
}

fn text<'a>(panel: &'a Value, key: &str) -> &'a str {
    panel[key].as_str().unwrap_or_default()
}

fn is_row(panel: &Value) -> bool {
    panel["type"] == "row"
}

fn targets(panel: &Value) -> &[Value] {
    panel["targets"].as_array().map_or(&[], Vec::as_slice)
}

#[test]
fn panels_have_ids_of_their_own_and_say_what_they_show() {
    let panels = panels();
    let ids: BTreeSet<u64> = panels
        .iter()
        .map(|panel| panel["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        assert!(!text(&panel, "title").is_empty(), "{panel}");
        if !is_row(&panel) {
            assert!(!text(&panel, "description").is_empty(), "{panel}");
            assert!(
                panel["fieldConfig"]["defaults"]["unit"].is_string(),
                "{panel}"
            );
            assert!(!targets(&panel).is_empty(), "{panel}");
        }
    }
}

#[test]
fn panels_do_not_overlap() {
    let mut taken = BTreeSet::new();
    for panel in panels() {
        let side = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        let (x, y) = (side("x"), side("y"));
        assert!(x + side("w") <= COLUMNS, "{panel}");
        for column in x..x + side("w") {
            for row in y..y + side("h") {
                assert!(taken.insert((column, row)), "{panel}");
            }
        }
    }
}

/// The dashboard can be used with any Prometheus, and for a part of what it has.
#[test]
fn panels_ask_the_source_and_the_replicas_that_are_chosen() {
    for panel in panels().iter().filter(|panel| !is_row(panel)) {
        for asking in targets(panel).iter().chain([panel]) {
            assert_eq!(
                text(&asking["datasource"], "uid"),
                "${datasource}",
                "{panel}"
            );
        }
        for target in targets(panel) {
            let expression = text(target, "expr");
            let is_of_others = ["rabbitmq_", "objective:", "ALERTS"];
            let is_ours = !is_of_others.iter().any(|name| expression.contains(name));
            for variable in ["$namespace", "$job", "$instance"] {
                assert_eq!(expression.contains(variable), is_ours, "{expression}");
            }
        }
    }
}

#[test]
fn panels_lead_to_paragraphs_that_exist() {
    let page = read("deploy/runbook/alerts.md").to_lowercase();
    let panels = panels();
    let links: Vec<&Value> = panels
        .iter()
        .filter_map(|panel| panel["links"].as_array())
        .flatten()
        .collect();
    assert!(links.len() > 15, "only {links:?}");
    for link in links {
        let (base, paragraph) = text(link, "url").split_once('#').unwrap();
        assert_eq!(base, "${runbook}");
        assert!(page.contains(&format!("## {paragraph}\n")), "{link}");
    }
}

/// Once for each, or Grafana shows each trace several times.
#[test]
fn graphs_of_durations_lead_to_traces() {
    let panels = panels();
    let graphs = panels
        .iter()
        .filter(|panel| text(panel, "type") == "timeseries");
    let targets: Vec<&Value> = graphs.flat_map(targets).collect();
    for histogram in [
        "callback_pipeline_callback_duration_seconds",
        "callback_pipeline_callback_id_duration_seconds",
        "callback_pipeline_fetch_duration_seconds",
        "callback_pipeline_upsert_duration_seconds",
        "callback_pipeline_object_deletion_lateness_seconds",
    ] {
        let asks = |target: &&&Value| {
            let series = format!("({histogram}_bucket{{");
            text(target, "expr").contains(&series) && target["exemplar"] == true
        };
        assert_eq!(targets.iter().filter(asks).count(), 1, "{histogram}");
    }
}

#[test]
fn panels_ask_for_metrics_that_exist() {
    for panel in panels() {
        for target in targets(&panel) {
            let unknown = unknown_metrics(text(target, "expr"));
            assert!(
                unknown.is_empty(),
                "{} asks for {unknown:?}",
                text(&panel, "title")
            );
        }
    }
}
