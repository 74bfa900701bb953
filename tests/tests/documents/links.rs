//! What the documents lead to exists: links, headings, and the files that they name.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use crate::read;

/// Every document below `folder`, by its path from the root.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for entry in std::fs::read_dir(root.join(folder)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = folder.join(&name);
        if root.join(&path).is_dir() {
            if !name.starts_with('.') && name != "target" {
                documents(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The headings of a document, as links name them.
fn anchors(document: &str) -> BTreeSet<String> {
    let headings = document.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| anchor(line.trim_start_matches('#').trim()))
        .collect()
}

fn anchor(heading: &str) -> String {
    let heading = heading.to_lowercase().replace(' ', "-");
    heading
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_'))
        .collect()
}

/// Whether `link` leads from `folder` to a file, and to a heading in it if it names one.
pub(crate) fn leads_somewhere(folder: &Path, link: &str) -> bool {
    let (path, heading) = link.split_once('#').unwrap_or((link, ""));
    let mut target = PathBuf::new();
    for part in folder.join(path).components() {
        match part {
            Component::ParentDir => drop(target.pop()),
            part => target.push(part),
        }
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .join(&target);
    if heading.is_empty() {
        return file.exists();
    }
    file.is_file() && anchors(&read(&target.to_string_lossy())).contains(heading)
}

#[test]
fn every_link_leads_to_a_file_and_a_heading_that_exist() {
    let (mut found, mut count) = (Vec::new(), 0);
    documents(Path::new(""), &mut found);
    for path in found {
        let text = read(&path.to_string_lossy());
        let links = text.split("](").skip(1);
        for link in links.filter_map(|rest| rest.split(')').next()) {
            let folder = path.parent().unwrap();
            // A heading of the document itself.
            let own = format!("{}{link}", path.file_name().unwrap().to_string_lossy());
            let link = if link.starts_with('#') { &own } else { link };
            assert!(
                link.starts_with("http") || leads_somewhere(folder, link),
                "{} leads to {link}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count > 50, "only {count} links");
}

#[test]
fn every_file_that_the_architecture_and_the_recipes_name_exists() {
    let extensions = ["rs", "sql", "md", "json", "yaml", "sh"];
    for document in ["ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = read(document);
        let mut found = 0;
        for word in text.split('`') {
            let extension = Path::new(word).extension().and_then(|end| end.to_str());
            let is_file = !word.contains([' ', '*', '<'])
                && extension.is_some_and(|extension| extensions.contains(&extension));
            if is_file && word.contains('/') {
                read(word);
                found += 1;
            }
        }
        assert!(found > 20, "only {found} files are named in {document}");
    }
}

#[test]
fn the_readme_of_ingest_lists_every_error() {
    let description = read("ingest/src/openapi.json");
    let described = description.split("\"error\": \"").skip(1);
    let described = described.filter_map(|rest| rest.split('"').next());
    // What paths get that the description does not have.
    let described: BTreeSet<&str> = described.chain(["not_found"]).collect();
    let readme = read("ingest/README.md");
    let rows = readme.lines().filter_map(|line| line.strip_prefix("| "));
    let listed: BTreeSet<&str> = rows
        .filter(|row| row.starts_with(|c: char| c.is_ascii_digit()))
        .filter_map(|row| row.split('`').nth(1))
        .collect();
    assert!(listed.len() > 5, "only {listed:?}");
    assert_eq!(listed, described);
}

#[test]
fn the_readme_of_ingest_names_every_path() {
    let description: serde_json::Value = serde_json::from_str(ingest::DESCRIPTION).unwrap();
    let readme = read("ingest/README.md");
    for path in description["paths"].as_object().unwrap().keys() {
        let names = [format!("`{path}`"), format!(" {path}`")];
        let is_named = names.iter().any(|name| readme.contains(name));
        assert!(is_named, "ingest/README.md does not name {path}");
    }
}
