//! The files of the project, read once for every rule.

use std::fs;
use std::path::{Path, PathBuf};

/// One text file.
pub(crate) struct File {
    /// Its path from the top, with `/`.
    pub(crate) path: String,
    /// All that is in it.
    pub(crate) text: String,
}

impl File {
    /// Whether its name has this ending.
    pub(crate) fn is(&self, ending: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|own| own == ending)
    }
}

/// The top of the project.
pub(crate) fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// Every text file below these folders or files, in order of path; what Cargo built and Git keeps is left out.
pub(crate) fn files(below: &[&str]) -> Vec<File> {
    let top = top();
    let mut found = Vec::new();
    for place in below {
        walk(&top, &top.join(place), &mut found);
    }
    assert!(!found.is_empty(), "nothing below {below:?}");
    found.sort_by(|a: &File, b: &File| a.path.cmp(&b.path));
    found
}

/// Every Rust file of the project.
pub(crate) fn rust() -> Vec<File> {
    let mut all = files(&["crates", "xtask", "e2e"]);
    all.retain(|file| file.is("rs"));
    assert!(all.len() > 50, "only {} Rust files are found", all.len());
    all
}

/// The names of what is directly in a folder, a folder's own with a `/` at the end.
pub(crate) fn children(folder: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(top().join(folder))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let slash = if entry.file_type().unwrap().is_dir() { "/" } else { "" };
            format!("{}{slash}", entry.file_name().to_string_lossy())
        })
        .collect();
    names.sort();
    names
}

/// Fails with all that breaks a rule, one a line.
pub(crate) fn none_of(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

fn walk(top: &Path, place: &Path, found: &mut Vec<File>) {
    // Every folder that Cargo builds into has the mark, whatever it is called; in a worktree `.git` is a file.
    if place.ends_with(".git") || place.join("CACHEDIR.TAG").exists() {
        return;
    }
    if place.is_dir() {
        for entry in fs::read_dir(place).unwrap() {
            walk(top, &entry.unwrap().path(), found);
        }
    } else if let Ok(text) = fs::read_to_string(place) {
        let path = place.strip_prefix(top).unwrap().to_string_lossy().replace('\\', "/");
        found.push(File { path, text });
    }
}
