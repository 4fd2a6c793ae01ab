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

/// Kubernetes, Prometheus and Traefik, into the cache folder; once, in about ten minutes on two cores.
pub(crate) async fn programs(cluster: &Cluster) -> Result<()> {
    if !cluster.has_programs() {
        let what = "building Kubernetes with Go (about 6 minutes, once)";
        progress::run(what, &mut cluster.script("build")).await?;
    }
    if !cluster.has_parts() {
        let what = "building Prometheus, fetching Traefik (about 3 minutes, once)";
        progress::run(what, &mut cluster.script("parts/fetch")).await?;
    }
    Ok(())
}

/// The `kubenap` program, in the dev profile.
pub(crate) async fn kubenap() -> Result<PathBuf> {
    progress::run("building kubenap", cargo().args(["build", "--quiet", "--locked", "-p", "kubenap"]))
        .await?;
    Ok(target_folder().await?.join("debug/kubenap"))
}

/// The `kubenap` program as it is shipped, in the release profile.
pub(crate) async fn release() -> Result<PathBuf> {
    let what = "building kubenap in the release profile (a few minutes, once)";
    progress::run(what, cargo().args(["build", "--quiet", "--release", "--locked", "-p", "kubenap"])).await?;
    Ok(target_folder().await?.join("release/kubenap"))
}

/// The sandbox's contract tests, so that inside the cluster's network (no way out) they need only be run.
pub(crate) async fn contract() -> Result<()> {
    let arguments =
        ["test", "--quiet", "--locked", "-p", "kubenap-sandbox", "--test", "contract", "--no-run"];
    progress::run("building the contract tests", cargo().args(arguments)).await
}

/// The test app, static, for an image that holds nothing else.
pub(crate) async fn app() -> Result<PathBuf> {
    // A target folder of its own: other flags would otherwise throw away what the ordinary build has made.
    let folder = target_folder().await?.join("e2e-app");
    let mut command = cargo();
    command.args(["build", "--quiet", "--locked", "-p", "e2e-app", "--target", STATIC_TARGET]);
    command.arg("--target-dir").arg(&folder).env("RUSTFLAGS", "-C target-feature=+crt-static");
    progress::run("building the test app", &mut command).await?;
    Ok(folder.join(STATIC_TARGET).join("debug/e2e-app"))
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
