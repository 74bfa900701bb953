//! The manifests for Kubernetes set what can be set.

use std::collections::BTreeSet;

use settings::Settings;

use crate::{read, specs};

/// Names that look like those of settings, in lines such as `- name: AMQP_URL`.
fn names(file: &str) -> BTreeSet<String> {
    let text = read(&format!("deploy/kubernetes/{file}"));
    let begins = ["- name: ", "- {name: "];
    let named = |line: &str| {
        let line = line.trim_start();
        let rest = begins
            .iter()
            .find_map(|begin| line.strip_prefix(begin))
            .unwrap_or(line);
        let is_part = |c: char| c.is_ascii_uppercase() || c == '_';
        let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        (end > 1).then(|| rest[..end].to_owned())
    };
    text.lines().filter_map(named).collect()
}

fn settings(process: &str) -> BTreeSet<String> {
    let of_process = specs().into_iter().filter(|(name, _)| *name == process);
    // `setup` is an init container of the janitor.
    let of_setup = fetcher::setup::Config::specs();
    let of_setup = of_setup.into_iter().filter(|_| process == "janitor");
    of_process
        .flat_map(|(_, specs)| specs)
        .chain(of_setup)
        .map(|spec| spec.variable())
        .collect()
}

#[test]
fn manifests_set_what_the_processes_read() {
    for process in ["ingest", "fetcher", "janitor"] {
        let file = format!("{process}.yaml");
        let (mut set, settings) = (names(&file), settings(process));
        assert!(set.contains("ADMIN_ADDRESS"), "only {set:?}");
        // A value of a setting is made of them.
        let text = read(&format!("deploy/kubernetes/{file}"));
        set.retain(|name| !text.contains(&format!("$({name})")));
        assert!(
            set.is_subset(&settings),
            "{process} does not read {:?}",
            &set - &settings
        );
    }
}

#[test]
fn common_settings_and_secrets_are_read_by_some_process() {
    let all: BTreeSet<String> = ["ingest", "fetcher", "janitor"]
        .into_iter()
        .flat_map(settings)
        .collect();
    for file in ["settings.env", "secret.example.yaml"] {
        let set = names(file);
        assert!(set.len() > 1, "only {set:?} in {file}");
        assert!(
            set.is_subset(&all),
            "{file}: nobody reads {:?}",
            &set - &all
        );
    }
}

/// What linters ask for: kube-score and kube-linter, of which neither is at hand.
#[test]
fn every_container_says_what_it_needs_of_the_nodes_disk() {
    for (process, containers) in [("ingest", 1), ("fetcher", 1), ("janitor", 2)] {
        let text = read(&format!("deploy/kubernetes/{process}.yaml"));
        for bound in ["requests: {", "limits: {"] {
            let of_resources = |line: &&str| line.contains(bound) && line.contains("memory: ");
            let bounds: Vec<&str> = text.lines().filter(of_resources).collect();
            assert_eq!(bounds.len(), containers, "{process}: {bounds:?}");
            for line in bounds {
                assert!(line.contains("ephemeral-storage: "), "{process}: {line}");
            }
        }
    }
}

#[test]
fn processes_of_several_replicas_are_spread_and_not_stopped_together() {
    for process in ["ingest", "fetcher", "janitor"] {
        let text = read(&format!("deploy/kubernetes/{process}.yaml"));
        let is_alone = text.contains("replicas: 1\n");
        assert_eq!(is_alone, process == "janitor", "{process}");
        for kind in ["kind: PodDisruptionBudget", "podAntiAffinity:"] {
            assert_eq!(text.contains(kind), !is_alone, "{process}: {kind}");
        }
    }
}
