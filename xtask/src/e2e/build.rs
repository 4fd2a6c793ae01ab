//! Builds what the end-to-end tests run: the cluster's programs, `KubeNap`, the test app, the contract tests.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use super::cluster::Cluster;
use super::progress;

const STATIC_TARGET: &str = "x86_64-unknown-linux-gnu";

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    // xtask lies directly below it.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Kubernetes, Prometheus, Helm and Traefik, into the cache folder; once, in about twelve minutes on two cores.
pub(crate) async fn programs(cluster: &Cluster) -> Result<()> {
    if !cluster.has_programs() {
        let what = "building Kubernetes with Go (about 6 minutes, once)";
        progress::run(what, &mut cluster.script("build")).await?;
    }
    if !cluster.has_parts() {
        let what = "building Prometheus and Helm, fetching Traefik (about 5 minutes, once)";
        progress::run(what, &mut cluster.script("parts/fetch")).await?;
    }
    Ok(())
}

/// The proxies that run beside the cluster, fetched once.
pub(crate) async fn proxies(cluster: &Cluster) -> Result<()> {
    progress::run("looking for proxies", &mut cluster.script("parts/proxies")).await
}

/// Envoy Gateway, built once and started in the cluster.
pub(crate) async fn envoy_gateway(cluster: &Cluster) -> Result<()> {
    let what = "building and starting Envoy Gateway (some minutes, the first time)";
    progress::run(what, cluster.script("parts/envoy-gateway").arg(cluster.name())).await
}

/// The HTTP clients that people use, fetched and built once.
pub(crate) async fn clients(cluster: &Cluster) -> Result<()> {
    progress::run("looking for HTTP clients", &mut cluster.script("parts/clients")).await
}

/// `InfluxDB`; once, in about nine minutes on two cores.
pub(crate) async fn influxdb(cluster: &Cluster) -> Result<()> {
    let what = "looking for InfluxDB (building it takes about 9 minutes, once)";
    progress::run(what, cluster.script("parts/influxdb").arg("-")).await
}

/// The program under test, first, and whatever it cannot run without.
pub(crate) async fn kubenap(dev: bool) -> Result<Vec<PathBuf>> {
    if dev { dev_kubenap().await } else { Ok(vec![static_kubenap().await?]) }
}

/// The `kubenap` program as it goes into the image: static, so that the image holds nothing else.
pub(crate) async fn static_kubenap() -> Result<PathBuf> {
    static_program(
        "building kubenap (some minutes, the first time)",
        "kubenap",
        "image",
        &["--features", "jemalloc"],
    )
    .await
}

/// The dev profile's `kubenap`, which other builds share, and this machine's libraries for it.
async fn dev_kubenap() -> Result<Vec<PathBuf>> {
    let built = dynamic_kubenap().await?;
    let program = built.with_file_name("kubenap-stripped");
    let mut strip = Command::new("strip");
    progress::run("stripping it", strip.arg("--strip-debug").arg("-o").arg(&program).arg(&built)).await?;
    let output = Command::new("ldd").arg(&built).output().await.context("run ldd")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let libraries = said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from);
    Ok([program].into_iter().chain(libraries).collect())
}

/// The dev profile's `kubenap`, which asks this machine's C library for the time.
pub(crate) async fn dynamic_kubenap() -> Result<PathBuf> {
    let what = "building kubenap with this machine's C library";
    progress::run(what, cargo().args(["build", "--quiet", "--locked", "-p", "kubenap"])).await?;
    dynamic_program().await
}

/// Where [`dynamic_kubenap`] puts it.
pub(crate) async fn dynamic_program() -> Result<PathBuf> {
    Ok(target_folder().await?.join("debug/kubenap"))
}

/// The sandbox's contract tests, so that inside the cluster's network (no way out) they need only be run.
pub(crate) async fn contract() -> Result<()> {
    let arguments =
        ["test", "--quiet", "--locked", "-p", "kubenap-sandbox", "--test", "contract", "--no-run"];
    progress::run("building the contract tests", cargo().args(arguments)).await
}

/// The test app, static, for an image that holds nothing else.
pub(crate) async fn app() -> Result<PathBuf> {
    static_program("building the test app", "e2e-app", "dev", &[]).await
}

async fn static_program(what: &str, package: &str, profile: &str, more: &[&str]) -> Result<PathBuf> {
    // A target folder of their own: other flags would otherwise throw away what the ordinary build has made.
    let folder = target_folder().await?.join("static");
    let mut command = cargo();
    command.args(["rustc", "--quiet", "--locked", "-p", package, "--profile", profile]).args(more);
    command.args(["--target", STATIC_TARGET, "--target-dir"]).arg(&folder);
    // All relocations are read at the start and then stay in memory; in this form they take a hundredth.
    command.args(["--", "-C", "link-arg=-Wl,-z,pack-relative-relocs"]);
    command.env("RUSTFLAGS", "-C target-feature=+crt-static");
    progress::run(what, &mut command).await?;
    let built = if profile == "dev" { "debug" } else { profile };
    Ok(folder.join(STATIC_TARGET).join(built).join(package))
}

/// Cargo in the workspace's folder, the one that runs this program.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

async fn target_folder() -> Result<PathBuf> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .await
        .context("ask cargo for the target folder")?;
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("read what `cargo metadata` said")?;
    let folder = metadata["target_directory"].as_str().context("`cargo metadata` names no target folder")?;
    Ok(folder.into())
}
