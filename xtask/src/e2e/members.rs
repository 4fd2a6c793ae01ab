//! The `KubeNap` under test: pods from its chart, two of them, told what a story needs by Helm's values.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::cluster::{Cluster, TESTED};
use super::http;
use super::logs::Logs;
use super::metrics::{self, Sample};
use super::pods;
use super::world::eventually;

/// The namespace, and the release in it.
pub(crate) const HOME: &str = "kubenap-system";
pub(crate) const RELEASE: &str = "kubenap";
/// How many of them there are.
const COUNT: usize = 2;
const ADMIN_PORT: u16 = 8081;
/// How long a member may take to say goodbye: it waits for the proxies to hear of it.
const GOODBYE: Duration = Duration::from_secs(90);
/// How long Helm may take for anything.
const HELM: Duration = Duration::from_secs(300);

/// What differs from story to story.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Settings {
    /// `--source`.
    pub(crate) source: String,
    /// `--idle-after`.
    pub(crate) idle_after: &'static str,
    /// More flags of `kubenap run`, as `flags` in the chart's values takes them.
    pub(crate) flags: Vec<(&'static str, Value)>,
    /// More of the chart's values; maps are merged.
    pub(crate) values: Value,
}

impl Default for Settings {
    fn default() -> Self {
        Self { source: "ingress".to_owned(), idle_after: "10m", flags: Vec::new(), values: json!({}) }
    }
}

/// A member that runs.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Its pod's name.
    pub(crate) identity: String,
    /// Its pod's address.
    pub(crate) address: IpAddr,
    container: String,
    restarts: i32,
    ready: bool,
}

/// The members. They stay when this is dropped: the next run takes them over, and the cluster's end ends them.
pub(crate) struct Members {
    cluster: Cluster,
    client: Client,
    kubenap: PathBuf,
    tag: String,
    logs: Logs,
    installed: Mutex<Installed>,
}

#[derive(Default)]
struct Installed {
    settings: Option<Settings>,
    /// How often each of them has been killed on purpose.
    killed: BTreeMap<String, i32>,
}

impl Members {
    /// Those of this cluster; `tag` is the image's.
    pub(crate) fn new(cluster: Cluster, client: Client, kubenap: PathBuf, tag: String) -> Self {
        let logs = Logs::keep(cluster.pod_logs(), cluster.logs());
        Self { cluster, client, kubenap, tag, logs, installed: Mutex::default() }
    }

    /// The `kubenap` program.
    pub(crate) fn program(&self) -> &Path {
        &self.kubenap
    }

    /// What was written into the members' logs.
    pub(crate) fn logs(&self) -> &Logs {
        &self.logs
    }

    /// Both members run with these settings, are ready, and one leads; rolled if they ran with others.
    pub(crate) async fn ensure(&self, settings: &Settings) -> Result<()> {
        let mut installed = self.installed.lock().await;
        if installed.settings.as_ref() != Some(settings) {
            installed.settings = None;
            self.install(settings).await?;
            installed.settings = Some(settings.clone());
        }
        self.scale(COUNT).await?;
        let rolled = eventually("both members are ready", Duration::from_secs(240), async || {
            let deployment = self.deployments().get(RELEASE).await.context("read KubeNap's Deployment")?;
            let observed = deployment.status.as_ref().and_then(|status| status.observed_generation);
            ensure!(observed >= deployment.metadata.generation, "its Deployment is not looked at yet");
            let updated = deployment.status.and_then(|status| status.updated_replicas).unwrap_or(0);
            let pods = self.pods().await?;
            ensure!(pods.len() == COUNT, "there are {} pods", pods.len());
            let living = pods.iter().filter_map(member).collect::<Vec<_>>();
            let ready = living.iter().filter(|member| member.ready).count();
            ensure!(ready == COUNT && updated == 2, "{ready} are ready, {updated} of them new");
            Ok(living)
        });
        let living = rolled.await?;
        let allowed = |member: Member| {
            // The kubelet may not have noticed yet that one was killed.
            let killed = installed.killed.get(&member.identity).copied().unwrap_or(0);
            (member.identity, member.restarts.max(killed))
        };
        installed.killed = living.into_iter().map(allowed).collect();
        drop(installed);
        self.ensure_led().await
    }

