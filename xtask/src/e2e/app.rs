//! What a napping app looks like in the cluster: a Deployment of the test app, its Service, and a route if it has a host.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::cluster::TRAEFIK;
use super::http::{self, Call, Caller};
use super::world::{Space, eventually};

/// How long kube-proxy and Traefik may take to lead to an app that is ready.
const REACHED: Duration = Duration::from_secs(90);

/// An app to deploy; its Service and Ingress have its name.
#[derive(Clone)]
pub(crate) struct App {
    name: String,
    replicas: i32,
    annotations: BTreeMap<String, String>,
    idle_after: Option<String>,
    host: Option<String>,
    ingress_route: bool,
    boot: Duration,
    stop: Duration,
    unready_at_stop: bool,
    group: String,
    service: Value,
}

impl App {
    /// One replica, opted in, with a Service on port 80 and a second one on port 8090.
    pub(crate) fn new(name: &str) -> Self {
        let service = json!({
            "selector": {"group": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "alt", "port": 8090, "targetPort": "alt"}],
        });
        Self {
            name: name.to_owned(),
            replicas: 1,
            annotations: BTreeMap::new(),
            idle_after: None,
            host: None,
            ingress_route: false,
            boot: Duration::ZERO,
            stop: Duration::from_millis(2500),
            unready_at_stop: false,
            group: name.to_owned(),
            service,
        }
    }

    /// So many replicas.
    pub(crate) fn replicas(mut self, replicas: i32) -> Self {
        self.replicas = replicas;
        self
    }

    /// With `kubenap/KEY: VALUE`.
    pub(crate) fn annotate(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(format!("kubenap/{key}"), value.to_owned());
        self
    }

    /// It naps once it was quiet for so long; said only when it is deployed and reached by every way it has, or on a slow
    /// machine it might be asleep before anybody has looked at it.
    pub(crate) fn idle_after(mut self, quiet: &str) -> Self {
        self.idle_after = Some(quiet.to_owned());
        self.annotate("idleAfter", "1h")
    }

    /// Reached through Traefik under this host. It serves on for longer then: Traefik hears of its end up to 2 s later than
    /// kube-proxy.
    pub(crate) fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self.stop = Duration::from_secs(5);
        self
    }

    /// Its host leads to it by an `IngressRoute` and not by an Ingress.
    pub(crate) fn by_ingress_route(mut self) -> Self {
        self.ingress_route = true;
        self
    }

    /// It takes so long until it listens.
    pub(crate) fn boot(mut self, boot: Duration) -> Self {
        self.boot = boot;
        self
    }

    /// It serves on so long after it was told to stop.
    pub(crate) fn stop(mut self, stop: Duration) -> Self {
        self.stop = stop;
        self
    }

    /// Its readiness fails from the moment in which it is told to stop, while it serves on.
    pub(crate) fn unready_at_stop(mut self) -> Self {
        self.unready_at_stop = true;
        self
    }

    /// Its pods stand behind the Service of another app, and it brings none itself.
    pub(crate) fn behind(mut self, other: &str) -> Self {
        other.clone_into(&mut self.group);
        self.service = Value::Null;
        self
    }

    /// With this Service spec instead of the usual one.
    pub(crate) fn service(mut self, spec: Value) -> Self {
        self.service = spec;
        self
    }

    fn deployment(&self) -> Value {
        let mut env = vec![
            json!({"name": "BOOT_MS", "value": self.boot.as_millis().to_string()}),
            json!({"name": "STOP_MS", "value": self.stop.as_millis().to_string()}),
        ];
        if self.unready_at_stop {
            env.push(json!({"name": "STOP_UNREADY", "value": "true"}));
        }
        json!({
            "metadata": {
                "name": self.name,
                "labels": {"kubenap/enabled": "true"},
                "annotations": self.annotations,
            },
            "spec": {
                "replicas": self.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "template": {
                    "metadata": {"labels": {"app": self.name, "group": self.group}},
                    "spec": {
                        "terminationGracePeriodSeconds": 15,
                        "containers": [{
                            "name": "app",
                            "image": "kubenap.test/app:1",
                            "imagePullPolicy": "IfNotPresent",
                            "env": env,
                            "ports": [{"name": "http", "containerPort": 8080}, {"name": "alt", "containerPort": 9090}],
                            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        })
    }

    fn ingress(&self, host: &str) -> Value {
        let backend = json!({"service": {"name": self.name, "port": {"name": "http"}}});
        json!({
            "metadata": {"name": self.name},
            "spec": {
                "ingressClassName": "traefik",
                "rules": [{"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}],
            },
        })
    }

    fn route(&self, host: &str) -> Value {
        json!({
            "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute", "metadata": {"name": self.name},
            "spec": {"entryPoints": ["web"], "routes": [{
                "kind": "Rule", "match": format!("Host(`{host}`)"), "services": [{"name": self.name, "port": 80}],
            }]},
        })
    }
}

impl Space {
    /// Creates the app and waits until all of it is ready and reachable by every way it has.
    pub(crate) async fn deploy(&self, app: &App) -> Result<()> {
        self.create(app).await?;
        let what = format!("{} has {} ready replicas", app.name, app.replicas);
        eventually(&what, Duration::from_secs(180), async || {
            let ready = self.ready_replicas(&app.name).await?;
            ensure!(ready == app.replicas, "{ready} are ready");
            Ok(())
        })
        .await?;
        // kube-proxy and Traefik hear of it up to two seconds later than the Deployment says so.
        if !app.service.is_null() {
            let address = self.cluster_address(&app.name, 80).await?;
            eventually(&format!("{} is reached at its ClusterIP", app.name), REACHED, async || {
                http::get(address, &app.name, "/").await?.ensure_from_app()
            })
            .await?;
        }
        if let Some(host) = &app.host {
            eventually(&format!("{host} is reached through Traefik"), REACHED, async || {
                http::get(TRAEFIK, host, "/").await?.ensure_from_app()
            })
            .await?;
        }
        match &app.idle_after {
            Some(quiet) => self.annotate(&app.name, "idleAfter", quiet).await,
            None => Ok(()),
        }
    }

    /// Creates the app without waiting for it.
    pub(crate) async fn create(&self, app: &App) -> Result<()> {
        let post = PostParams::default();
        let what = || format!("create {}", self.id(&app.name));
        if !app.service.is_null() {
            let service = json!({"metadata": {"name": app.name}, "spec": app.service});
            self.api::<Service>()
                .create(&post, &serde_json::from_value(service)?)
                .await
                .with_context(what)?;
        }
        let deployment = serde_json::from_value(app.deployment())?;
        self.api::<Deployment>().create(&post, &deployment).await.with_context(what)?;
        if let Some(host) = app.host.as_ref().filter(|_| app.ingress_route) {
            let kind = GroupVersionKind::gvk("traefik.io", "v1alpha1", "IngressRoute");
            let kind = ApiResource::from_gvk(&kind);
            let routes: Api<DynamicObject> =
                Api::namespaced_with(self.world.client.clone(), &self.namespace, &kind);
            routes.create(&post, &serde_json::from_value(app.route(host))?).await.with_context(what)?;
        } else if let Some(host) = &app.host {
            let ingress = serde_json::from_value(app.ingress(host))?;
            self.api::<Ingress>().create(&post, &ingress).await.with_context(what)?;
        }
        Ok(())
    }

    /// A port of an app's Service, at its cluster address.
    pub(crate) async fn cluster_address(&self, service: &str, port: u16) -> Result<SocketAddr> {
        let service = self.api::<Service>().get(service).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).context("the Service has no address")?;
        Ok(SocketAddr::new(address.parse().with_context(|| format!("cluster address {address:?}"))?, port))
    }

    /// A visitor inside the cluster, one connection for each request.
    pub(crate) async fn neighbour(&self, app: &str) -> Result<Caller> {
        Ok(Caller::fresh(self.cluster_address(app, 80).await?, app))
    }
}

/// More than one where a member hears of the pods late, or a wake takes long; where one is the promise, a story counts them.
const FEW_REDIRECTS: usize = 5;

/// Does the work while a visitor comes through Traefik twice a second, so that the app does not nap again meanwhile.
pub(crate) async fn while_visited<T>(host: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    let visits = async {
        let mut visitor = Caller::fresh(TRAEFIK, host);
        loop {
            visitor.follow(&Call::get("/visit"), FEW_REDIRECTS).await?.reply.ensure_from_app()?;
            sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        done = work => done,
        stopped = visits => stopped,
    }
}
