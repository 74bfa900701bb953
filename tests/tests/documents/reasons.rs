//! The page of reasons has a test for each row.

use std::path::Path;

use crate::read;

/// The text of the end-to-end tests in a folder.
fn tests(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            if path.is_dir() {
                tests(&path)
            } else {
                std::fs::read_to_string(&path).unwrap()
            }
        })
        .collect()
}

#[test]
fn every_reason_in_the_runbook_is_made_by_a_test() {
    let tests = tests(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/end_to_end"));
    let page = read("deploy/runbook/reasons.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows: Vec<&str> = rows.filter_map(|row| row.split('`').next()).collect();
    assert!(rows.len() > 40, "only {rows:?}");
    for row in rows {
        assert!(
            tests.contains(&format!("\"{row}\"")),
            "no test makes {row:?}"
        );
    }
}
