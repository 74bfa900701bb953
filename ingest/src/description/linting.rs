//! What linters of descriptions ask for, and generators of clients and pages rely on: the recommended rules of Redocly CLI 2
//! and of Spectral's `spectral:oas` (6.15) that a description of this version of `OpenAPI`, without parameters and enumerations,
//! can break. Those about the form of the document are those of its schema, which `scripts/check-api` reads it by.
//!
//! | Redocly | Spectral | here |
//! | --- | --- | --- |
//! | `info-license`, `info-license-strict` | `info-contact`, `info-description` | [`the_description_says_where_it_is_from_and_on_what_terms`] |
//! | `no-empty-servers`, `no-server-trailing-slash`, `no-server-example.com`, `tag-description` | `oas3-api-servers`, `oas3-server-not-example.com` | the same |
//! | `operation-summary`, `operation-operationId`, `...-unique`, `...-url-safe` | `operation-description`, `operation-operationId`, `...-unique`, `...-valid-in-url` | [`every_operation_says_what_it_is_and_that_it_needs_no_credentials`] |
//! | `security-defined`, `operation-2xx-response`, `operation-4xx-response` | `operation-success-response`, `operation-tags`, `operation-tag-defined` | the same |
//! | `no-unused-components`, `no-unresolved-refs` | `oas3-unused-component` | [`every_part_is_used_and_every_reference_leads_somewhere`] |
//! | `no-identical-paths`, `no-ambiguous-paths`, `no-path-trailing-slash`, `path-not-include-query` | `path-keys-no-trailing-slash`, `path-not-include-query` | [`paths_are_plain`] |
//! | `no-invalid-media-type-examples`, `no-example-value-and-externalValue` | `oas3-valid-media-example`, `oas3-examples-value-or-externalValue`, `no-script-tags-in-markdown` | [`every_answer_with_a_body_has_an_example`] |

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

/// The kinds of body that an answer may have.
fn contents(answer: &Value) -> impl Iterator<Item = (&String, &Value)> {
    answer["content"].as_object().into_iter().flatten()
}

/// An answer itself, where `value` refers to it.
fn resolved<'a>(description: &'a Value, value: &'a Value) -> &'a Value {
    let place = value["$ref"]
        .as_str()
        .and_then(|place| place.strip_prefix('#'));
    place.map_or(value, |place| description.pointer(place).unwrap())
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

#[test]
fn paths_are_plain() {
    let description = description();
    for (path, _) in members(&description["paths"]) {
        let is_plain = path == "/" || !path.ends_with('/');
        assert!(is_plain && !path.contains(['?', '{', '#']), "{path}");
    }
    for (name, operation) in operations(&description) {
        let id = operation["operationId"].as_str().unwrap();
        let is_safe = id.chars().all(|c| c.is_ascii_alphanumeric());
        assert!(is_safe, "the id of {name} is {id:?}");
    }
}

/// `the_description_has_every_error_as_it_is_answered_and_no_other` holds the examples of errors against the code.
#[test]
fn every_answer_with_a_body_has_an_example() {
    let description = description();
    let mut count = 0;
    for (name, operation) in operations(&description) {
        for (status, answer) in members(&operation["responses"]) {
            for (kind, content) in contents(resolved(&description, answer)) {
                let one = content.get("example");
                let several = content["examples"].as_object();
                let values = several
                    .into_iter()
                    .flatten()
                    .map(|(_, example)| &example["value"]);
                let examples: Vec<&Value> = one.into_iter().chain(values).collect();
                assert!(
                    !examples.is_empty(),
                    "{name}: {status} {kind} has no example"
                );
                assert!(
                    one.is_none() || several.is_none(),
                    "{name}: {status} {kind}"
                );
                assert!(
                    examples.iter().all(|example| !example.is_null()),
                    "{name}: {status}"
                );
                count += 1;
            }
        }
    }
    assert!(count > 10, "only {count} answers");
    assert!(!DESCRIPTION.contains("<script") && !DESCRIPTION.contains("eval("));
}