    /// Waits until a member leads.
    pub(crate) async fn ensure_led(&self) -> Result<()> {
        eventually("one member leads", Duration::from_secs(90), async || self.leader().await).await.map(drop)
    }

    /// Nothing of KubeNap is in the cluster, as before its first installation.
    pub(crate) async fn uninstall(&self) -> Result<()> {
        self.installed.lock().await.settings = None;
        let found = self.deployments().get_opt(RELEASE).await.context("look for KubeNap's Deployment")?;
        if found.is_some() {
            // Another version of the chart may have installed it: its own hook is not relied on.
            let mut restore = Command::new(&self.kubenap);
            restore.args(["restore", "--all", "--kubeconfig"]).arg(self.cluster.kubeconfig());
            let restored = timeout(HELM, restore.kill_on_drop(true).output()).await;
            restored.context("kubenap restore --all: not done in time")??;
            self.helm(&["uninstall", RELEASE, "--namespace", HOME, "--no-hooks", "--ignore-not-found"])
                .await?;
        }
        // What an uninstall that was stopped half-way has left.
        let kinds = "jobs,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";
        let mut delete = self.cluster.kubectl();
        delete.args([
            "-n",
            HOME,
            "delete",
            kinds,
            "-l",
            "app.kubernetes.io/instance=kubenap",
            "--ignore-not-found",
        ]);
        let deleted =
            timeout(GOODBYE, delete.kill_on_drop(true).output()).await.context("delete leftovers")??;
        ensure!(
            deleted.status.success(),
            "delete leftovers: {}",
            String::from_utf8_lossy(&deleted.stderr).trim()
        );
        eventually("KubeNap's pods are gone", GOODBYE, async || {
            let pods = self.pods().await?.len();
            ensure!(pods == 0, "{pods} are left");
            Ok(())
        })
        .await
    }

    /// So many of them run, fewer than usual, and are ready. Who leads may be somebody else.
    pub(crate) async fn run_only(&self, count: usize) -> Result<()> {
        self.scale(count).await?;
        eventually(&format!("{count} are ready"), Duration::from_secs(120), async || {
            let ready = self.living().await?.iter().filter(|member| member.ready).count();
            ensure!(ready == count, "{ready} are");
            Ok(())
        })
        .await
    }

    /// What runs is somebody else's doing from now on; the next [`ensure`](Self::ensure) installs anew.
    pub(crate) async fn forget(&self) {
        *self.installed.lock().await = Installed::default();
    }

