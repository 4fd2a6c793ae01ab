//! Which crate may know which: read from the manifests, so that an architecture rule cannot be broken unseen.

use std::collections::BTreeSet;
use std::fs;

use crate::tree::{children, none_of, top};

/// The two kinds of dependencies of a crate, by name.
struct Manifest {
    normal: BTreeSet<String>,
    all: BTreeSet<String>,
}

#[test]
fn the_core_knows_only_jiff_and_objects_as_plain_data() {
    let known = ["jiff", "serde_json"].map(str::to_owned);
    assert_eq!(manifest("kubenap-core").normal, BTreeSet::from(known));
}

#[test]
fn the_sandbox_does_not_know_kubenap_not_even_in_its_tests() {
    let own = |name: &&String| name.starts_with("kubenap");
    let broken: Vec<_> = manifest("kubenap-sandbox").all.iter().filter(own).cloned().collect();
    none_of(&broken, "the sandbox must serve any client, or it is no Kubernetes");
}

#[test]
fn the_controller_is_a_library_and_no_command() {
    let forbidden = ["clap", "anyhow", "kubenap-sandbox", "kubenap"];
    let normal = manifest("kubenap-controller").normal;
    let broken: Vec<_> = normal.into_iter().filter(|name| forbidden.contains(&name.as_str())).collect();
    none_of(&broken, "these belong into the command, or into dev-dependencies");
}

#[test]
fn the_crates_are_the_four_that_the_rules_speak_of() {
    assert_eq!(children("crates"), ["kubenap-controller/", "kubenap-core/", "kubenap-sandbox/", "kubenap/"]);
}

#[test]
fn one_tls_library_and_one_calendar_are_locked() {
    let lock = fs::read_to_string(top().join("Cargo.lock")).unwrap();
    assert!(lock.contains("name = \"rustls\""), "the lock file is not read as it should be");
    let banned = ["openssl-sys", "native-tls", "aws-lc-sys", "aws-lc-rs", "chrono"];
    let locked = |name: &&str| lock.lines().any(|line| line == format!("name = \"{name}\""));
    let broken: Vec<_> = banned.iter().copied().filter(locked).map(str::to_owned).collect();
    none_of(&broken, "find out with `cargo tree -i NAME` who wants these, and turn that feature off");
}

/// Reads a crate's manifest: `name = …` and `name.workspace = true` in every section of dependencies.
fn manifest(name: &str) -> Manifest {
    let text = fs::read_to_string(top().join("crates").join(name).join("Cargo.toml")).unwrap();
    let (mut normal, mut all) = (BTreeSet::new(), BTreeSet::new());
    let mut section = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(head) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            head.clone_into(&mut section);
            // `[dependencies.name]` is the long form of one dependency.
            if let Some((kind, name)) = head.rsplit_once("dependencies.") {
                add(kind, name, &mut normal, &mut all);
            }
        } else if let Some(kind) = section.strip_suffix("dependencies") {
            let end = line.find(['.', '=', ' ']).unwrap_or(0);
            if end > 0 && !line.starts_with('#') {
                add(kind, &line[..end], &mut normal, &mut all);
            }
        }
    }
    assert!(!normal.is_empty(), "{name} has no dependencies: its manifest is not read as it should be");
    Manifest { normal, all }
}

fn add(kind: &str, name: &str, normal: &mut BTreeSet<String>, all: &mut BTreeSet<String>) {
    if !kind.ends_with("dev-") {
        normal.insert(name.to_owned());
    }
    all.insert(name.to_owned());
}
