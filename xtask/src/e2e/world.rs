//! What a story has at hand: the cluster, the `KubeNap` under test, and a Kubernetes namespace of its own.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use super::audit::Audit;
use super::cluster::Cluster;
use super::members::{HOME, Members};

/// Everything that the stories share.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) client: Client,
    pub(crate) members: Members,
    pub(crate) audit: Audit,
}

/// A story's own namespace.
pub(crate) struct Space {
    pub(crate) world: Arc<World>,
    pub(crate) namespace: String,
}

/// What a finished `kubenap` command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    /// Connects to the cluster; `kubenap` is the program whose image is under test.
    pub(crate) async fn connect(cluster: Cluster, kubenap: std::path::PathBuf) -> Result<Self> {
        let file = Kubeconfig::read_from(cluster.kubeconfig()).context("read the cluster's kubeconfig")?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.connect_timeout = Some(Duration::from_secs(5));
        config.read_timeout = Some(Duration::from_secs(30));
        let client = Client::try_from(config).context("make a Kubernetes client")?;
        let audit = Audit::new(cluster.logs().join("audit.json"));
        let tag = cluster.tested_tag()?;
        let members = Members::new(cluster.clone(), client.clone(), kubenap, tag);
        let world = Self { cluster, client, members, audit };
        world.make_home().await?;
        Ok(world)
    }

    /// Makes the namespace of `KubeNap`: one that takes no pod with any privilege.
    pub(crate) async fn make_home(&self) -> Result<()> {
        self.make_namespace(HOME).await?;
        let restricted = "pod-security.kubernetes.io/enforce=restricted";
        self.kubectl(&["label", "--overwrite", "namespace", HOME, restricted]).await.map(drop)
    }

    /// A client for the same cluster that shows this token instead of the administrator's certificate.
    pub(crate) async fn client_with(&self, token: &str) -> Result<Client> {
        let mut file =
            Kubeconfig::read_from(self.cluster.kubeconfig()).context("read the cluster's kubeconfig")?;
        for user in &mut file.auth_infos {
            user.auth_info = Some(AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() });
        }
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Client::try_from(config).context("make a Kubernetes client")
    }

    /// Makes a namespace; one that is there already will do.
    pub(crate) async fn make_namespace(&self, name: &str) -> Result<()> {
        let namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        match Api::<Namespace>::all(self.client.clone()).create(&PostParams::default(), &namespace).await {
            Err(kube::Error::Api(error)) if error.code == 409 => Ok(()),
            made => made.map(drop).with_context(|| format!("make namespace {name}")),
        }
    }

    /// Asks for a namespace to be removed; the cluster does so in its own time.
    pub(crate) async fn remove_namespace(&self, name: &str) -> Result<()> {
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces
            .delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("remove namespace {name}"))?;
        Ok(())
    }

    /// Runs a `kubenap` command to its end, at most `within`.
    pub(crate) async fn kubenap(&self, arguments: &[&str], within: Duration) -> Result<Ran> {
        let mut command = Command::new(self.members.program());
        command.args(arguments).arg("--kubeconfig").arg(self.cluster.kubeconfig());
        let what = || format!("kubenap {}", arguments.join(" "));
        run(command, within).await.with_context(what)
    }

    /// Runs a person's command line, at most `within`.
    pub(crate) async fn bash(&self, line: &str, within: Duration) -> Result<Ran> {
        run(self.cluster.bash(line), within).await.with_context(|| line.to_owned())
    }

    /// Runs `kubectl`, which must succeed.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut command = self.cluster.kubectl();
        command.args(arguments);
        let ran = run(command, Duration::from_secs(180)).await?;
        ensure!(ran.code == 0, "kubectl {}: {}", arguments.join(" "), ran.stderr.trim());
        Ok(ran.stdout)
    }
}

impl Space {
    /// `NAMESPACE/NAME`, as the command line wants it.
    pub(crate) fn id(&self, app: &str) -> String {
        format!("{}/{app}", self.namespace)
    }

    /// Puts an app to sleep by `kubenap nap --force`, and fails unless that succeeds.
    pub(crate) async fn nap(&self, app: &str) -> Result<()> {
        let id = self.id(app);
        let ran = self.world.kubenap(&["nap", &id, "--force"], Duration::from_secs(180)).await?;
        ensure!(ran.code == 0, "kubenap nap {id} --force: exit {}: {}", ran.code, ran.stderr.trim());
        Ok(())
    }

    /// What `kubenap status -o json` says about an app.
    pub(crate) async fn status(&self, app: &str) -> Result<Value> {
        let found = self.statuses().await?.into_iter().find(|one| one["name"] == app);
        found.with_context(|| format!("kubenap status does not list {}", self.id(app)))
    }

    /// The same about all apps of this namespace.
    pub(crate) async fn statuses(&self) -> Result<Vec<Value>> {
        let ran = self.world.kubenap(&["status", "-o", "json"], Duration::from_secs(60)).await?;
        ensure!(ran.code == 0, "kubenap status: exit {}: {}", ran.code, ran.stderr.trim());
        let list: Vec<Value> =
            serde_json::from_str(&ran.stdout).context("read what kubenap status printed")?;
        Ok(list.into_iter().filter(|one| one["namespace"] == self.namespace).collect())
    }

    /// Runs `kubectl` in this namespace.
    pub(crate) async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.world.kubectl(&[&["-n", self.namespace.as_str()], arguments].concat()).await
    }
}

/// Looks again and again until it succeeds; its last error is the reason when the time is over.
pub(crate) async fn eventually<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("not within {} s: {what}", within.as_secs())));
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Looks again and again for so long, and fails as soon as it fails.
pub(crate) async fn throughout(span: Duration, mut look: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let end = Instant::now() + span;
    while Instant::now() < end {
        look().await?;
        sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

async fn run(mut command: Command, within: Duration) -> Result<Ran> {
    command.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let Ok(output) = timeout(within, command.output()).await else {
        bail!("did not end within {} s", within.as_secs());
    };
    let output = output.context("start it")?;
    Ok(Ran {
        code: output.status.code().context("ended by a signal")?,
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
