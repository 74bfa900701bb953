//! The table of what the fault suite has shown has a line for each case.

use std::collections::BTreeSet;
use std::path::Path;

use crate::read;

/// The cases of the suite, as its table names them.
fn cases() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/faults");
    let files = std::fs::read_dir(folder).unwrap();
    let lists = files.filter_map(|file| {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let (list, _) = text.split_once("tests::cases![")?.1.split_once(']')?;
        Some(list.to_owned())
    });
    let lists: Vec<String> = lists.collect();
    let names = lists.iter().flat_map(|list| list.split(','));
    let names = names.map(|name| name.trim().replace('_', " "));
    names.filter(|name| !name.is_empty()).collect()
}

#[test]
fn the_table_of_the_fault_suite_has_every_case() {
    let text = read("tests/README.md");
    let (_, table) = text.split_once("| case |").unwrap();
    let (table, _) = table.split_once("\n\n").unwrap();
    let rows = table.lines().skip(2);
    let rows = rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned());
    let rows: BTreeSet<String> = rows.collect();
    assert!(rows.len() > 20, "only {rows:?}");
    let cases = cases();
    assert!(
        rows == cases,
        "tests/README.md lacks {:?}, and has {:?} without a case",
        &cases - &rows,
        &rows - &cases
    );
}
