//! The Dockerfile lays out what cargo needs. No engine is needed to see that: what its COPY and RUN lines do to the build
//! context is done in a folder, with a cargo that lists its targets where it would build them.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Source files by package, kind and name of the target.
type Targets = BTreeMap<(String, String, String), PathBuf>;

const CARGO_THAT_LISTS: &str = r#"#!/bin/sh
[ "$1 $2" = "auditable build" ] || exit 0
exec "$REAL_CARGO" metadata --no-deps --offline --format-version 1 >"$LISTS/$(ls "$LISTS" | wc -l).json"
"#;

#[test]
fn the_dockerfile_has_a_source_for_each_target() {
    let pipeline = tempfile::tempdir().unwrap();
    let builds = carry_out(&super::read("deploy/Dockerfile"), pipeline.path()).unwrap();
    assert!(
        builds.len() >= 2,
        "the dependencies and the binaries are built apart, so that layers stay cached"
    );
    let (built, here) = (builds.last().unwrap(), targets(&list_targets(&root())));
    for (target, source) in here {
        if target.0 != "tests" {
            let copy = built
                .get(&target)
                .unwrap_or_else(|| panic!("{target:?} is not in the image"));
            assert_eq!(
                std::fs::read(copy).unwrap(),
                std::fs::read(&source).unwrap(),
                "{} is not in the image",
                source.display()
            );
        }
    }
}

#[test]
fn a_missing_source_is_noticed() {
    let dockerfile = super::read("deploy/Dockerfile");
    for part in [
        "tests/faults ",
        "benches/pipeline",
        " scripts/lib/status tests;",
        "COPY janitor/src janitor/src",
    ] {
        assert!(dockerfile.contains(part), "{part}");
        let broken = dockerfile.replace(part, if part.ends_with(';') { ";" } else { "" });
        let pipeline = tempfile::tempdir().unwrap();
        let builds = carry_out(&broken, pipeline.path());
        let stubs_only = |builds: Vec<Targets>| {
            let janitor = ("janitor".to_owned(), "lib".to_owned(), "janitor".to_owned());
            std::fs::read(&builds.last().unwrap()[&janitor])
                .unwrap()
                .is_empty()
        };
        assert!(
            builds.is_err() || stubs_only(builds.unwrap()),
            "{part:?} is not missed"
        );
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .unwrap()
}

/// Carries out the stage that builds, in `pipeline`, and returns the targets of each build.
fn carry_out(dockerfile: &str, pipeline: &Path) -> Result<Vec<Targets>, String> {
    let (ignored, tools) = (super::read(".dockerignore"), tempfile::tempdir().unwrap());
    let cargo = tools.path().join("cargo");
    std::fs::write(&cargo, CARGO_THAT_LISTS).unwrap();
    std::fs::set_permissions(&cargo, PermissionsExt::from_mode(0o755)).unwrap();
    let lists = tools.path().join("lists");
    std::fs::create_dir(&lists).unwrap();

    for (instruction, arguments) in first_stage(dockerfile) {
        match instruction.as_str() {
            "COPY" => copy(&arguments, &ignored, pipeline)?,
            "RUN" if arguments.contains("cargo auditable build") => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let folders = [tools.path().to_owned()]
                    .into_iter()
                    .chain(std::env::split_paths(&path));
                let output = Command::new("sh")
                    .args(["-c", &arguments])
                    .current_dir(pipeline)
                    .env("PATH", std::env::join_paths(folders).unwrap())
                    .env("REAL_CARGO", env!("CARGO"))
                    .env("LISTS", &lists)
                    .output()
                    .unwrap();
                if !output.status.success() {
                    return Err(String::from_utf8_lossy(&output.stderr).into_owned());
                }
            }
            _ => {}
        }
    }
    let count = std::fs::read_dir(&lists).unwrap().count();
    (0..count)
        .map(|number| {
            let list = std::fs::read(lists.join(format!("{number}.json"))).unwrap();
            with_sources(targets(&list))
        })
        .collect()
}