    /// Ends one member by SIGTERM and waits until it has left; there is one less from then on. Its exit code.
    pub(crate) async fn stop(&self, identity: &str) -> Result<i32> {
        let left = self.living().await?.into_iter().filter(|member| member.identity != identity).count();
        // This one and no other is to go when there is one less.
        let cost =
            json!({"metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1000"}}});
        let patched = self.api().patch(identity, &PatchParams::default(), &Patch::Merge(cost)).await;
        patched.with_context(|| format!("member {identity} does not run"))?;
        let pods = self.api();
        let ended = async {
            let (code, scaled) = tokio::join!(pods::ended(&pods, identity), self.scale(left));
            scaled?;
            code
        };
        timeout(GOODBYE, ended).await.with_context(|| {
            format!("member {identity} did not end within {} s of SIGTERM", GOODBYE.as_secs())
        })?
    }

    /// Ends one member by SIGKILL; the kubelet starts its container again, with the same identity.
    pub(crate) async fn crash(&self, identity: &str) -> Result<()> {
        self.end(identity, self.process(identity).await?).await
    }

    /// The process of a member, to be ended at once later on.
    pub(crate) async fn process(&self, identity: &str) -> Result<Pid> {
        self.cluster.process_of(&self.member(identity).await?.container).await
    }

    /// Ends a process of [`process`](Self::process) by SIGKILL, at this very moment.
    pub(crate) async fn end(&self, identity: &str, process: Pid) -> Result<()> {
        kill_process(process, Signal::KILL).with_context(|| format!("kill member {identity}"))?;
        *self.installed.lock().await.killed.entry(identity.to_owned()).or_default() += 1;
        Ok(())
    }

    /// Ends one member by SIGKILL for good, as a node does that goes up in smoke: its pod and its address are gone with
    /// it, without a goodbye. Another one comes in its place.
    pub(crate) async fn lose(&self, identity: &str) -> Result<()> {
        let process = self.process(identity).await?;
        // Held still first: the SIGTERM that comes with the end of a pod must not reach it.
        kill_process(process, Signal::STOP).with_context(|| format!("stop member {identity}"))?;
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let deleted = self.api().delete(identity, &now).await;
        kill_process(process, Signal::KILL).with_context(|| format!("kill member {identity}"))?;
        deleted.map(drop).with_context(|| format!("delete pod {identity}"))
    }

    /// Ends both members by SIGKILL, and no others come: no goodbye, their slices and Leases stay behind.
    pub(crate) async fn kill(&self) -> Result<()> {
        let mut processes = Vec::new();
        for member in self.living().await? {
            processes.push(self.cluster.process_of(&member.container).await?);
        }
        // Held still first: the SIGTERM that comes with the end of a pod must not reach them.
        for process in &processes {
            kill_process(*process, Signal::STOP).context("stop a member")?;
        }
        let scaled = self.scale(0).await;
        // Until the kubelet knows that the pods are to end, it would start their containers again: it tells them to.
        let told = eventually("the kubelet ends both members", Duration::from_secs(60), async || {
            let told = processes.iter().filter(|process| is_told_to_end(**process)).count();
            ensure!(told == processes.len(), "it has told {told} of {}", processes.len());
            Ok(())
        });
        let told = told.await;
        for process in &processes {
            kill_process(*process, Signal::KILL).context("kill a member")?;
        }
        scaled?;
        told?;
        eventually("both members are dead", Duration::from_secs(60), async || {
            let pods = self.pods().await?.len();
            ensure!(pods == 0, "{pods} pods are left");
            Ok(())
        })
        .await
    }

    /// Fails if a member has ended by itself.
    pub(crate) async fn ensure_alive(&self) -> Result<()> {
        let killed = self.installed.lock().await.killed.clone();
        for member in self.living().await? {
            let known = killed.get(&member.identity).copied().unwrap_or(0);
            if member.restarts > known {
                let identity = &member.identity;
                bail!("member {identity} ended by itself\n{}", self.logs.tail(identity, 20));
            }
        }
        Ok(())
    }

    /// The members that run and are not told to end.
    pub(crate) async fn living(&self) -> Result<Vec<Member>> {
        Ok(self.pods().await?.iter().filter_map(member).collect())
    }

    /// The identity of the member that leads, by its own metric.
    pub(crate) async fn leader(&self) -> Result<String> {
        for member in self.living().await? {
            let samples = self.metrics_of(&member).await;
            if samples.is_ok_and(|samples| metrics::sum(&samples, "kubenap_leader") > 0.0) {
                return Ok(member.identity);
            }
        }
        bail!("no member's kubenap_leader is 1")
    }

    /// A member that does not lead.
    pub(crate) async fn follower(&self) -> Result<String> {
        let leader = self.leader().await?;
        let other = self.living().await?.into_iter().find(|member| member.identity != leader);
        Ok(other.context("there is no other member")?.identity)
    }

    /// The address that a member advertises.
    pub(crate) async fn address(&self, identity: &str) -> Result<IpAddr> {
        Ok(self.member(identity).await?.address)
    }

    /// What a member's /metrics shows.
    pub(crate) async fn metrics(&self, identity: &str) -> Result<Vec<Sample>> {
        self.metrics_of(&self.member(identity).await?).await
    }

    /// The sum of a metric over all labels and members.
    pub(crate) async fn sum(&self, metric: &str) -> Result<f64> {
        let mut sum = 0.0;
        for member in self.living().await? {
            sum += metrics::sum(&self.metrics_of(&member).await?, metric);
        }
        Ok(sum)
    }

    /// Runs Helm, which must succeed.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command: Command = self.cluster.helm();
        command.args(arguments).current_dir(super::build::root()).kill_on_drop(true);
        let what = format!("helm {}", arguments.join(" "));
        let ran =
            timeout(HELM, command.output()).await.with_context(|| format!("{what}: not done in time"))?;
        let output = ran.with_context(|| what.clone())?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{what}: {}", said.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    async fn install(&self, settings: &Settings) -> Result<()> {
        let file = self.cluster.logs().join("kubenap-values.json");
        let mut values = json!({
            "image": {"repository": TESTED, "tag": self.tag, "pullPolicy": "Never"},
            "flags": {
                "source": [settings.source],
                "idle-after": settings.idle_after,
                "poll": "1s",
                "drowsy": "3s",
                "min-awake": "2s",
                "naps-per-minute": 0,
                "log-format": "text",
            },
        });
        for (name, value) in &settings.flags {
            values["flags"][*name] = value.clone();
        }
        merge(&mut values, &settings.values);
        std::fs::write(&file, values.to_string()).with_context(|| format!("write {}", file.display()))?;
        let file = file.display().to_string();
        // What a story has scaled or edited is Helm's again.
        let arguments =
            ["upgrade", "--install", RELEASE, "chart/kubenap", "--namespace", HOME, "--force-conflicts"];
        self.helm(&[&arguments[..], &["--values", &file]].concat()).await.map(drop)
    }

    async fn scale(&self, count: usize) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": count}}));
        let scaled = self.deployments().patch(RELEASE, &PatchParams::default(), &patch).await;
        scaled.map(drop).context("scale KubeNap's Deployment")
    }

    async fn member(&self, identity: &str) -> Result<Member> {
        let found = self.living().await?.into_iter().find(|member| member.identity == identity);
        found.with_context(|| format!("there is no member {identity}"))
    }

    async fn metrics_of(&self, member: &Member) -> Result<Vec<Sample>> {
        let (address, identity) = (SocketAddr::new(member.address, ADMIN_PORT), &member.identity);
        let page = http::get(address, "kubenap", "/metrics").await?;
        ensure!(page.status == 200, "/metrics of {identity}: {}", page.status);
        metrics::parse(&page.text()).with_context(|| format!("read /metrics of {identity}"))
    }

    async fn pods(&self) -> Result<Vec<Pod>> {
        let of_release = format!("app.kubernetes.io/name=kubenap,app.kubernetes.io/instance={RELEASE}");
        let found = self.api().list(&ListParams::default().labels(&of_release)).await;
        Ok(found.context("list KubeNap's pods")?.items)
    }

    fn api(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), HOME)
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), HOME)
    }
}

