//! A sandbox, a client of it, and a few objects.
#![expect(clippy::unwrap_used, reason = "a test that cannot set its world up has failed")]
use kube::Client;
use kubenap_sandbox::{Sandbox, Settings};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;
use tower::ServiceExt;

/// The sandbox's router as a client: the request's body becomes axum's.
pub(crate) fn client(sandbox: &Sandbox) -> Client {
    let router = sandbox.router();
    let service =
        router.map_request(|request: http::Request<kube::client::Body>| request.map(axum::body::Body::new));
    Client::new(service, "default")
}

pub(crate) fn without_sockets() -> (Sandbox, Client) {
    let sandbox = Sandbox::start(Settings::default());
    let client = client(&sandbox);
    (sandbox, client)
}

/// A Deployment `web` and a Service `web` in the namespace default.
pub(crate) fn put_web(sandbox: &Sandbox, replicas: u32, pod_annotations: &Value) {
    sandbox.put(deployment(replicas, pod_annotations)).unwrap();
    sandbox
        .put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "namespace": "default" },
            "spec": { "selector": { "app": "web" }, "ports": [{ "name": "http", "port": 80, "targetPort": "http" }] },
        }))
        .unwrap();
}

pub(crate) fn deployment(replicas: u32, pod_annotations: &Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": { "app": "web" } },
            "template": {
                "metadata": { "labels": { "app": "web" }, "annotations": pod_annotations },
                "spec": { "containers": [{
                    "name": "app", "image": "app:1", "ports": [{ "name": "http", "containerPort": 8080 }],
                }]},
            },
        },
    })
}

pub(crate) fn lease(name: &str) -> Value {
    json!({ "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name, "namespace": "default" } })
}

pub(crate) fn typed<K: DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// The code of a refusal.
pub(crate) fn code<T: std::fmt::Debug>(outcome: kube::Result<T>) -> u16 {
    match outcome {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("a refusal was expected: {other:?}"),
    }
}

pub(crate) fn ready_replicas(sandbox: &Sandbox) -> u64 {
    sandbox.get("deployments", "default", "web").unwrap()["status"]["readyReplicas"].as_u64().unwrap_or(0)
}

/// Looks again and again, on tokio's clock, until it is true.
pub(crate) async fn until(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..2000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not seen in ten seconds: {what}");
}
