//! The documents say what the code does.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how a failed expectation is reported"
)]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use broker::BrokerSettings;
use dead_letters::Arguments;
use metric_definitions::Description;
use process::ProcessConfig;
use settings::{ConfigError, Settings, Spec, load};

#[path = "documents/alerts.rs"]
mod alerts;
#[path = "documents/build_context.rs"]
mod build_context;
#[path = "documents/crates.rs"]
mod crates;
#[path = "documents/dashboard.rs"]
mod dashboard;
#[path = "documents/faults.rs"]
mod faults;
#[path = "documents/kubernetes.rs"]
mod kubernetes;
#[path = "documents/links.rs"]
mod links;
#[path = "documents/promql.rs"]
mod promql;
#[path = "documents/reasons.rs"]
mod reasons;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn specs() -> Vec<(&'static str, Vec<Spec>)> {
    vec![
        (ingest::Config::NAME, ingest::Config::specs()),
        (fetcher::Config::NAME, fetcher::Config::specs()),
        (janitor::Config::NAME, janitor::Config::specs()),
        (mock_client::Config::NAME, mock_client::Config::specs()),
    ]
}

/// Each setting, with the processes that read it.
fn settings() -> Vec<(Spec, Vec<&'static str>)> {
    let mut rows: Vec<(Spec, Vec<&str>)> = Vec::new();
    for (process, specs) in specs() {
        for spec in specs {
            let same = |row: &&mut (Spec, Vec<&str>)| {
                row.0.name == spec.name && row.0.default == spec.default
            };
            match rows.iter_mut().find(same) {
                Some((_, processes)) => processes.push(process),
                None => rows.push((spec, vec![process])),
            }
        }
    }
    rows
}

/// One row for each setting that several processes read.
fn shared_settings_table() -> String {
    let mut table =
        "| setting | default | from, to | read by | what it does |\n| --- | --- | --- | --- | --- |\n"
            .to_owned();
    for (spec, processes) in settings() {
        let processes = match processes.len() {
            1 => continue,
            count if count == specs().len() => "all".to_owned(),
            _ => processes.join(", "),
        };
        let (setting, help) = (setting_cells(&spec), &spec.help);
        writeln!(table, "{setting} | {processes} | {help} |").unwrap();
    }
    table
}

/// One row for each setting that no other process reads.
fn settings_table(process: &str) -> String {
    let mut table =
        "| setting | default | from, to | what it does |\n| --- | --- | --- | --- |\n".to_owned();
    for (spec, processes) in settings() {
        if processes == [process] {
            writeln!(table, "{} | {} |", setting_cells(&spec), spec.help).unwrap();
        }
    }
    table
}

/// Name, default and bounds.
fn setting_cells(spec: &Spec) -> String {
    let default = if spec.default.is_empty() {
        "(none)".to_owned()
    } else {
        format!("`{}`", spec.default)
    };
    let bounds = spec
        .bounds
        .map_or_else(String::new, |(least, most)| format!("`{least}`, `{most}`"));
    let secret = if spec.is_secret { " (secret)" } else { "" };
    format!("| `{}`{secret} | {default} | {bounds}", spec.variable())
}

/// The document has `table` between its markers.
fn assert_has_table(document: &str, name: &str, table: &str) {
    let text = read(document);
    let (_, rest) = text
        .split_once(&format!("<!-- {name} -->\n"))
        .expect("a marker before the table");
    let (written, _) = rest
        .split_once(&format!("<!-- end of {name} -->"))
        .expect("a marker after the table");
    assert!(written == table, "put this table into {document}:\n{table}");
}

#[test]
fn the_readmes_list_every_setting_as_it_is() {
    assert_has_table("shared/README.md", "settings", &shared_settings_table());
    for (process, _) in specs() {
        let readme = format!("{process}/README.md");
        assert_has_table(&readme, "settings", &settings_table(process));
    }
}