/// The instructions after the first FROM, each on one line.
fn first_stage(dockerfile: &str) -> Vec<(String, String)> {
    let lines: Vec<&str> = dockerfile
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .collect();
    lines
        .join("\n")
        .replace("\\\n", " ")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(instruction, arguments)| (instruction.to_owned(), arguments.trim().to_owned()))
        .skip_while(|(instruction, _)| instruction != "FROM")
        .skip(1)
        .take_while(|(instruction, _)| instruction != "FROM")
        .collect()
}

/// What goes elsewhere than into the working directory is no source.
fn copy(arguments: &str, ignored: &str, pipeline: &Path) -> Result<(), String> {
    let mut words: Vec<&str> = arguments.split_whitespace().collect();
    let destination = words.pop().unwrap();
    if destination.starts_with('/') {
        return Ok(());
    }
    for word in words {
        let (source, target) = (root().join(word), pipeline.join(destination));
        let copied = if source.is_dir() {
            copy_folder(&source, &target, ignored)
        } else if destination.ends_with('/') {
            copy_file(&source, &target.join(source.file_name().unwrap()), ignored)
        } else {
            copy_file(&source, &target, ignored)
        };
        if !copied {
            return Err(format!("COPY {word}: not in the build context"));
        }
    }
    Ok(())
}

fn copy_folder(source: &Path, target: &Path, ignored: &str) -> bool {
    let mut copied = false;
    for entry in std::fs::read_dir(source).unwrap() {
        let from = entry.unwrap().path();
        let to = target.join(from.file_name().unwrap());
        copied |= if from.is_dir() {
            copy_folder(&from, &to, ignored)
        } else {
            copy_file(&from, &to, ignored)
        };
    }
    copied
}

fn copy_file(source: &Path, target: &Path, ignored: &str) -> bool {
    let there = source.is_file() && in_context(source.strip_prefix(root()).unwrap(), ignored);
    if there {
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(source, target).unwrap();
    }
    there
}

/// The last line of .dockerignore that matches a file, or a folder that it is in, decides.
fn in_context(path: &Path, ignored: &str) -> bool {
    let mut included = true;
    for line in ignored
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        let pattern = line.trim_start_matches('!');
        assert!(
            pattern == "*" || !pattern.contains(['*', '?', '[']),
            "{pattern}: this test has to learn that pattern"
        );
        if pattern == "*" || path.starts_with(pattern) {
            included = line.starts_with('!');
        }
    }
    included
}

fn list_targets(workspace: &Path) -> Vec<u8> {
    let arguments = [
        "metadata",
        "--no-deps",
        "--offline",
        "--format-version",
        "1",
    ];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(workspace)
        .output();
    output.unwrap().stdout
}

fn targets(metadata: &[u8]) -> Targets {
    let metadata: Value = serde_json::from_slice(metadata).unwrap();
    let mut found = Targets::new();
    for package in metadata["packages"].as_array().unwrap() {
        for target in package["targets"].as_array().unwrap() {
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let key = (
                text(&package["name"]),
                text(&target["kind"][0]),
                text(&target["name"]),
            );
            found.insert(key, text(&target["src_path"]).into());
        }
    }
    found
}

/// Cargo lists a target whose path is given and has nothing, and leaves out one that it finds nothing for. It builds neither.
fn with_sources(targets: Targets) -> Result<Targets, String> {
    if let Some((target, source)) = targets.iter().find(|(_, source)| !source.is_file()) {
        return Err(format!("{target:?} has no {}", source.display()));
    }
    let missing = declared().find(|target| !targets.contains_key(target));
    missing.map_or(Ok(targets), |target| {
        Err(format!("{target:?} has no source"))
    })
}

/// The targets that a manifest names.
fn declared() -> impl Iterator<Item = (String, String, String)> {
    let metadata = list_targets(&root());
    let manifests = manifests(&metadata);
    targets(&metadata)
        .into_keys()
        .filter(move |(package, _, name)| {
            manifests[package].contains(&format!("\nname = \"{name}\"\n"))
        })
}

/// The text of each package's manifest.
fn manifests(metadata: &[u8]) -> BTreeMap<String, String> {
    let metadata: Value = serde_json::from_slice(metadata).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    packages
        .iter()
        .map(|package| {
            let manifest = std::fs::read_to_string(text(&package["manifest_path"])).unwrap();
            (text(&package["name"]), manifest)
        })
        .collect()
}
