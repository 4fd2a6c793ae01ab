//! The apps of the benchmark: small Deployments of the test app, put to sleep and scaled as fast as it goes.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::launcher::Bench;
use crate::e2e::http::{self, Call, Caller};

/// Flags for parts in which naps are forced: as quick as a nap goes.
pub(crate) const QUICK_NAPS: [&str; 10] =
    ["--idle-after", "1h", "--poll", "2s", "--drowsy", "1s", "--min-awake", "1s", "--naps-per-minute", "0"];

/// An app; its Service and Ingress have its name.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) enrolled: bool,
    pub(crate) replicas: u32,
    pub(crate) annotations: Value,
    pub(crate) boot: Duration,
    /// The path of its readiness probe.
    pub(crate) probe: &'static str,
    /// Reached through Traefik, as NAME.bench.test.
    pub(crate) routed: bool,
}

/// A namespace of apps.
pub(crate) struct Space<'a> {
    pub(crate) bench: &'a Bench,
    pub(crate) name: String,
}

impl App {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            enrolled: true,
            replicas: 1,
            annotations: json!({}),
            boot: Duration::ZERO,
            probe: "/healthz",
            routed: true,
        }
    }

    pub(crate) fn host(&self) -> String {
        format!("{}.bench.test", self.name)
    }

    fn deployment(&self) -> Value {
        let labels = if self.enrolled { json!({"kubenap/enabled": "true"}) } else { json!({}) };
        json!({
            "metadata": {"name": self.name, "labels": labels, "annotations": self.annotations},
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name}},
                    "spec": {
                        "terminationGracePeriodSeconds": 5,
                        "containers": [{
                            "name": "app",
                            "image": "kubenap.test/app:1",
                            "imagePullPolicy": "IfNotPresent",
                            "env": [
                                {"name": "BOOT_MS", "value": self.boot.as_millis().to_string()},
                                {"name": "STOP_MS", "value": "200"},
                            ],
                            "ports": [{"name": "http", "containerPort": 8080}],
                            "readinessProbe": {"httpGet": {"path": self.probe, "port": "http"}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        })
    }
}

impl<'a> Space<'a> {
    /// A new namespace for one part.
    pub(crate) async fn make(bench: &'a Bench, part: &str) -> Result<Self> {
        let name = format!("bench-{part}-{}", std::process::id());
        bench.make_namespace(&name).await?;
        Ok(Self { bench, name })
    }

    /// Asks for the namespace to be removed.
    pub(crate) async fn remove(self) -> Result<()> {
        let all = Api::<Namespace>::all(self.bench.client.clone());
        all.delete(&self.name, &DeleteParams::default()).await.context("remove a namespace")?;
        Ok(())
    }

    pub(crate) fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.bench.client.clone(), &self.name)
    }

    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.bench.client.clone(), &self.name)
    }

    /// Creates an app without waiting for it.
    pub(crate) async fn create(&self, app: &App) -> Result<()> {
        let post = PostParams::default();
        let client = || self.bench.client.clone();
        let service = json!({
            "metadata": {"name": app.name},
            "spec": {"selector": {"app": app.name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        });
        Api::<Service>::namespaced(client(), &self.name)
            .create(&post, &serde_json::from_value(service)?)
            .await?;
        self.deployments().create(&post, &serde_json::from_value(app.deployment())?).await?;
        if app.routed {
            let backend = json!({"service": {"name": app.name, "port": {"name": "http"}}});
            let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
            let ingress = json!({
                "metadata": {"name": app.name},
                "spec": {"ingressClassName": "traefik", "rules": [{"host": app.host(), "http": {"paths": paths}}]},
            });
            Api::<Ingress>::namespaced(client(), &self.name)
                .create(&post, &serde_json::from_value(ingress)?)
                .await?;
        }
        Ok(())
    }

    /// Waits until the app answers at this address under its host.
    pub(crate) async fn until_answers(&self, app: &App, at: SocketAddr) -> Result<()> {
        let what = format!("{} answers at {at}", app.name);
        eventually(&what, Duration::from_secs(60), async || {
            http::get(at, &app.host(), "/").await.and_then(|reply| reply.ensure_from_app())
        })
        .await
    }

    /// The app's Service, at its cluster address.
    pub(crate) async fn address(&self, app: &App) -> Result<SocketAddr> {
        let service =
            Api::<Service>::namespaced(self.bench.client.clone(), &self.name).get(&app.name).await?;
        let ip = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        Ok((ip.parse::<std::net::IpAddr>()?, 80).into())
    }

    pub(crate) async fn patch(&self, name: &str, patch: &Value) -> Result<()> {
        let patched = self.deployments().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(drop).with_context(|| format!("patch Deployment {name}"))
    }

    pub(crate) async fn scale(&self, name: &str, replicas: u32) -> Result<()> {
        self.patch(name, &json!({"spec": {"replicas": replicas}})).await
    }

    /// Asks for a nap, whoever comes.
    pub(crate) async fn wish_nap(&self, name: &str) -> Result<()> {
        self.patch(name, &json!({"metadata": {"annotations": {"kubenap/wish": "forceNap"}}})).await
    }

    /// Waits until the app sleeps, both members stand in for it, and none of its pods is left.
    pub(crate) async fn until_asleep(&self, app: &App) -> Result<()> {
        eventually(&format!("{} is asleep", app.name), Duration::from_secs(180), async || {
            let annotations =
                self.deployments().get(&app.name).await?.metadata.annotations.unwrap_or_default();
            let phase = annotations.get("kubenap/phase").map_or("awake", String::as_str);
            ensure!(phase == "asleep", "its phase is {phase}");
            self.ensure_no_pods(&app.name).await
        })
        .await
    }

    /// Waits until none of an app's pods is left.
    pub(crate) async fn until_no_pods(&self, name: &str) -> Result<()> {
        let what = format!("no pod of {name} is left");
        eventually(&what, Duration::from_secs(120), async || self.ensure_no_pods(name).await).await
    }

    /// Waits until a wake is over for KubeNap too.
    pub(crate) async fn until_awake(&self, app: &App) -> Result<()> {
        eventually(&format!("{} is awake", app.name), Duration::from_secs(120), async || {
            let deployment = self.deployments().get(&app.name).await?;
            let annotations = deployment.metadata.annotations.unwrap_or_default();
            let phase = annotations.get("kubenap/phase").map_or("awake", String::as_str);
            ensure!(phase == "awake", "its phase is {phase}");
            Ok(())
        })
        .await
    }

    async fn ensure_no_pods(&self, name: &str) -> Result<()> {
        let pods = self.pods().list(&ListParams::default().labels(&format!("app={name}"))).await?.items.len();
        ensure!(pods == 0, "{pods} of its pods are left");
        Ok(())
    }
}

/// Asks once as a visitor does and follows redirects, until the app's whole 200 is there.
pub(crate) async fn visit(at: SocketAddr, host: &str) -> Result<Visited> {
    let journey = Caller::fresh(at, host).follow(&Call::get("/visit"), 8).await?;
    let answered = Instant::now();
    journey.reply.ensure_from_app()?;
    Ok(Visited { redirected: journey.redirected, answered })
}

/// When what of a visit was there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Visited {
    /// The first redirect.
    pub(crate) redirected: Option<Instant>,
    /// The app's whole answer.
    pub(crate) answered: Instant,
}

/// Looks again and again until it succeeds; its last error is the reason when the time is over.
pub(crate) async fn eventually(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<()>,
) -> Result<()> {
    let deadline = Instant::now() + within;
    loop {
        match look().await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("not within {} s: {what}", within.as_secs())));
            }
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}