/// One row for each setting of `setup` that no process has.
fn setup_settings_table() -> String {
    let mut table =
        "| setting | default | from, to | what it does |\n| --- | --- | --- | --- |\n".to_owned();
    let others: BTreeSet<&str> = settings().iter().map(|(spec, _)| spec.name).collect();
    for spec in fetcher::setup::Config::specs() {
        if !others.contains(spec.name) {
            writeln!(table, "{} | {} |", setting_cells(&spec), spec.help).unwrap();
        }
    }
    table
}

#[test]
fn the_runbook_lists_the_settings_of_setup() {
    let table = setup_settings_table();
    assert_has_table("deploy/runbook/privileges.md", "settings", &table);
}

fn metrics() -> [(&'static str, &'static [&'static [Description]]); 4] {
    [
        (ingest::Config::NAME, ingest::Config::METRICS),
        (fetcher::Config::NAME, fetcher::Config::METRICS),
        (janitor::Config::NAME, janitor::Config::METRICS),
        (mock_client::Config::NAME, mock_client::Config::METRICS),
    ]
}

/// One row for each metric, with the processes that have it.
fn metrics_table() -> String {
    let mut rows: Vec<(Description, Vec<&str>)> = Vec::new();
    for (process, parts) in metrics() {
        for metric in parts.iter().copied().flatten() {
            match rows.iter_mut().find(|row| row.0 == *metric) {
                Some((_, processes)) => processes.push(process),
                None => rows.push((*metric, vec![process])),
            }
        }
    }
    let mut table = "| metric | type | labels | exposed by | what it says |\n\
                     | --- | --- | --- | --- | --- |\n"
        .to_owned();
    for (metric, processes) in rows {
        let Description {
            name, kind, help, ..
        } = metric;
        let (kind, labels) = (kind.name(), labels(&metric));
        let processes = if processes.len() == metrics().len() {
            "all".to_owned()
        } else {
            processes.join(", ")
        };
        let line = format!("| `{name}` | {kind} | {labels} | {processes} | {help} |");
        writeln!(table, "{line}").unwrap();
    }
    table
}

fn labels(metric: &Description) -> String {
    let labels: Vec<String> = metric
        .labels()
        .into_iter()
        .map(|(label, values)| match values.join(", ") {
            values if values.is_empty() => format!("`{label}`"),
            values => format!("`{label}`: {values}"),
        })
        .collect();
    labels.join("; ")
}

#[test]
fn the_runbook_lists_every_metric_as_it_is() {
    assert_has_table("deploy/runbook/metrics.md", "metrics", &metrics_table());
}

/// Other programs have names like ours.
#[test]
fn every_metric_of_ours_has_our_prefix() {
    for metric in metrics().iter().flat_map(|(_, parts)| parts.concat()) {
        assert!(
            metric.name.starts_with("callback_pipeline_"),
            "{}",
            metric.name
        );
    }
}

#[test]
fn no_process_has_two_metrics_of_one_name() {
    for (process, parts) in metrics() {
        let mut names = BTreeSet::new();
        for metric in parts.iter().copied().flatten() {
            assert!(names.insert(metric.name), "{process}: {}", metric.name);
        }
    }
}

/// Names in the compose file that are of its images, not of our processes.
const OF_IMAGES: [&str; 11] = [
    "GRAFANA_",
    "RABBITMQ_",
    "POSTGRES_",
    "PGDATA",
    "RUST_",
    "RUNTIME_",
    "GF_",
    "ZIPKIN_PORT",
    "JAVA_OPTS",
    "MEM_",
    "CMD",
];

/// A container has one address to listen on, and the live line counts on queues without a prefix.
const NOT_IN_CONTAINERS: [&str; 2] = ["LISTEN_ADDRESS", "QUEUE_PREFIX"];

#[test]
fn the_compose_file_passes_every_setting_on_and_nothing_else() {
    let of_setup = fetcher::setup::Config::specs();
    let specs = specs().into_iter().flat_map(|(_, specs)| specs);
    let specs: Vec<Spec> = specs.chain(of_setup).collect();
    let settings: BTreeSet<String> = specs
        .iter()
        .map(Spec::variable)
        .filter(|name| !NOT_IN_CONTAINERS.contains(&name.as_str()))
        .collect();
    let compose = read("deploy/compose.yaml");
    let names = compose
        .lines()
        .filter_map(|line| line.trim().split_once(':'))
        .map(|(name, _)| name);
    // Each secret setting may be in a file.
    let of_file = |name: &str| {
        let setting = name.strip_suffix("_FILE")?;
        let mut secrets = specs.iter().filter(|spec| spec.is_secret);
        secrets
            .any(|spec| spec.variable() == setting)
            .then(|| setting.to_owned())
    };
    let is_variable = |name: &str| name.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    let passed_on: BTreeSet<String> = names
        .filter(|name| {
            is_variable(name) && !OF_IMAGES.iter().any(|prefix| name.starts_with(prefix))
        })
        .map(|name| of_file(name).unwrap_or_else(|| name.to_owned()))
        .collect();
    assert_eq!(
        passed_on,
        settings,
        "deploy/compose.yaml lacks {:?}, and has no use for {:?}",
        &settings - &passed_on,
        &passed_on - &settings
    );
}

/// The page of the runbook about the command dead-letters.
const DEAD_LETTERS: &str = "deploy/runbook/dead-letters.md";

/// The command lines in its console samples, without the program.
fn dead_letters_samples() -> Vec<Vec<String>> {
    let page = read(DEAD_LETTERS);
    let lines = page
        .lines()
        .filter_map(|line| line.strip_prefix("$ scripts/dead-letters "));
    lines
        .map(|line| {
            // Quotes keep words together, and there are no quotes in quotes.
            let parts = line.split('\'').enumerate();
            let words = parts.flat_map(|(place, part)| match place % 2 {
                0 => part.split_whitespace().map(str::to_owned).collect(),
                _ => vec![part.to_owned()],
            });
            words.collect()
        })
        .collect()
}

fn dead_letters_arguments(words: Vec<String>) -> Result<Arguments, ConfigError> {
    let words = std::iter::once(dead_letters::NAME.to_owned()).chain(words);
    let words = words.map(Into::into);
    load::<BrokerSettings, Arguments>(dead_letters::NAME, dead_letters::ABOUT, words, [])
        .map(|loaded| loaded.arguments)
}

#[test]
fn the_samples_of_the_command_dead_letters_are_understood() {
    let samples = dead_letters_samples();
    assert!(samples.len() >= 3, "only {samples:?}");
    for words in samples {
        let understood = dead_letters_arguments(words.clone());
        assert!(understood.is_ok(), "{words:?}: {understood:?}");
    }
}

#[test]
fn the_runbook_names_the_flags_that_the_command_dead_letters_has() {
    let help = dead_letters_arguments(vec!["--help".to_owned()]).unwrap_err();
    let flags = |text: &str| -> BTreeSet<String> {
        text.split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
            .filter(|word| word.starts_with("--") && !word.ends_with('-'))
            .map(str::to_owned)
            .collect()
    };
    let of_settings = BrokerSettings::specs().into_iter();
    let of_settings = of_settings.map(|spec| format!("--{}", spec.flag()));
    let usual = ["--help", "--version"].map(str::to_owned);
    let others: BTreeSet<String> = of_settings.chain(usual).collect();
    let has: BTreeSet<String> = &flags(&help.to_string()) - &others;
    assert_eq!(flags(&read(DEAD_LETTERS)), has);
}

#[test]
fn every_reason_of_a_failed_look_up_is_explained() {
    use fetcher::Reason;
    let page = read(DEAD_LETTERS);
    for reason in [
        Reason::Connection("...".to_owned()),
        Reason::Timeout,
        Reason::Status(500),
        Reason::Refused(403),
        Reason::Malformed("...".to_owned()),
        Reason::Panicked,
    ] {
        assert!(page.contains(&format!("`{reason}`")), "{reason}");
    }
}
