//! Deterministic simulation: the shipped controller on a clock that jumps, struck in every way, judged by invariants.
//!
//! `cargo test -p kubenap-controller --test sim -- [--seeds N] [--seed S] [--days N] [--story S] [--only TEXT]`;
//! UPDATE_EXPECT=1 writes `docs/reliability.md` anew.
#![expect(clippy::print_stdout, reason = "what was counted is to be seen")]

#[expect(dead_code, reason = "the stories of tests/it need more of it")]
#[path = "../it/world.rs"]
mod world;
#[expect(dead_code, reason = "the stories of tests/it need more of it")]
#[path = "../it/traffic.rs"]
mod traffic;
#[expect(dead_code, reason = "the stories of tests/it need more of it")]
#[path = "../it/visitor.rs"]
mod visitor;

mod wire;
mod source;
mod history;
mod invariants;
mod sim;
mod flows;
mod enumerate;
mod seeds;
mod bite;
mod days;
mod page;
mod report;

use std::process::ExitCode;
use std::time::Instant;

use flows::FLOWS;
use report::{Counts, run_all, show};

/// What was asked for on the command line; what the test harness of Rust knows besides is left alone.
struct Wanted {
    seeds: u64,
    seed: Option<u64>,
    days: u64,
    story: Option<u64>,
    only: Option<String>,
}

fn wanted() -> Wanted {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let after =
        |flag: &str| words.iter().position(|word| word == flag).and_then(|at| words.get(at + 1).cloned());
    let number = |text: Option<String>| text.and_then(|text| text.parse().ok());
    let seeds = after("--seeds").or_else(|| std::env::var("KUBENAP_SEEDS").ok());
    Wanted {
        seeds: number(seeds).unwrap_or(2_000),
        seed: number(after("--seed")),
        days: number(after("--days")).unwrap_or(1_000),
        story: number(after("--story")),
        only: after("--only"),
    }
}

fn main() -> ExitCode {
    let wanted = wanted();
    #[expect(clippy::disallowed_methods, reason = "what the whole run takes here is real time")]
    let begun = Instant::now();
    // Told in one place, once, with the run that it befell.
    std::panic::set_hook(Box::new(|_| {}));
    let mut counts = Counts::new();
    let mut well = true;
    let alone = match (wanted.seed, wanted.story) {
        (Some(seed), _) => Some((seeds::job(seed, true), format!("--seed {seed}"))),
        (None, Some(story)) => Some((days::job(story, true), format!("--story {story}"))),
        (None, None) => None,
    };
    if let Some((job, repeat)) = alone {
        let outcome = run_all(&[job], &mut counts);
        show("one run", &outcome.failures, &repeat);
        return if outcome.failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if wanted.only.as_deref().is_none_or(|only| only == "days") {
        let broken = days::bite();
        show("laws of the days bite", &broken, "--only days");
        well &= broken.is_empty();
        let outcome = run_all(&days::jobs(wanted.days), &mut counts);
        let first = outcome.failures.first().map(|(name, _)| name.clone()).unwrap_or_default();
        show("days", &outcome.failures, &format!("--{first}"));
        well &= outcome.failures.is_empty();
    }
    let only = |flow: &&flows::Flow| wanted.only.as_deref().is_none_or(|only| flow.name == only);
    let flows: Vec<_> = FLOWS.iter().filter(only).collect();

    let calm: Vec<_> = flows.iter().map(|flow| enumerate::calm(flow)).collect();
    let shapes = run_all(&calm, &mut counts);
    show("flows undisturbed", &shapes.failures, "--only FLOW");
    if !shapes.failures.is_empty() {
        return ExitCode::FAILURE;
    }
    for (part, jobs) in [
        ("every write struck", enumerate::struck as fn(&'static flows::Flow, &enumerate::Shape) -> Vec<_>),
        ("every event dropped, delayed, repeated, stale", enumerate::unheard),
    ] {
        let jobs: Vec<_> =
            flows.iter().zip(&shapes.results).flat_map(|(flow, shape)| jobs(flow, shape)).collect();
        let outcome = run_all(&jobs, &mut counts);
        let first = outcome.failures.first().and_then(|(name, _)| name.split(',').next()).unwrap_or_default();
        show(part, &outcome.failures, &format!("--only '{first}'"));
        well &= outcome.failures.is_empty();
    }
    let mut twice: Vec<_> = flows.iter().map(|flow| enumerate::twice(flow)).collect();
    if wanted.only.as_deref().is_none_or(|only| only == "seeds") {
        twice.extend(seeds::twice());
    }
    let outcome = run_all(&twice, &mut counts);
    show("run twice, the same history", &outcome.failures, "--only FLOW");
    well &= outcome.failures.is_empty();
    if wanted.only.as_deref().is_none_or(|only| only == "seeds") {
        let broken = bite::all();
        show("invariants bite", &broken, "");
        well &= broken.is_empty();
        let outcome = run_all(&seeds::jobs(wanted.seeds), &mut counts);
        let first = outcome.failures.first().map(|(name, _)| name.clone()).unwrap_or_default();
        show("seeds", &outcome.failures, &format!("--{first}"));
        well &= outcome.failures.is_empty();
    }
    for line in page::lines(&counts) {
        println!("sim: {line}");
    }
    if wanted.only.is_none() && well {
        let page = page::keep(&counts);
        show("docs/reliability.md", &page, "");
        well &= page.is_empty();
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let seconds = begun.elapsed().as_secs();
    println!(
        "sim: took {seconds} s with {processors} processors, {} {}",
        std::env::consts::OS,
        kernel.trim()
    );
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
