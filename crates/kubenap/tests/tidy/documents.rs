//! What the documents keep: ARCHITECTURE's code map is the tree, and every link leads somewhere.

use std::collections::BTreeMap;
use std::fs;

use crate::tree::{children, files, none_of, top};

/// These folders must be on the map.
const MAPPED: [&str; 7] = [
    "crates/kubenap-core/src",
    "crates/kubenap-controller/src",
    "crates/kubenap-sandbox/src",
    "crates/kubenap/src",
    "xtask/src",
    "chart/kubenap",
    "e2e",
];

#[test]
fn the_code_map_names_all_that_is_there_and_nothing_else() {
    let map = map();
    for folder in MAPPED {
        assert!(map.contains_key(folder), "ARCHITECTURE.md has no heading `{folder}`");
    }
    let mut broken = Vec::new();
    for (folder, named) in &map {
        let there = children(folder);
        let lost = named.iter().filter(|name| !there.contains(name));
        broken.extend(lost.map(|name| format!("{folder}/{name} is on the map, but not there")));
        let unnamed = there.iter().filter(|name| !named.contains(name));
        broken.extend(unnamed.map(|name| format!("{folder}/{name} is there, but not on the map")));
    }
    none_of(&broken, "ARCHITECTURE.md's code map is not true");
}

#[test]
fn every_path_that_the_documents_name_exists() {
    let mut broken = Vec::new();
    for document in documents() {
        for name in quoted(&document.text) {
            let place = name.trim_end_matches('/');
            let starts = ["crates/", "xtask/", "e2e/", "docs/", ".ci/", ".github/"]
                .iter()
                .any(|start| name.starts_with(start));
            let plain = !place.contains([' ', '*', '<', '{', '$']);
            if starts && plain && !top().join(place).exists() {
                broken.push(format!("{}: `{name}`", document.path));
            }
        }
    }
    none_of(&broken, "these paths do not exist");
}

#[test]
fn every_link_between_documents_leads_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let folder = top().join(&document.path).parent().unwrap().to_owned();
        for rest in document.text.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            let outside = target.contains("://") || target.starts_with("mailto:") || target.starts_with('#');
            let file = target.split('#').next().unwrap_or_default();
            if !outside && !folder.join(file).exists() {
                broken.push(format!("{}: {target}", document.path));
            }
        }
    }
    none_of(&broken, "these links lead nowhere");
}

#[test]
fn every_test_that_the_page_about_threats_names_exists_and_every_threat_has_one() {
    let page = fs::read_to_string(top().join("docs/security.md")).unwrap();
    let sources: String = crate::tree::rust().into_iter().map(|file| file.text).collect();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 15, "the table is not read as it should be");
    let mut broken = Vec::new();
    for row in rows {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").collect();
        let tests: Vec<_> = cells.last().map(|cell| quoted(cell).collect()).unwrap_or_default();
        if cells.len() != 3 || tests.is_empty() {
            broken.push(format!("no test: {row}"));
        }
        let lost = tests.iter().filter(|name| !sources.contains(&format!("fn {name}(")));
        broken.extend(lost.map(|name| format!("there is no test `{name}`")));
    }
    none_of(&broken, "docs/security.md promises what nothing proves");
}

#[test]
fn the_documents_that_people_look_for_are_there() {
    for name in [
        "README.md",
        "ARCHITECTURE.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "LICENSE",
        "docs/reference",
    ] {
        assert!(top().join(name).exists(), "{name} is missing");
    }
}

/// Folder by folder what the code map names: a heading `### `folder``, then a list whose items begin with names.
fn map() -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(top().join("ARCHITECTURE.md")).unwrap();
    let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut folder = None;
    for line in text.lines() {
        if line.starts_with('#') {
            let head = line.strip_prefix("### `").and_then(|rest| rest.strip_suffix('`'));
            folder = head.map(str::to_owned);
            if let Some(folder) = &folder {
                map.insert(folder.clone(), Vec::new());
            }
        } else if let (Some(folder), Some(item)) = (&folder, line.strip_prefix("- ")) {
            let names = item.split(':').next().unwrap_or_default();
            map.entry(folder.clone()).or_default().extend(quoted(names).map(str::to_owned));
        }
    }
    map
}

/// What stands between single backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.starts_with("```")).flat_map(|line| line.split('`').skip(1).step_by(2))
}

fn documents() -> Vec<crate::tree::File> {
    let all = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "docs"];
    let mut documents = files(&all);
    documents.retain(|file| file.is("md"));
    documents
}
