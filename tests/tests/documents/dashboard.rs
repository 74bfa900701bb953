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

#[test]
fn panels_ask_the_source_that_is_provisioned() {
    let sources = read("deploy/grafana/provisioning/datasources/prometheus.yaml");
    let source = sources
        .lines()
        .find_map(|line| line.trim().strip_prefix("uid: "))
        .unwrap();
    for panel in panels().iter().filter(|panel| !is_row(panel)) {
        for asking in targets(panel).iter().chain([panel]) {
            assert_eq!(text(&asking["datasource"], "uid"), source, "{panel}");
        }
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
