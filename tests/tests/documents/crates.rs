//! The crates that the processes share: each uses only those of the floors below it, as the plan in `shared/README.md` says,
//! and no process links a client that it has no use for.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// What each package uses, tests and build scripts aside, by package id.
struct Packages {
    names: BTreeMap<String, String>,
    uses: BTreeMap<String, Vec<String>>,
}

impl Packages {
    fn of_the_workspace() -> Self {
        let version = cargo(&["--version", "--verbose"]);
        let version = String::from_utf8(version).unwrap();
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        // Packages for other platforms have not been downloaded.
        let platform = format!("--filter-platform={}", host.unwrap());
        let format = "--format-version=1";
        let metadata = cargo(&["metadata", "--offline", "--locked", format, &platform]);
        let metadata: Value = serde_json::from_slice(&metadata).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let nodes = metadata["resolve"]["nodes"].as_array().unwrap();
        let is_normal = |dependency: &&Value| {
            let kinds = dependency["dep_kinds"].as_array().unwrap();
            kinds.iter().any(|kind| kind["kind"].is_null())
        };
        let used = |node: &Value| {
            let dependencies = node["deps"].as_array().unwrap().iter();
            dependencies
                .filter(is_normal)
                .map(|dependency| text(&dependency["pkg"]))
                .collect()
        };
        let packages = metadata["packages"].as_array().unwrap().iter();
        Self {
            names: packages
                .map(|package| (text(&package["id"]), text(&package["name"])))
                .collect(),
            uses: nodes
                .iter()
                .map(|node| (text(&node["id"]), used(node)))
                .collect(),
        }
    }

    fn used_by(&self, name: &str) -> BTreeSet<&str> {
        let id = self.id(name);
        self.uses[id]
            .iter()
            .map(|used| self.names[used].as_str())
            .collect()
    }

    /// Everything that is compiled into a package.
    fn linked_into(&self, name: &str) -> BTreeSet<&str> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.id(name)];
        while let Some(id) = open.pop() {
            if found.insert(self.names[id].as_str()) {
                open.extend(self.uses[id].iter().map(String::as_str));
            }
        }
        found
    }

    fn id(&self, name: &str) -> &str {
        let found = self.names.iter().find(|(_, known)| *known == name);
        found.unwrap_or_else(|| panic!("no package {name}")).0
    }
}

/// Floor and used crates of each crate in the plan.
fn plan() -> BTreeMap<String, (u32, BTreeSet<String>)> {
    let plan = super::read("shared/README.md");
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let floor = cells.first()?.parse().ok()?;
        let uses = cells[3].split(", ").filter(|used| !used.is_empty());
        let name = |quoted: &str| quoted.trim_matches('`').to_owned();
        Some((name(cells[1]), (floor, uses.map(name).collect())))
    };
    plan.lines().filter_map(row).collect()
}

#[test]
fn the_plan_of_the_shared_crates_is_that_of_their_manifests() {
    let (packages, plan) = (Packages::of_the_workspace(), plan());
    let folders = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared")).unwrap();
    let folders: BTreeSet<String> = folders
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    assert_eq!(plan.keys().cloned().collect::<BTreeSet<_>>(), folders);
    for (name, (floor, planned)) in &plan {
        let all = packages.used_by(name);
        let used: BTreeSet<String> = all
            .into_iter()
            .filter(|used| folders.contains(*used))
            .map(str::to_owned)
            .collect();
        assert_eq!(&used, planned, "{name}");
        for used in &used {
            assert!(plan[used].0 < *floor, "{name} is not above {used}");
        }
    }
}

#[test]
fn no_process_links_a_client_that_it_has_no_use_for() {
    let packages = Packages::of_the_workspace();
    for (process, foreign) in [
        ("mock-client", &["lapin", "tokio-postgres"][..]),
        ("ingest", &["tokio-postgres", "comfy-table"]),
        ("dead-letters", &["tokio-postgres"]),
        ("fetcher", &["comfy-table"]),
    ] {
        let linked = packages.linked_into(process);
        assert!(linked.contains("tokio") && linked.contains("hyper"));
        for foreign in foreign {
            assert!(!linked.contains(foreign), "{process} links {foreign}");
        }
    }
}
