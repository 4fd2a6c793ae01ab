//! The program under test: `kubenap run` as one or two processes inside the cluster's network, and a client beside them.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::log::Log;
use super::process::{self, Usage};
use crate::e2e::cluster::Cluster;
use crate::e2e::http;
use crate::e2e::metrics;

/// Each member's name and the address that the node is given for it.
const MEMBERS: [(&str, Ipv4Addr); 2] =
    [("b1", Ipv4Addr::new(10, 77, 0, 11)), ("b2", Ipv4Addr::new(10, 77, 0, 12))];
const ADMIN_PORT: u16 = 8081;
/// Where the Leases live.
const SYSTEM: &str = "kubenap-system";
/// How long a member may take to get ready, and to leave.
const PATIENCE: Duration = Duration::from_secs(90);

/// What every part has at hand.
pub(crate) struct Bench {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) members: Members,
    pub(crate) quick: bool,
}

/// The members; those that run end when this is dropped.
pub(crate) struct Members {
    cluster: Cluster,
    kubenap: PathBuf,
    running: Mutex<BTreeMap<&'static str, Child>>,
}

impl Bench {
    /// Connects to the cluster; nothing of KubeNap runs yet.
    pub(crate) async fn connect(cluster: Cluster, kubenap: PathBuf, quick: bool) -> Result<Self> {
        let file = Kubeconfig::read_from(cluster.kubeconfig()).context("read the cluster's kubeconfig")?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(Duration::from_secs(60));
        let client = Client::try_from(config).context("make a Kubernetes client")?;
        let members = Members { cluster: cluster.clone(), kubenap, running: Mutex::default() };
        for (name, address) in MEMBERS {
            let arguments = ["address", "replace", &format!("{address}/32"), "dev", "node0"];
            let given = Command::new("ip").args(arguments).status().await.context("run ip")?;
            ensure!(given.success(), "the node does not take the address {address} of member {name}");
        }
        let bench = Self { cluster, client, members, quick };
        bench.make_namespace(SYSTEM).await?;
        Ok(bench)
    }

    /// Makes a namespace, unless it is there.
    pub(crate) async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        match Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
            made => made.map(drop).with_context(|| format!("make namespace {name}")),
        }
    }

    /// The audit log from now on.
    pub(crate) fn log(&self) -> Result<Log> {
        Log::begin(self.cluster.logs().join("audit.json"))
    }

    /// So many in a full run, so many in a quick one.
    pub(crate) fn count(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

impl Members {
    /// So many members run with these flags, are ready, and one of them leads. How long the slowest took to get ready.
    pub(crate) async fn start(&self, count: usize, flags: &[&str]) -> Result<Duration> {
        self.stop_all().await?;
        let begun = Instant::now();
        for (name, address) in MEMBERS.into_iter().take(count) {
            let process = self.spawn(name, address, flags)?;
            self.running.lock().await.insert(name, process);
        }
        let mut slowest = Duration::ZERO;
        for (name, address) in MEMBERS.into_iter().take(count) {
            loop {
                let ready = http::get((address, ADMIN_PORT).into(), "kubenap", "/readyz").await;
                if ready.is_ok_and(|reply| reply.status == 200) {
                    break;
                }
                self.ensure_alive().await?;
                ensure!(begun.elapsed() < PATIENCE, "member {name} is not ready after {PATIENCE:?}");
                sleep(Duration::from_millis(20)).await;
            }
            slowest = slowest.max(begun.elapsed());
        }
        while self.sum("kubenap_leader").await? < 1.0 {
            ensure!(begun.elapsed() < PATIENCE, "no member leads after {PATIENCE:?}");
            sleep(Duration::from_millis(100)).await;
        }
        Ok(slowest)
    }

    /// Ends those that run, politely.
    pub(crate) async fn stop_all(&self) -> Result<()> {
        let mut running = std::mem::take(&mut *self.running.lock().await);
        for process in running.values() {
            if let Some(pid) = process.id().and_then(|number| Pid::from_raw(i32::try_from(number).ok()?)) {
                // One that has just ended by itself is as good.
                kill_process(pid, Signal::TERM).unwrap_or(());
            }
        }
        for (name, process) in &mut running {
            if timeout(PATIENCE, process.wait()).await.is_err() {
                process.kill().await?;
                bail!("member {name} did not leave within {PATIENCE:?}");
            }
        }
        Ok(())
    }

    /// What each running member uses.
    pub(crate) async fn usage(&self) -> Result<Vec<Usage>> {
        let running = self.running.lock().await;
        running.values().filter_map(Child::id).map(process::usage).collect()
    }

    /// The sum of a metric over all labels and members that run.
    pub(crate) async fn sum(&self, metric: &str) -> Result<f64> {
        let names: Vec<_> = self.running.lock().await.keys().copied().collect();
        let mut sum = 0.0;
        for (_, address) in MEMBERS.into_iter().filter(|(name, _)| names.contains(name)) {
            let to = SocketAddr::from((address, ADMIN_PORT));
            let page = http::get(to, "kubenap", "/metrics").await?;
            sum += metrics::sum(&metrics::parse(&page.text())?, metric);
        }
        Ok(sum)
    }

    /// The ends of all logs.
    pub(crate) fn log_tails(&self, lines: usize) -> String {
        let mut tails = String::new();
        for (name, _) in MEMBERS {
            let text = std::fs::read_to_string(self.file(name)).unwrap_or_default();
            let all: Vec<&str> = text.lines().collect();
            tails +=
                &format!("the end of {name}'s log:\n{}\n", all[all.len().saturating_sub(lines)..].join("\n"));
        }
        tails
    }

    async fn ensure_alive(&self) -> Result<()> {
        for (name, process) in &mut *self.running.lock().await {
            if let Some(status) = process.try_wait()? {
                bail!("member {name} ended by itself: {status}");
            }
        }
        Ok(())
    }

    fn file(&self, name: &str) -> PathBuf {
        self.cluster.logs().join(format!("bench-{name}.log"))
    }

    fn spawn(&self, name: &str, address: Ipv4Addr, flags: &[&str]) -> Result<Child> {
        let open = |path: PathBuf| {
            let opened = OpenOptions::new().create(true).append(true).open(&path);
            opened.with_context(|| format!("open {}", path.display()))
        };
        let log = open(self.file(name))?;
        let mut command = Command::new(&self.kubenap);
        command.arg("run").arg("--kubeconfig").arg(self.cluster.kubeconfig());
        command.args(["--identity", name, "--advertise-address", &address.to_string()]);
        command.args(["--proxy-listen", &format!("any={address}:8080")]);
        command.args(["--admin-listen", &format!("{address}:{ADMIN_PORT}")]);
        command.args(["--lease-namespace", SYSTEM, "--log-format", "text"]).args(flags);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A group of its own: Ctrl-C in the terminal reaches it through us only, and `down` can end it by its number.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let child = child.with_context(|| format!("start {}", self.kubenap.display()))?;
        if let Some(number) = child.id() {
            writeln!(open(self.cluster.pids())?, "{number}").context("note the process number")?;
        }
        Ok(child)
    }
}
