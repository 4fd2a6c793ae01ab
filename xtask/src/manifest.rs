//! `cargo xtask manifest`: the chart as plain YAML, for those who do not use Helm.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use crate::e2e::{Cluster, build, say};

/// What is kept of the chart: a file, from the workspace's folder, how it begins, and what Helm is told besides.
struct Kept {
    file: &'static str,
    head: &'static str,
    args: &'static [&'static str],
}

const KEPT: [Kept; 2] = [
    Kept {
        file: "deploy/kubenap.yaml",
        head: "\
# KubeNap as plain YAML: the chart with its defaults, written by `cargo xtask manifest`.
#   kubectl apply -f kubenap.yaml
# Before you delete it again, run `kubenap restore --all --stop-naps`: nothing else wakes what sleeps then.
apiVersion: v1
kind: Namespace
metadata:
  name: kubenap-system
",
        args: &["--no-hooks", "--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"],
    },
    // What no default shows, for the chart's tests.
    Kept {
        file: "crates/kubenap/tests/chart/listeners.yaml",
        head: "# The chart with the values beside this, written by `cargo xtask manifest`.\n",
        args: &[
            "--values=crates/kubenap/tests/chart/listeners.values.yaml",
            "--show-only=templates/networkpolicy.yaml",
            "--show-only=templates/service.yaml",
            "--show-only=templates/deployment.yaml",
        ],
    },
];

/// Writes deploy/kubenap.yaml from the chart, and what the chart's tests read.
///
/// Builds Helm with Go, once, into the cache folder.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only look whether they are what the chart says
    #[arg(long)]
    check: bool,
}

/// Writes them, or compares.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let cluster = Cluster::chosen()?;
    if args.check {
        return check(&cluster).await;
    }
    for kept in &KEPT {
        let path = build::root().join(kept.file);
        fs::write(&path, kept.text(&cluster).await?).with_context(|| format!("write {}", path.display()))?;
        say(&format!("{} is written", kept.file));
    }
    Ok(())
}

/// Fails unless the files are what the chart says.
pub(crate) async fn check(cluster: &Cluster) -> Result<()> {
    for kept in &KEPT {
        let path = build::root().join(kept.file);
        let there = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        ensure!(
            there == kept.text(cluster).await?,
            "{} is not what the chart says; `cargo xtask manifest` writes it",
            kept.file
        );
    }
    Ok(())
}

impl Kept {
    async fn text(&self, cluster: &Cluster) -> Result<String> {
        let mut helm = cluster.offline_helm();
        helm.args(["template", "kubenap", "chart/kubenap", "--namespace", "kubenap-system"]).args(self.args);
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
        Ok(format!("{}{}\n", self.head, body.trim_end()))
    }
}
