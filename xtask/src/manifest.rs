//! `cargo xtask manifest`: the chart as plain YAML, for those who do not use Helm.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::e2e::{Cluster, build, say};

/// Where it is kept, from the workspace's folder.
const FILE: &str = "deploy/kubenap.yaml";
const HEAD: &str = "\
# KubeNap as plain YAML: the chart with its defaults, written by `cargo xtask manifest`.
#   kubectl apply -f kubenap.yaml
# Before you delete it again, run `kubenap restore --all --stop-naps`: nothing else wakes what sleeps then.
apiVersion: v1
kind: Namespace
metadata:
  name: kubenap-system
";

/// Writes deploy/kubenap.yaml from the chart.
///
/// Builds Helm with Go, once, into the cache folder.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only look whether it is what the chart says
    #[arg(long)]
    check: bool,
}

/// Writes it, or compares.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let cluster = Cluster::chosen()?;
    if args.check {
        return check(&cluster).await;
    }
    let path = build::root().join(FILE);
    fs::write(&path, text(&cluster).await?).with_context(|| format!("write {}", path.display()))?;
    say(&format!("{FILE} is written"));
    Ok(())
}

/// Fails unless the file is what the chart says.
pub(crate) async fn check(cluster: &Cluster) -> Result<()> {
    let path = build::root().join(FILE);
    let kept = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    ensure!(
        kept == text(cluster).await?,
        "{FILE} is not what the chart says; `cargo xtask manifest` writes it"
    );
    Ok(())
}

async fn text(cluster: &Cluster) -> Result<String> {
    let mut helm = cluster.offline_helm();
    helm.args(["template", "kubenap", "chart/kubenap", "--namespace", "kubenap-system", "--no-hooks"]);
    helm.args(["--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"]);
    let output = helm.current_dir(build::root()).output().await.context("run helm template")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "helm template: {}", said.trim());
    let chart = String::from_utf8(output.stdout).context("read what helm template printed")?;
    // Nothing of Helm's is left in it.
    let ours = |line: &&str| {
        !["helm.sh/chart:", "app.kubernetes.io/managed-by:", "# Source:"]
            .iter()
            .any(|mark| line.contains(mark))
    };
    let body = chart.lines().map(str::trim_end).filter(ours).collect::<Vec<_>>().join("\n");
    Ok(format!("{HEAD}{}\n", body.trim_end()))
}
