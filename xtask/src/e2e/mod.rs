//! End-to-end tests: builds what is missing, starts a real Kubernetes, runs the stories inside its network.

mod machine;
pub(crate) mod build;
pub(crate) mod cluster;
mod progress;
mod clock;
mod runner;
mod world;
mod members;
mod outsider;
mod pods;
mod logs;
mod app;
mod observe;
pub(crate) mod http;
mod visitors;
mod frozen;
mod stalls;
mod liar;
pub(crate) mod metrics;
mod audit;
mod stories;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;

pub(crate) use cluster::Cluster;
pub(crate) use progress::say;

/// Runs the end-to-end tests on a real one-node Kubernetes, in a network namespace of its own.
///
/// Needs root on x86-64 Linux, Rust and Go; Debian packages are installed, Kubernetes, Prometheus, Helm and
/// Traefik built or fetched once, into the cache folder.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: Option<What>,
    /// Run only these stories (`--list` names them)
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// Run also the stories that take long, or want a machine with nothing else to do (`--list` marks them)
    #[arg(long, conflicts_with = "only")]
    all: bool,
    /// Leave the cluster running, and the namespaces of stories that failed
    #[arg(long)]
    keep: bool,
    /// Test the dev build of KubeNap with this machine's C library: quicker to build, and not what is shipped
    #[arg(long)]
    dev: bool,
    /// Name the stories and stop
    #[arg(long)]
    list: bool,
}

#[derive(Subcommand)]
enum What {
    /// Start the cluster with Traefik, Prometheus and the images of the test app and KubeNap, and leave it running
    Up {
        /// With the dev build of KubeNap
        #[arg(long)]
        dev: bool,
    },
    /// End the cluster and everything in it
    Down,
    /// Run a command inside the cluster's network, with KUBECONFIG, kubectl, helm and kubenap at hand
    Shell {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// What `e2e` runs inside the cluster's network
    #[command(hide = true)]
    Stories {
        /// The kubenap program under test
        #[arg(long)]
        kubenap: PathBuf,
        /// Names of stories; none means all
        #[arg(long, num_args = 1..)]
        only: Vec<String>,
        /// Leave the namespaces of failed stories
        #[arg(long)]
        keep: bool,
    },
}

/// Carries the command out; the exit code is 1 if any story failed.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let cluster = Cluster::chosen()?;
    match args.what {
        None if args.list => {
            runner::list()?;
            Ok(ExitCode::SUCCESS)
        }
        None if args.all => everything(&cluster, &Args { only: Vec::new(), ..args }).await,
        None if args.only.is_empty() => {
            everything(&cluster, &Args { only: runner::everyday(), ..args }).await
        }
        None => everything(&cluster, &args).await,
        Some(What::Up { dev }) => {
            machine::check(&cluster).await?;
            start(&cluster, &build::kubenap(dev).await?).await?;
            say(
                "up; `cargo xtask e2e shell kubectl get pods -A` looks around, `cargo xtask e2e down` ends it",
            );
            Ok(ExitCode::SUCCESS)
        }
        Some(What::Down) => {
            cluster.down().await?;
            Ok(ExitCode::SUCCESS)
        }
        Some(What::Shell { command }) => cluster.shell(&command).await,
        Some(What::Stories { kubenap, only, keep }) => runner::run(cluster, kubenap, &only, keep).await,
    }
}

async fn everything(cluster: &Cluster, args: &Args) -> Result<ExitCode> {
    runner::chosen(&args.only)?;
    machine::check(cluster).await?;
    // From now on Ctrl-C ends the commands under way, and what was started is ended below.
    tokio::spawn(tokio::signal::ctrl_c());
    let started = !cluster.is_up().await;
    let result = build_and_run(cluster, args).await;
    if started && !args.keep {
        cluster.down().await?;
    } else {
        say("the cluster is left running; `cargo xtask e2e down` ends it");
    }
    result
}

async fn build_and_run(cluster: &Cluster, args: &Args) -> Result<ExitCode> {
    let kubenap = build::kubenap(args.dev).await?;
    if runner::wants("contract", &args.only) {
        build::contract().await?;
    }
    if runner::wants("clock", &args.only) {
        build::dynamic_kubenap().await?;
    }
    let with_proxies = ["proxies", "hooks", "gateway", "pace", "clients", "sources"];
    if with_proxies.iter().any(|story| runner::wants(story, &args.only)) {
        build::proxies(cluster).await?;
    }
    if runner::wants("clients", &args.only) {
        build::clients(cluster).await?;
    }
    if runner::wants("influx", &args.only) {
        build::influxdb(cluster).await?;
    }
    start(cluster, &kubenap).await?;
    if runner::wants("gateway", &args.only) {
        build::envoy_gateway(cluster).await?;
    }

    let myself = std::env::current_exe().context("find this program")?;
    let mut inside = cluster.inside(myself);
    inside.args(["e2e", "stories", "--kubenap"]).args(kubenap.first());
    if args.keep {
        inside.arg("--keep");
    }
    if !args.only.is_empty() {
        inside.arg("--only").args(&args.only);
    }
    let status = inside.status().await.context("run the stories inside the cluster's network")?;
    match status.code() {
        Some(0) => Ok(ExitCode::SUCCESS),
        Some(1) => Ok(ExitCode::FAILURE),
        _ => bail!("the stories ended with {status}"),
    }
}

/// Checks that the machine has what a cluster needs.
pub(crate) async fn check_machine(cluster: &Cluster) -> Result<()> {
    machine::check(cluster).await
}

/// A cluster with everything the stories count on; one that runs already is only completed.
pub(crate) async fn start(cluster: &Cluster, kubenap: &[PathBuf]) -> Result<()> {
    build::programs(cluster).await?;
    let app = build::app().await?;
    if cluster.is_up().await {
        say("the cluster is up already");
    } else {
        cluster.up().await?;
    }
    cluster.add_parts(&app, kubenap).await
}
