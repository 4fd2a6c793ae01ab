//! The `KubeNap` under test: two `kubenap run` processes, each on an address of its own inside the cluster's network.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::cluster::Cluster;
use super::http;
use super::metrics::{self, Sample};
use super::world::eventually;

/// Each member's identity and address; `e2e/cluster/up` gives the node these addresses.
pub(crate) const MEMBERS: [(&str, Ipv4Addr); 2] =
    [("m1", Ipv4Addr::new(10, 77, 0, 11)), ("m2", Ipv4Addr::new(10, 77, 0, 12))];
const ADMIN_PORT: u16 = 8081;
const PROXY_PORT: u16 = 8080;
/// How long a member may take to say goodbye: it waits for the proxies to hear of it.
const GOODBYE: Duration = Duration::from_secs(90);

/// What differs from story to story.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// `--source`.
    pub(crate) source: String,
    /// `--idle-after`.
    pub(crate) idle_after: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self { source: "ingress".to_owned(), idle_after: "10m" }
    }
}

/// The members; those that run are ended when this is dropped.
pub(crate) struct Members {
    cluster: Cluster,
    kubenap: PathBuf,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    settings: Settings,
    processes: BTreeMap<&'static str, Child>,
}

impl Members {
    /// No member yet.
    pub(crate) fn new(cluster: Cluster, kubenap: PathBuf) -> Self {
        Self { cluster, kubenap, running: Mutex::default() }
    }

    /// The `kubenap` program.
    pub(crate) fn program(&self) -> &Path {
        &self.kubenap
    }

    /// Both members run with these settings, are ready, and one leads; started anew if they ran with others.
    pub(crate) async fn ensure(&self, settings: &Settings) -> Result<()> {
        {
            let mut running = self.running.lock().await;
            if running.settings != *settings {
                for (identity, process) in std::mem::take(&mut running.processes) {
                    terminate(identity, process).await?;
                }
                running.settings = settings.clone();
            }
            // One that ended by itself has failed the story before; this one begins with both.
            running.processes.retain(|_, process| matches!(process.try_wait(), Ok(None)));
            for (identity, address) in MEMBERS {
                if !running.processes.contains_key(identity) {
                    let process = self.spawn(identity, address, settings)?;
                    running.processes.insert(identity, process);
                }
            }
        }
        for (identity, _) in MEMBERS {
            eventually(&format!("member {identity} is ready"), Duration::from_secs(60), async || {
                self.ensure_alive().await?;
                let ready = http::get(admin(identity)?, "kubenap", "/readyz").await?;
                ensure!(ready.status == 200, "/readyz: {} {}", ready.status, ready.text().trim());
                Ok(())
            })
            .await?;
        }
        eventually("one member leads", Duration::from_secs(45), async || self.leader().await).await.map(drop)
    }

    /// Ends one member by SIGTERM and waits until it has left.
    pub(crate) async fn stop(&self, identity: &str) -> Result<ExitStatus> {
        let (identity, process) = {
            let mut running = self.running.lock().await;
            running
                .processes
                .remove_entry(identity)
                .with_context(|| format!("member {identity} does not run"))?
        };
        terminate(identity, process).await
    }

    /// Ends both members by SIGKILL: no goodbye, their slices and Leases stay behind.
    pub(crate) async fn kill(&self) -> Result<()> {
        for (identity, mut process) in std::mem::take(&mut self.running.lock().await.processes) {
            process.kill().await.with_context(|| format!("kill member {identity}"))?;
        }
        Ok(())
    }

    /// Fails if a member that was started has ended by itself.
    pub(crate) async fn ensure_alive(&self) -> Result<()> {
        for (identity, process) in &mut self.running.lock().await.processes {
            if let Some(status) = process.try_wait()? {
                bail!("member {identity} ended by itself: {status}\n{}", self.log_tail(identity, 20));
            }
        }
        Ok(())
    }

    /// The identity of the member that leads, by its own metric.
    pub(crate) async fn leader(&self) -> Result<&'static str> {
        for (identity, _) in MEMBERS {
            if self
                .metrics(identity)
                .await
                .is_ok_and(|samples| metrics::sum(&samples, "kubenap_leader") > 0.0)
            {
                return Ok(identity);
            }
        }
        bail!("no member's kubenap_leader is 1")
    }

    /// What a member's /metrics shows.
    pub(crate) async fn metrics(&self, identity: &str) -> Result<Vec<Sample>> {
        let page = http::get(admin(identity)?, "kubenap", "/metrics").await?;
        ensure!(page.status == 200, "/metrics of {identity}: {}", page.status);
        metrics::parse(&page.text()).with_context(|| format!("read /metrics of {identity}"))
    }

    /// The sum of a metric over all labels and both members.
    pub(crate) async fn sum(&self, metric: &str) -> Result<f64> {
        let mut sum = 0.0;
        for (identity, _) in MEMBERS {
            sum += metrics::sum(&self.metrics(identity).await?, metric);
        }
        Ok(sum)
    }

    /// The last lines of a member's log.
    pub(crate) fn log_tail(&self, identity: &str, lines: usize) -> String {
        let text = std::fs::read_to_string(self.log(identity)).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    fn log(&self, identity: &str) -> PathBuf {
        self.cluster.logs().join(format!("kubenap-{identity}.log"))
    }

    fn spawn(&self, identity: &str, address: Ipv4Addr, settings: &Settings) -> Result<Child> {
        let log = append_to(&self.log(identity))?;
        let mut command = Command::new(&self.kubenap);
        command.arg("run").arg("--kubeconfig").arg(self.cluster.kubeconfig());
        command.args(["--identity", identity, "--advertise-address", &address.to_string()]);
        command.args(["--proxy-listen", &format!("any={address}:{PROXY_PORT}")]);
        command.args(["--admin-listen", &format!("{address}:{ADMIN_PORT}")]);
        command.args(["--lease-namespace", "kubenap-system", "--log-format", "text"]);
        command.args(["--source", &settings.source, "--idle-after", settings.idle_after]);
        command.args(["--poll", "1s", "--drowsy", "3s", "--min-awake", "2s", "--naps-per-minute", "0"]);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C in the terminal reaches it through us only, and `down` can end it by its number.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let child = child.with_context(|| format!("start {}", self.kubenap.display()))?;
        if let Some(number) = child.id() {
            writeln!(append_to(&self.cluster.pids())?, "{number}").context("note the process number")?;
        }
        Ok(child)
    }
}

/// Where a member's /metrics and /readyz are.
pub(crate) fn admin(identity: &str) -> Result<SocketAddr> {
    Ok((address(identity)?, ADMIN_PORT).into())
}

/// The address that a member advertises.
pub(crate) fn address(identity: &str) -> Result<Ipv4Addr> {
    let found = MEMBERS.iter().find(|(name, _)| *name == identity);
    found.map(|(_, address)| *address).with_context(|| format!("there is no member {identity}"))
}

async fn terminate(identity: &str, mut process: Child) -> Result<ExitStatus> {
    if let Some(pid) = process.id().and_then(|number| Pid::from_raw(i32::try_from(number).ok()?)) {
        // One that has just ended by itself is as good.
        kill_process(pid, Signal::TERM).unwrap_or(());
    }
    let Ok(status) = timeout(GOODBYE, process.wait()).await else {
        process.kill().await?;
        bail!("member {identity} did not end within {} s of SIGTERM", GOODBYE.as_secs());
    };
    status.with_context(|| format!("wait for member {identity}"))
}

fn append_to(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.with_context(|| format!("open {}", path.display()))
}
