//! A member that is no pod: a `kubenap run` of its own on an address of the node, with a clock that is wrong.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::build;
use super::cluster::Cluster;
use super::http;
use super::members::HOME;
use super::metrics;
use super::world::eventually;

/// Who it is.
pub(crate) const IDENTITY: &str = "outsider";
/// The address that it advertises; the node has it as long as the cluster is up.
pub(crate) const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 11));
const ADMIN_PORT: u16 = 8081;
/// What `e2e/cluster/packages` has installed.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
const GOODBYE: Duration = Duration::from_secs(90);

/// It runs until it is told to leave, or this is dropped.
pub(crate) struct Outsider(Child);

impl Outsider {
    /// Starts it with a clock that is so many seconds ahead, and waits until it is ready.
    pub(crate) async fn start(cluster: &Cluster, ahead: i64) -> Result<Self> {
        let program = build::dynamic_program().await?;
        for needed in [&program, Path::new(FAKETIME)] {
            ensure!(needed.exists(), "{} is not there", needed.display());
        }
        let address = format!("{ADDRESS}/32");
        let given = Command::new("ip").args(["address", "replace", &address, "dev", "node0"]).status().await;
        ensure!(given.context("run ip")?.success(), "the node does not take the address {address}");

        let log = File::create(cluster.logs().join("outsider.log")).context("make its log")?;
        let mut command = Command::new(&program);
        command.env("LD_PRELOAD", FAKETIME).env("FAKETIME", format!("{ahead:+}"));
        // Its timers run as everybody's do.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.arg("run").arg("--kubeconfig").arg(cluster.kubeconfig());
        command.args(["--identity", IDENTITY, "--advertise-address", &ADDRESS.to_string()]);
        command.args(["--proxy-listen", &format!("any={ADDRESS}:8080")]);
        command.args(["--admin-listen", &admin().to_string()]);
        command.args(["--lease-namespace", HOME, "--log-format", "text"]);
        command.args(["--poll", "1s", "--drowsy", "3s", "--min-awake", "2s", "--naps-per-minute", "0"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let mut outsider = Self(child.with_context(|| format!("start {}", program.display()))?);
        eventually("the outsider is ready", Duration::from_secs(60), async || {
            if let Some(status) = outsider.0.try_wait()? {
                bail!("it ended by itself: {status}");
            }
            let ready = http::get(admin(), "kubenap", "/readyz").await?;
            ensure!(ready.status == 200, "/readyz: {} {}", ready.status, ready.text().trim());
            Ok(())
        })
        .await?;
        Ok(outsider)
    }

    /// Waits until it leads.
    pub(crate) async fn until_it_leads(&self) -> Result<()> {
        eventually("the outsider leads", Duration::from_secs(45), async || {
            let page = http::get(admin(), "kubenap", "/metrics").await?;
            let leads = metrics::sum(&metrics::parse(&page.text())?, "kubenap_leader");
            ensure!(leads > 0.5, "its kubenap_leader is {leads}");
            Ok(())
        })
        .await
    }

    /// Tells it to leave, and waits until it has.
    pub(crate) async fn leave(mut self) -> Result<()> {
        let number = self.0.id().and_then(|number| Pid::from_raw(i32::try_from(number).ok()?));
        kill_process(number.context("it has ended by itself")?, Signal::TERM).context("tell it to leave")?;
        let status = timeout(GOODBYE, self.0.wait()).await.context("it does not leave")??;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

fn admin() -> SocketAddr {
    SocketAddr::new(ADDRESS, ADMIN_PORT)
}
