//! `cargo xtask bench`: what KubeNap costs and how fast it wakes, measured on the real cluster of the end-to-end tests.

mod machine;
mod figures;
mod plot;
mod page;
mod load;
mod process;
mod launcher;
mod apps;
mod ready;
mod log;
mod awake;
mod wakes;
mod held;
mod together;
mod many;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail, ensure};

use crate::e2e::cluster::Cluster;
use crate::e2e::{build, say, start};
use figures::{Part, Report};
use launcher::Bench;

/// Measures KubeNap on a real one-node Kubernetes and writes docs/benchmarks.md.
///
/// Needs what `cargo xtask e2e` needs. Everything is a ratio, or beside what it is compared with, out of one run.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only these parts: a (awake), b (wakes), c (held requests), d (many wakes at once), e (many apps); of the others
    /// docs/benchmarks.md keeps what it has
    #[arg(long, num_args = 1.., value_name = "PART")]
    only: Vec<String>,
    /// Fewer repetitions, to try it out; docs/benchmarks.md is left as it is
    #[arg(long)]
    quick: bool,
    /// Write all numbers to this file too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Leave the cluster running
    #[arg(long)]
    keep: bool,
    /// The kubenap program under test; given by the command itself inside the cluster's network
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

/// The parts, in the order in which they run: what fills the cluster comes last.
const PARTS: [&str; 5] = ["a", "b", "c", "d", "e"];
/// What is written, below the project's folder.
const PAGE: &str = "docs/benchmarks.md";

/// Carries the command out; the exit code is 1 if any promise was not kept.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let unknown: Vec<_> = args.only.iter().filter(|part| !PARTS.contains(&part.as_str())).collect();
    ensure!(unknown.is_empty(), "--only: there is no part {unknown:?}; accepted: {}", PARTS.join(", "));
    let cluster = Cluster::chosen()?;
    match &args.inside {
        Some(kubenap) => measure(cluster, kubenap.clone(), &args).await,
        None => outside(&cluster, &args).await,
    }
}

/// Builds everything, starts the cluster, and runs this program again inside its network.
async fn outside(cluster: &Cluster, args: &Args) -> Result<ExitCode> {
    crate::e2e::check_machine(cluster).await?;
    tokio::spawn(tokio::signal::ctrl_c());
    let kubenap = build::static_kubenap().await?;
    let started = !cluster.is_up().await;
    let result = async {
        start(cluster, std::slice::from_ref(&kubenap)).await?;
        let myself = std::env::current_exe().context("find this program")?;
        let mut inside = cluster.inside(myself);
        inside.args(["bench", "--inside"]).arg(kubenap);
        if args.quick {
            inside.arg("--quick");
        }
        if let Some(file) = &args.json {
            inside.arg("--json").arg(file);
        }
        if !args.only.is_empty() {
            inside.arg("--only").args(&args.only);
        }
        let status = inside.status().await.context("run the benchmark inside the cluster's network")?;
        match status.code() {
            Some(0) => Ok(ExitCode::SUCCESS),
            Some(1) => Ok(ExitCode::FAILURE),
            _ => bail!("the benchmark ended with {status}"),
        }
    }
    .await;
    if started && !args.keep {
        cluster.down().await?;
    } else {
        say("the cluster is left running; `cargo xtask e2e down` ends it");
    }
    result
}

async fn measure(cluster: Cluster, kubenap: PathBuf, args: &Args) -> Result<ExitCode> {
    process::raise_open_files()?;
    let bench = Bench::connect(cluster, kubenap, args.quick).await?;
    let mut report = Report::new(machine::describe()?, args.quick);
    for name in PARTS {
        if !args.only.is_empty() && !args.only.iter().any(|only| only == name) {
            continue;
        }
        let begun = tokio::time::Instant::now();
        say(&format!("\n── {name}"));
        let part = tokio::select! {
            part = one(name, &bench) => part,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        };
        bench.members.stop_all().await?;
        match part {
            Ok(part) => {
                say(&format!("── {name}: {:.0} s", begun.elapsed().as_secs_f64()));
                report.parts.push(part);
            }
            Err(error) => {
                say(&format!("── {name}: FAILED: {error:#}\n{}", bench.members.log_tails(30)));
                report.failed.push(format!("{name}: {error:#}"));
            }
        }
        if let Some(file) = &args.json {
            let text = serde_json::to_string_pretty(&report)?;
            std::fs::write(file, text).with_context(|| format!("write {}", file.display()))?;
        }
    }
    io::stdout().lock().write_all(report.table().as_bytes())?;
    if !args.quick && !report.parts.is_empty() {
        page::write(&report, &build::root().join(PAGE))?;
        say(&format!("written: {PAGE}"));
    }
    Ok(if report.kept() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn one(name: &str, bench: &Bench) -> Result<Part> {
    match name {
        "a" => awake::run(bench).await,
        "b" => wakes::run(bench).await,
        "c" => held::run(bench).await,
        "d" => together::run(bench).await,
        _ => many::run(bench).await,
    }
}
