//! The cluster: where its files are, how it is started and ended, how a command gets into its network.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;
use tokio::time::timeout;

use super::{build, progress};
use crate::image::{self, Image};

/// The Kubernetes that `e2e/cluster/build` builds.
const VERSION: &str = "1.34.4";
const PROGRAMS: [&str; 8] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
    "coredns",
    "etcd",
];
/// Where Traefik takes requests.
pub(crate) const TRAEFIK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 80)), 80);
/// Where Envoy Gateway takes requests, once `parts/envoy-gateway` has started it.
pub(crate) const ENVOY_GATEWAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 83)), 80);
/// Where Prometheus answers.
pub(crate) const PROMETHEUS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 9090);
/// Where `InfluxDB` answers, once a story has started it.
pub(crate) const INFLUXDB: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), 8086);

/// The image under test; its tag changes with the program.
pub(crate) const TESTED: &str = "kubenap.test/kubenap";

/// One cluster, by its name; whether it runs is asked each time.
#[derive(Clone)]
pub(crate) struct Cluster {
    name: String,
    scripts: PathBuf,
    cache: PathBuf,
    folder: PathBuf,
}

impl Cluster {
    /// The cluster that `E2E_CLUSTER` names, `kubenap` without it, with the scripts' own defaults for where things
    /// are kept. Clusters of different names run side by side.
    pub(crate) fn chosen() -> Result<Self> {
        let name = env::var("E2E_CLUSTER").unwrap_or_else(|_| "kubenap".to_owned());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > 20 || !name.chars().all(plain) {
            bail!("E2E_CLUSTER is {name:?}; accepted: up to 20 of a-z, 0-9 and -");
        }
        Self::named(&name)
    }

    fn named(name: &str) -> Result<Self> {
        let cache = match (env::var_os("CACHE"), env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
            (Some(cache), _, _) => PathBuf::from(cache),
            (None, Some(cache), _) => Path::new(&cache).join("kubenap-cluster"),
            (None, None, Some(home)) => Path::new(&home).join(".cache/kubenap-cluster"),
            (None, None, None) => bail!("find the cache folder: neither XDG_CACHE_HOME nor HOME is set"),
        };
        let clusters = env::var_os("DIR").unwrap_or_else(|| "/var/tmp/kubenap-cluster".into());
        Ok(Self {
            name: name.to_owned(),
            scripts: build::root().join("e2e/cluster"),
            cache,
            folder: Path::new(&clusters).join(name),
        })
    }

    /// As `E2E_CLUSTER` names it.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The administrator's kubeconfig.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// The folder in which built and fetched programs are kept.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folder of all logs.
    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The folder in which the kubelet keeps containers' logs.
    pub(crate) fn pod_logs(&self) -> PathBuf {
        self.folder.join("podlogs")
    }

    /// The file of process numbers that `down` ends.
    pub(crate) fn pids(&self) -> PathBuf {
        self.folder.join("pids")
    }

    /// The process number of something that the scripts started, by its log's name.
    pub(crate) fn pid(&self, what: &str) -> Result<rustix::process::Pid> {
        let file = self.folder.join(format!("{what}.pid"));
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let number = text.trim().parse().with_context(|| format!("{}: {text:?}", file.display()))?;
        rustix::process::Pid::from_raw(number)
            .with_context(|| format!("{}: no process {number}", file.display()))
    }

    /// Whether everything that `build` makes is there.
    pub(crate) fn has_programs(&self) -> bool {
        PROGRAMS.iter().all(|program| self.programs().join(program).exists())
    }

    /// Whether everything that `parts/fetch` makes is there.
    pub(crate) fn has_parts(&self) -> bool {
        let kept = std::fs::read_dir(self.cache.join("bin"));
        let names: Vec<OsString> =
            kept.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect();
        let any = |start: &[u8]| names.iter().any(|name| name.as_encoded_bytes().starts_with(start));
        any(b"traefik-") && any(b"prometheus-") && any(b"helm-")
    }

