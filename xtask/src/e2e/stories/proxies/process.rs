//! A proxy as a process beside the cluster: its program, its file, and its end with the story.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use super::way::{Listen, Program};
use crate::e2e::cluster::Cluster;
use crate::e2e::world::eventually;

/// The programs that are there, as `e2e/cluster/parts/proxies` says.
pub(in crate::e2e::stories) struct Programs(BTreeMap<String, Installed>);

/// One of them.
struct Installed {
    version: String,
    command: Vec<String>,
}

/// A proxy that runs; it is killed when this is dropped.
pub(super) struct Process {
    child: Child,
    file: PathBuf,
    text: String,
}

impl Programs {
    /// Asks the script, which has fetched them before.
    pub(in crate::e2e::stories) async fn find(cluster: &Cluster) -> Result<Self> {
        let output = cluster.script("parts/proxies").output().await.context("run parts/proxies")?;
        ensure!(output.status.success(), "parts/proxies: {}", String::from_utf8_lossy(&output.stderr).trim());
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = text.lines().map(|line| {
            let mut words = line.split_whitespace().map(str::to_owned);
            let (name, version) = (words.next()?, words.next()?);
            Some((name, Installed { version, command: words.collect() }))
        });
        let all: Option<BTreeMap<_, _>> = lines.collect();
        all.map(Self).with_context(|| format!("parts/proxies says {text:?}"))
    }

    /// The words that start a program on this machine, before its own.
    pub(in crate::e2e::stories) fn words(&self, program: Program) -> Result<&[String]> {
        Ok(&self.installed(program)?.command)
    }

    /// What the matrix says of a program.
    pub(super) fn version(&self, program: Program) -> Result<String> {
        Ok(self.installed(program)?.version.clone())
    }

    /// Starts a proxy with this text, and waits until it listens.
    pub(super) async fn start(
        &self,
        cluster: &Cluster,
        program: Program,
        listen: &Listen,
        text: String,
    ) -> Result<Process> {
        let folder = &listen.folder;
        fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        let file = folder.join(match program {
            // Told from the ending.
            Program::Envoy if text.starts_with('{') => "envoy.json",
            Program::Envoy => "envoy.yaml",
            Program::Nginx | Program::Traefik | Program::EnvoyGateway | Program::Haproxy | Program::Caddy => {
                "config"
            }
        });
        fs::write(&file, &text).with_context(|| format!("write {}", file.display()))?;
        let mut command = self.command(program, folder, &file)?;
        let log = File::create(folder.join("log")).context("make its log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started = command.process_group(0).kill_on_drop(true).spawn();
        let name = program.title();
        let mut child = started.with_context(|| format!("start {name}"))?;
        if let Some(number) = child.id() {
            // A story that is killed kills nothing: the cluster's end does.
            let pids =
                OpenOptions::new().append(true).open(cluster.pids()).context("open the list of processes")?;
            writeln!(&pids, "{number}").context("note the process number")?;
        }
        eventually(&format!("the proxy {name} listens"), Duration::from_secs(90), async || {
            if let Some(status) = child.try_wait()? {
                let log = fs::read_to_string(folder.join("log")).unwrap_or_default();
                bail!("{name} ended with {status}:\n{log}\n{text}");
            }
            TcpStream::connect(listen.http)
                .await
                .map(drop)
                .with_context(|| format!("connect to {}", listen.http))
        })
        .await?;
        Ok(Process { child, file, text })
    }

    fn command(&self, program: Program, folder: &Path, file: &Path) -> Result<Command> {
        let [first, rest @ ..] = self.words(program)? else {
            bail!("parts/proxies names no command for {}", program.name());
        };
        let mut command = Command::new(first);
        command.args(rest).current_dir(folder);
        match program {
            Program::Nginx => {
                command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(file);
            }
            Program::Haproxy => {
                command.arg("-db").arg("-f").arg(file);
            }
            Program::Caddy => {
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
                command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
            }
            Program::Envoy => {
                command
                    .args(["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c"])
                    .arg(file);
            }
            Program::Traefik | Program::EnvoyGateway => bail!("{} runs in the cluster", program.title()),
        }
        Ok(command)
    }

    fn installed(&self, program: Program) -> Result<&Installed> {
        let name = program.name();
        self.0.get(name).with_context(|| format!("parts/proxies does not name {name}"))
    }
}

impl Process {
    /// Ends it, and waits until it has.
    pub(super) async fn end(mut self) -> Result<()> {
        self.child.kill().await.context("end a proxy")
    }

    /// Fails if it has ended, or if its file is not what it was started with.
    pub(super) fn ensure_as_started(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("it has ended with {status}");
        }
        let now = fs::read_to_string(&self.file).with_context(|| format!("read {}", self.file.display()))?;
        ensure!(now == self.text, "{} has changed", self.file.display());
        Ok(())
    }
}