/// Whether a process that stands still has a SIGTERM waiting.
fn is_told_to_end(process: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.as_raw_nonzero()));
    status.is_ok_and(|status| is_pending(&status, Signal::TERM))
}

/// Whether a signal waits for a process, as its `status` in /proc says.
fn is_pending(status: &str, signal: Signal) -> bool {
    let masks =
        status.lines().filter_map(|line| line.strip_prefix("ShdPnd:").or(line.strip_prefix("SigPnd:")));
    let pending =
        masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).fold(0, |all, mask| all | mask);
    pending >> (signal.as_raw() - 1) & 1 == 1
}

/// A pod as a member; none while it does not run or is told to end.
fn member(pod: &Pod) -> Option<Member> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.as_ref()?.first()?;
    Some(Member {
        identity: pod.name_any(),
        address: status.pod_ip.as_ref()?.parse().ok()?,
        container: container.container_id.as_ref()?.rsplit('/').next()?.to_owned(),
        restarts: container.restart_count,
        ready: container.ready,
    })
}

/// Lays one map over another, map by map.
fn merge(values: &mut Value, more: &Value) {
    match (values, more) {
        (Value::Object(values), Value::Object(more)) => {
            for (name, value) in more {
                merge(values.entry(name.clone()).or_insert(Value::Null), value);
            }
        }
        (values, more) => *values = more.clone(),
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::Signal;

    use super::is_pending;

    #[test]
    fn a_signal_that_waits_for_a_process_is_seen() {
        let told =
            "Name:\tkubenap\nState:\tT (stopped)\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000004000\n";
        assert!(is_pending(told, Signal::TERM) && !is_pending(told, Signal::INT));
        assert!(!is_pending(&told.replace("4000", "0000"), Signal::TERM));
    }
}
