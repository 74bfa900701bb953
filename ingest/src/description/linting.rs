//! What linters of descriptions ask for, and generators of clients and pages rely on.

use std::collections::BTreeSet;

use serde_json::Value;

use super::DESCRIPTION;
use super::tests::{description, members};

/// The operations, each with its method and path.
fn operations(description: &Value) -> Vec<(String, &Value)> {
    let mut operations = Vec::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push((format!("{method} {path}"), operation));
        }
    }
    operations
}

fn texts(value: &Value) -> Vec<&str> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}

fn has_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}

/// The targets of all references below `value`.
fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(members) => {
            found.extend(members.get("$ref").and_then(Value::as_str));
            members.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_operation_says_what_it_is_and_that_it_needs_no_credentials() {
    let description = description();
    let declared: BTreeSet<&str> = description["tags"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tag| tag["name"].as_str().unwrap())
        .collect();
    let mut ids = BTreeSet::new();
    let mut used = BTreeSet::new();
    for (name, operation) in operations(&description) {
        assert!(has_text(&operation["summary"]), "{name} has no summary");
        assert!(
            has_text(&operation["description"]),
            "{name} has no description"
        );
        assert!(
            ids.insert(operation["operationId"].as_str()),
            "{name} has another's id"
        );
        assert_eq!(operation["security"], Value::Array(vec![]), "{name}");
        let tags = texts(&operation["tags"]);
        assert!(!tags.is_empty(), "{name} has no tag");
        used.extend(tags);
        for class in ['2', '4'] {
            let described =
                members(&operation["responses"]).any(|(status, _)| status.starts_with(class));
            assert!(described, "{name} has no status {class}xx");
        }
    }
    assert_eq!(used, declared);
}

#[test]
fn every_part_is_used_and_every_reference_leads_somewhere() {
    let description = description();
    let mut referenced = BTreeSet::new();
    references(&description, &mut referenced);
    let mut parts = BTreeSet::new();
    for (kind, named) in members(&description["components"]) {
        parts.extend(members(named).map(|(name, _)| format!("#/components/{kind}/{name}")));
    }
    let parts: BTreeSet<&str> = parts.iter().map(String::as_str).collect();
    assert_eq!(referenced, parts);
}

#[test]
fn the_description_says_where_it_is_from_and_on_what_terms() {
    let description = description();
    let info = &description["info"];
    for place in [
        "/title",
        "/version",
        "/summary",
        "/description",
        "/contact/name",
        "/license/name",
        "/license/identifier",
    ] {
        assert!(info.pointer(place).is_some_and(has_text), "{place}");
    }
    for kind in ["servers", "tags"] {
        let all = description[kind].as_array().unwrap();
        assert!(
            !all.is_empty() && all.iter().all(|one| has_text(&one["description"])),
            "{kind}"
        );
    }
    assert!(DESCRIPTION.contains("404"), "other paths are not described");
}
