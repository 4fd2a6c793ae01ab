//! What every source file keeps: its head, its length, nothing left open, and a core without clock and I/O.

use crate::tree::{File, files, none_of, rust};

const LONGEST: usize = 500;

#[test]
fn every_file_opens_with_a_sentence_that_says_what_it_does() {
    let headless = |file: &&File| !file.text.starts_with("//! ");
    let broken: Vec<_> = rust().iter().filter(headless).map(|file| file.path.clone()).collect();
    none_of(&broken, "these files do not open with `//! `");
}

#[test]
fn no_file_is_longer_than_one_can_read_at_once() {
    let broken: Vec<_> = rust()
        .iter()
        .map(|file| (&file.path, file.text.lines().count()))
        .filter(|(_, lines)| *lines > LONGEST)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    none_of(&broken, &format!("more than {LONGEST} lines; split the file by subject"));
}

#[test]
fn nothing_is_left_open() {
    // In two parts, or this file would break its own rule.
    let marks = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("#[ig", "nore"),
        concat!("#[should_", "panic"),
    ];
    none_of(
        &lines_with(&rust(), &Part::All, &marks),
        "finish it, or write it down as an issue; a slow test belongs into e2e",
    );
}

#[test]
fn the_core_has_no_clock_no_io_and_nothing_to_wait_for() {
    let core = files(&["crates/kubenap-core/src"]);
    let clocks = ["Timestamp::now", "Zoned::now", "SystemTime", "Instant"];
    let io = [
        "std::fs",
        "std::io",
        "std::env",
        "std::process",
        "std::thread",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
    ];
    let waiting = ["async fn", "async move", ".await", "tokio"];
    let forbidden = [&clocks[..], &io, &waiting].concat();
    none_of(
        &lines_with(&core, &Part::Code, &forbidden),
        "the core is pure: hand it the time, and the facts, as arguments",
    );
}

#[test]
fn only_one_file_of_the_controller_asks_the_time() {
    let controller = files(&["crates/kubenap-controller/src"]);
    let others: Vec<_> = controller.into_iter().filter(|file| !file.path.ends_with("src/clock.rs")).collect();
    let clocks = ["Timestamp::now", "Zoned::now", "SystemTime::now", "std::time::Instant"];
    none_of(&lines_with(&others, &Part::Code, &clocks), "ask `clock.rs`, which tests can pause");
}

#[test]
fn nothing_names_a_place_on_somebody_s_machine() {
    let all = files(&["."]);
    let homes = ["home", "root", "Users", "work"].map(|name| format!("/{name}/"));
    let mut broken = Vec::new();
    for file in &all {
        for (number, line) in file.text.lines().enumerate() {
            let absolute = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                !before.is_some_and(|sign| sign.is_alphanumeric() || "_-.}/".contains(sign))
            };
            if homes.iter().any(|home| line.match_indices(home).any(absolute)) {
                broken.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    none_of(&broken, "a path of one machine is of no use on another");
}

/// Which lines a rule is about.
#[derive(PartialEq)]
enum Part {
    All,
    Code,
}

/// Each line that holds one of these words.
fn lines_with(files: &[File], part: &Part, words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let comment = *part == Part::Code && line.trim_start().starts_with("//");
            if !comment && words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {}", file.path, number + 1, line.trim()));
            }
        }
    }
    found
}
