//! Runs checks, each in a namespace of its own, and tells which failed against what.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a suite that cannot start has failed; its count is its answer"
)]
use anyhow::{Context, Result, ensure};
use futures::future::BoxFuture;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use kubenap_sandbox::{Sandbox, Settings};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

/// A sentence, and what shows that it is true.
#[derive(Clone)]
pub(crate) struct Check {
    sentence: &'static str,
    run: fn(World) -> BoxFuture<'static, Result<()>>,
    sandbox_only: bool,
}

impl Check {
    pub(crate) fn new(sentence: &'static str, run: fn(World) -> BoxFuture<'static, Result<()>>) -> Self {
        Self { sentence, run, sandbox_only: false }
    }

    /// For what cannot be brought about in a real cluster from outside.
    pub(crate) fn in_the_sandbox_only(mut self) -> Self {
        self.sandbox_only = true;
        self
    }
}

/// Where one check runs.
#[derive(Clone)]
pub(crate) struct World {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// Set when the cluster is the sandbox, for what cannot be done through the API.
    pub(crate) sandbox: Option<Sandbox>,
}

/// The sandbox's router as a client: the request's body becomes axum's.
pub(crate) fn client(sandbox: &Sandbox) -> Client {
    let router = sandbox.router();
    let service =
        router.map_request(|request: http::Request<kube::client::Body>| request.map(axum::body::Body::new));
    Client::new(service, "default")
}

pub(crate) async fn against_the_sandbox(checks: &[Check]) {
    let sandbox = Sandbox::start(Settings::default());
    let client = client(&sandbox);
    run("the sandbox", &client, Some(&sandbox), checks).await;
}

pub(crate) async fn against_a_real_cluster(checks: &[Check]) {
    let Some(path) = std::env::var_os("KUBENAP_E2E_KUBECONFIG") else {
        println!("no checks ran against a real API server: KUBENAP_E2E_KUBECONFIG is not set");
        return;
    };
    drop(rustls::crypto::ring::default_provider().install_default());
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    let client = Client::try_from(config).unwrap();
    let real: Vec<Check> = checks.iter().filter(|check| !check.sandbox_only).cloned().collect();
    println!("{} checks are for the sandbox only", checks.len() - real.len());
    run("a real API server", &client, None, &real).await;
}

async fn run(whom: &str, client: &Client, sandbox: Option<&Sandbox>, checks: &[Check]) {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let mut failures = Vec::new();
    for check in checks {
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta {
                generate_name: Some("contract-".to_owned()),
                ..Default::default()
            },
            ..Default::default()
        };
        let made = namespaces.create(&PostParams::default(), &namespace).await.unwrap();
        let name = made.metadata.name.unwrap();
        let world = World { client: client.clone(), namespace: name.clone(), sandbox: sandbox.cloned() };
        let outcome = tokio::time::timeout(Duration::from_secs(240), (check.run)(world)).await;
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(why)) => failures.push(format!("{}: {why:#}", check.sentence)),
            Err(_) => failures.push(format!("{}: not done after four minutes", check.sentence)),
        }
        drop(namespaces.delete(&name, &DeleteParams::default()).await);
    }
    println!("{} checks ran against {whom}, {} failed", checks.len(), failures.len());
    assert!(failures.is_empty(), "against {whom}:\n{}", failures.join("\n"));
}

impl World {
    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A Deployment `web`, whose pods run the end-to-end tests' image and listen on a port named http.
    pub(crate) async fn deployment(&self, replicas: u32) -> Result<Deployment> {
        let object = deployment(replicas);
        self.api::<Deployment>()
            .create(&PostParams::default(), &object)
            .await
            .context("creating the Deployment")
    }

    /// A Service `web` in front of the Deployment, with a named port and a numbered one.
    pub(crate) async fn service(&self) -> Result<Service> {
        let object = typed(json!({
            "metadata": { "name": "web" },
            "spec": { "selector": { "app": "web" }, "ports": [
                { "name": "web", "port": 80, "targetPort": "http" },
                { "name": "direct", "port": 81, "targetPort": 8080 },
            ]},
        }));
        self.api::<Service>().create(&PostParams::default(), &object).await.context("creating the Service")
    }

    /// Looks again and again until it is true, for at most a minute and a half.
    pub(crate) async fn until<F, Fut>(&self, what: &str, mut is_true: F) -> Result<()>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<bool>>,
    {
        for _ in 0..1800 {
            if is_true().await? {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anyhow::bail!("not seen in a minute and a half: {what}")
    }

    /// Waits until the Deployment `web` has this many ready pods, by what its controller has observed.
    pub(crate) async fn until_ready(&self, replicas: i32) -> Result<Deployment> {
        let deployments = self.api::<Deployment>();
        self.until(&format!("{replicas} ready"), || async {
            let found = deployments.get("web").await?;
            let status = found.status.unwrap_or_default();
            Ok(status.observed_generation == found.metadata.generation
                && status.ready_replicas.unwrap_or(0) == replicas
                && status.replicas.unwrap_or(0) == replicas)
        })
        .await?;
        Ok(deployments.get("web").await?)
    }
}

pub(crate) fn deployment(replicas: u32) -> Deployment {
    typed(json!({
        "metadata": { "name": "web" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" } },
                "spec": { "terminationGracePeriodSeconds": 1, "containers": [{
                    "name": "app", "image": "kubenap.test/app:1", "imagePullPolicy": "IfNotPresent",
                    "ports": [{ "name": "http", "containerPort": 8080 }],
                }]},
            },
        },
    }))
}

pub(crate) fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(0)
}

pub(crate) fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// The request was refused with this code and reason, in a Status.
pub(crate) fn refused<T>(outcome: kube::Result<T>, code: u16, reason: &str) -> Result<kube::core::Status> {
    match outcome {
        Ok(_) => anyhow::bail!("was accepted; {code} {reason} expected"),
        Err(kube::Error::Api(status)) => {
            ensure!(
                status.code == code && status.reason == reason,
                "{code} {reason} expected, was {status:?}"
            );
            Ok(*status)
        }
        Err(other) => anyhow::bail!("{code} {reason} expected, was {other}"),
    }
}

/// One check: its sentence, and an async function.
macro_rules! check {
    ($sentence:literal, $run:path) => {
        $crate::harness::Check::new($sentence, |world| Box::pin($run(world)))
    };
}
pub(crate) use check;