    /// One of the scripts in `e2e/cluster`.
    pub(crate) fn script(&self, path: &str) -> Command {
        Command::new(self.scripts.join(path))
    }

    /// A command inside the cluster's network.
    pub(crate) fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(program);
        command
    }

    /// `kubectl` as the administrator.
    pub(crate) fn kubectl(&self) -> Command {
        let mut command = self.inside(self.programs().join("kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig());
        command
    }

    /// `helm` as the administrator.
    pub(crate) fn helm(&self) -> Command {
        let mut command = self.script("parts/helm");
        command.arg(&self.name);
        command
    }

    /// `helm` for what needs no cluster.
    pub(crate) fn offline_helm(&self) -> Command {
        let mut command = self.script("parts/helm");
        command.arg("-");
        command
    }

    /// A person's command line in bash, inside the cluster's network, with kubectl, helm and kubenap at hand.
    pub(crate) fn bash(&self, line: &str) -> Command {
        let mut command = self.with_tools();
        command.args(["bash", "-c", line]).current_dir(build::root());
        command
    }

    /// The process of a container, as this machine knows it.
    pub(crate) async fn process_of(&self, container: &str) -> Result<rustix::process::Pid> {
        let mut ask = self.ctr();
        let output = ask.args(["tasks", "ls"]).output().await.context("run ctr tasks ls")?;
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = table.lines().find_map(|line| {
            let mut columns = line.split_whitespace();
            if columns.next() == Some(container) { columns.next()?.parse().ok() } else { None }
        });
        let found = number.and_then(rustix::process::Pid::from_raw);
        found.with_context(|| format!("containerd knows no process of container {container}"))
    }

    /// `env` inside the cluster's network, with PATH and KUBECONFIG set; what it is to run comes behind it.
    fn with_tools(&self) -> Command {
        let mut path = OsString::from("PATH=");
        for folder in [self.tools(), self.programs()] {
            path.push(folder);
            path.push(":");
        }
        path.push(env::var_os("PATH").unwrap_or_default());
        let mut command = self.inside("env");
        command.arg(path).env("KUBECONFIG", self.kubeconfig()).env("CURL_HOME", self.tools());
        command
    }

    fn tools(&self) -> PathBuf {
        self.folder.join("tools")
    }

    /// Helm and the program under test, by the names that a person types.
    fn add_tools(&self, kubenap: &Path) -> Result<()> {
        let tools = self.tools();
        std::fs::create_dir_all(&tools).with_context(|| format!("make {}", tools.display()))?;
        // Every host name leads to Traefik, as a wildcard in the DNS would have it.
        let curl = tools.join(".curlrc");
        std::fs::write(&curl, format!("connect-to = \":80:{TRAEFIK}\"\n"))
            .with_context(|| format!("write {}", curl.display()))?;
        let helm = format!("{} {}", self.scripts.join("parts/helm").display(), self.name);
        for (name, command) in [("helm", helm), ("kubenap", kubenap.display().to_string())] {
            let path = tools.join(name);
            std::fs::write(&path, format!("#!/bin/sh\nexec {command} \"$@\"\n"))
                .and_then(|()| std::fs::set_permissions(&path, Permissions::from_mode(0o755)))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(self.folder.join("containerd.sock")).args(["-n", "k8s.io"]);
        command
    }

    /// Whether its API server is ready.
    pub(crate) async fn is_up(&self) -> bool {
        let mut ask = self.kubectl();
        ask.args(["get", "--raw", "/readyz", "--request-timeout=3s"]).stdin(Stdio::null());
        let asked = timeout(Duration::from_secs(5), ask.kill_on_drop(true).output()).await;
        matches!(asked, Ok(Ok(output)) if output.status.success())
    }

    /// Starts it, empty.
    pub(crate) async fn up(&self) -> Result<()> {
        progress::run("starting Kubernetes", self.script("up").arg(&self.name)).await
    }

    /// Ends it and everything that was started inside it.
    pub(crate) async fn down(&self) -> Result<()> {
        progress::run("ending the cluster", self.script("down").arg(&self.name)).await
    }

    /// Adds Traefik, Prometheus, the test app's image and KubeNap's, each unless it is there.
    pub(crate) async fn add_parts(&self, app: &Path, kubenap: &[PathBuf]) -> Result<()> {
        if !self.answers(PROMETHEUS).await {
            self.start_prometheus().await?;
        }
        if !self.answers(TRAEFIK).await {
            progress::run("starting Traefik", self.script("parts/traefik").arg(&self.name)).await?;
        }
        progress::run("loading the test app", self.script("parts/app").arg(&self.name).arg(app)).await?;
        let program = kubenap.first().context("there is no program to test")?;
        self.add_tools(program)?;
        self.load_kubenap(kubenap).await
    }

    /// Makes an image of the program and loads it, under the name that the chart asks for, and under one of its own
    /// that changes with it.
    async fn load_kubenap(&self, files: &[PathBuf]) -> Result<()> {
        let image = Image::of(files)?;
        let tag: String = image.digest().chars().take(16).collect();
        let note = self.folder.join("kubenap.tag");
        if self.tested_tag().is_ok_and(|known| known == tag) {
            return Ok(());
        }
        let file = self.folder.join("kubenap.tar");
        let names = [format!("{TESTED}:{tag}"), format!("{}:{}", image::NAME, env!("CARGO_PKG_VERSION"))];
        std::fs::write(&file, image.archive(&names)?).with_context(|| format!("write {}", file.display()))?;
        progress::run("loading KubeNap", self.ctr().args(["images", "import"]).arg(&file)).await?;
        std::fs::write(&note, tag).with_context(|| format!("write {}", note.display()))
    }

    /// The tag of the image under test: another one for each program.
    pub(crate) fn tested_tag(&self) -> Result<String> {
        let note = self.folder.join("kubenap.tag");
        std::fs::read_to_string(&note).with_context(|| format!("read {}", note.display()))
    }

    /// Starts Prometheus, scraping each second.
    pub(crate) async fn start_prometheus(&self) -> Result<()> {
        let mut command = self.script("parts/prometheus");
        progress::run("starting Prometheus", command.arg(&self.name).env("INTERVAL", "1s")).await
    }

    /// Starts `InfluxDB`, unless it runs; `build::influxdb` has built it.
    pub(crate) async fn start_influxdb(&self) -> Result<()> {
        if self.answers(INFLUXDB).await {
            return Ok(());
        }
        progress::run("starting InfluxDB", self.script("parts/influxdb").arg(&self.name)).await
    }

    /// Starts the API server once more.
    pub(crate) async fn start_api_server(&self) -> Result<()> {
        progress::run("starting the API server", self.script("apiserver").arg(&self.name)).await
    }

    /// Runs a person's command inside the cluster's network; its exit code is passed on.
    pub(crate) async fn shell(&self, command: &[OsString]) -> Result<ExitCode> {
        if !self.is_up().await {
            bail!("the cluster is not up: `cargo xtask e2e up` starts it");
        }
        let [program, arguments @ ..] = command else { bail!("no command") };
        let mut run = self.with_tools();
        run.arg(program).args(arguments);
        let status = run.status().await.with_context(|| format!("run {}", program.display()))?;
        Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
    }

    fn programs(&self) -> PathBuf {
        self.cache.join(format!("bin-{VERSION}"))
    }

    async fn answers(&self, address: SocketAddr) -> bool {
        let mut ask = self.inside("curl");
        ask.args(["-s", "-o", "/dev/null", "--max-time", "2"]).arg(format!("http://{address}/"));
        ask.status().await.is_ok_and(|status| status.success())
    }
}
