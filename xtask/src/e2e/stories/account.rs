//! `KubeNap`'s account may do what `KubeNap` does, and not more: its roles and the admission policy refuse the rest.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::members::{HOME, RELEASE};
use crate::e2e::world::{Space, eventually};

const APP: &str = "held";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/{}/deployments";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices";

/// A try with the account's token: what it is, method, path below, body.
pub(super) struct Try {
    pub(super) what: &'static str,
    method: &'static str,
    path: String,
    body: Value,
}

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.deploy(&App::new(APP)).await?;
    let account = Account::of(space).await?;
    let theirs = theirs(space).await?;
    let (mut done, mut refused) = (0, 0);
    for attempt in own(space) {
        account.send(&attempt).await.with_context(|| format!("{}: it must be allowed", attempt.what))?;
        done += 1;
    }
    until_policy_is_in_force(space, &account).await?;
    for attempt in foreign(space, &theirs) {
        match account.send(&attempt).await {
            Ok(_) => bail!("{}: it was allowed", attempt.what),
            Err(error) => ensure!(is_forbidden(&error), "{}: {error:#}", attempt.what),
        }
        refused += 1;
    }
    let after = space.deployment(APP).await?;
    let labels = after.metadata.labels.unwrap_or_default();
    ensure!(labels.len() == 1, "the account has changed labels: {labels:?}");
    Ok(vec![("allowed", done), ("refused", refused)])
}

/// An API server takes in a policy some time after it was made; what is tried until then changes nothing.
async fn until_policy_is_in_force(space: &Space, account: &Account) -> Result<()> {
    let path = format!("{}?dryRun=All", deployment(space));
    let label = json!({"metadata": {"labels": {"x": "y"}}});
    let dry = Try::new("a label, as a trial", "PATCH", path, label);
    eventually("the admission policy is in force", Duration::from_secs(60), async || {
        let refused = account.send(&dry).await.is_err_and(|error| is_forbidden(&error));
        ensure!(refused, "a label may still be changed");
        Ok(())
    })
    .await
}

/// What `KubeNap` itself does.
fn own(space: &Space) -> Vec<Try> {
    let note = json!({"metadata": {"annotations": {"kubenap/reason": "a test"}}, "spec": {"replicas": 2}});
    let back = json!({"metadata": {"annotations": {"kubenap/reason": null}}, "spec": {"replicas": 1}});
    let path = format!("{}/mine", at(SLICES, space));
    let leaving = json!({"endpoints": [{"addresses": ["10.88.0.250"], "conditions": {"ready": false, "terminating": true}}]});
    vec![
        Try::new("replicas and an annotation of its own", "PATCH", deployment(space), note),
        Try::new("the same back", "PATCH", deployment(space), back),
        Try::new("a slice with its mark", "POST", at(SLICES, space), slice("mine", Some("kubenap.dev"))),
        Try::new("its slice written anew", "PUT", path.clone(), slice("mine", Some("kubenap.dev"))),
        Try::new("its slice's endpoints leaving", "PATCH", path.clone(), leaving),
        Try::new("its slice taken away", "DELETE", path, json!({})),
        Try::new(
            "its ConfigMap",
            "PATCH",
            own_map("kubenap-baseline"),
            json!({"binaryData": {"test": null}}),
        ),
        // For what follows.
        Try::new(
            "another slice with its mark",
            "POST",
            at(SLICES, space),
            slice("kept", Some("kubenap.dev")),
        ),
    ]
}

fn own_map(name: &str) -> String {
    format!("/api/v1/namespaces/{HOME}/configmaps/{name}")
}

/// What somebody with its token might like to do.
fn foreign(space: &Space, theirs: &str) -> Vec<Try> {
    let kept = format!("{}/kept", at(SLICES, space));
    let theirs = format!("{}/{theirs}", at(SLICES, space));
    let template = |change: Value| json!({"spec": {"template": change}});
    let meta = |change: Value| json!({"metadata": change});
    let container = json!({"name": "app", "env": [{"name": "EXTRA", "value": "1"}]});
    let label = |value: &str| json!({"endpointslice.kubernetes.io/managed-by": value});
    let list = vec![
        Try::strategic(
            "a variable in the template",
            deployment(space),
            template(json!({"spec": {"containers": [container]}})),
        ),
        Try::new(
            "a label of the template",
            "PATCH",
            deployment(space),
            template(json!({"metadata": {"labels": {"x": "y"}}})),
        ),
        Try::new("a label", "PATCH", deployment(space), meta(json!({"labels": {"x": "y"}}))),
        Try::new(
            "the label that opts in",
            "PATCH",
            deployment(space),
            meta(json!({"labels": {"kubenap/enabled": null}})),
        ),
        Try::new(
            "somebody's annotation",
            "PATCH",
            deployment(space),
            meta(json!({"annotations": {"example.com/x": "y"}})),
        ),
        Try::new(
            "a revision taken away",
            "PATCH",
            deployment(space),
            meta(json!({"annotations": {"deployment.kubernetes.io/revision": null}})),
        ),
        Try::new("a finalizer", "PATCH", deployment(space), meta(json!({"finalizers": ["example.com/x"]}))),
        Try::new("a pause", "PATCH", deployment(space), json!({"spec": {"paused": true}})),
        Try::new(
            "the strategy",
            "PATCH",
            deployment(space),
            json!({"spec": {"strategy": {"type": "Recreate", "rollingUpdate": null}}}),
        ),
        Try::new(
            "replicas with a label",
            "PATCH",
            deployment(space),
            json!({"metadata": {"labels": {"x": "y"}}, "spec": {"replicas": 0}}),
        ),
        Try::new("a Deployment's end", "DELETE", deployment(space), json!({})),
        Try::new("a slice without a mark", "POST", at(SLICES, space), slice("plain", None)),
        Try::new(
            "a slice with another's mark",
            "POST",
            at(SLICES, space),
            slice("other", Some("endpointslice-controller.k8s.io")),
        ),
        Try::new(
            "its own slice with the mark changed",
            "PATCH",
            kept.clone(),
            meta(json!({"labels": label("example.com")})),
        ),
        Try::new(
            "its own slice moved to another Service",
            "PATCH",
            kept,
            meta(json!({"labels": {"kubernetes.io/service-name": "other"}})),
        ),
        Try::new("the app's slice emptied", "PATCH", theirs.clone(), json!({"endpoints": []})),
        Try::new(
            "the app's slice taken over",
            "PATCH",
            theirs.clone(),
            meta(json!({"labels": label("kubenap.dev")})),
        ),
        Try::new("the app's slice deleted", "DELETE", theirs, json!({})),
        Try::new("Secrets", "GET", format!("/api/v1/namespaces/{}/secrets", space.namespace), json!(null)),
        Try::new("another ConfigMap", "GET", own_map("kube-root-ca.crt"), json!(null)),
        Try::new("a pod", "POST", format!("/api/v1/namespaces/{}/pods", space.namespace), pod()),
        Try::new(
            "a Lease elsewhere",
            "POST",
            format!("/apis/coordination.k8s.io/v1/namespaces/{}/leases", space.namespace),
            json!({"metadata": {"name": "x"}}),
        ),
    ];
    list
}

impl Try {
    pub(super) fn new(what: &'static str, method: &'static str, path: String, body: Value) -> Self {
        Self { what, method, path, body }
    }

    fn strategic(what: &'static str, path: String, body: Value) -> Self {
        Self { what, method: "STRATEGIC", path, body }
    }
}

/// Somebody who has the token of `KubeNap`'s account and nothing else.
pub(super) struct Account {
    client: kube::Client,
}

impl Account {
    pub(super) async fn of(space: &Space) -> Result<Self> {
        let token = space.world.kubectl(&["-n", HOME, "create", "token", RELEASE]).await?;
        Ok(Self { client: space.world.client_with(token.trim()).await? })
    }

    pub(super) async fn send(&self, attempt: &Try) -> Result<Value> {
        let (method, media) = match attempt.method {
            "STRATEGIC" => ("PATCH", "application/strategic-merge-patch+json"),
            "PATCH" => ("PATCH", "application/merge-patch+json"),
            other => (other, "application/json"),
        };
        let body = if attempt.body.is_null() { Vec::new() } else { attempt.body.to_string().into_bytes() };
        let request = http::Request::builder().method(method).uri(&attempt.path);
        let request = request.header("content-type", media).body(body)?;
        Ok(self.client.request(request).await?)
    }
}

pub(super) fn is_forbidden(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403)
}

/// The slice that the control plane keeps for the app.
async fn theirs(space: &Space) -> Result<String> {
    let of_app = ["get", "endpointslices", "-l", "kubernetes.io/service-name=held", "-o", "name"];
    let names = space.kubectl(&of_app).await?;
    let name = names.lines().next().and_then(|line| line.rsplit('/').next());
    Ok(name.context("the app's Service has no EndpointSlice")?.to_owned())
}

fn at(path: &str, space: &Space) -> String {
    path.replace("{}", &space.namespace)
}

fn deployment(space: &Space) -> String {
    format!("{}/{APP}", at(DEPLOYMENTS, space))
}

fn slice(name: &str, mark: Option<&str>) -> Value {
    let mut labels = json!({"kubernetes.io/service-name": "nowhere"});
    if let Some(mark) = mark {
        labels["endpointslice.kubernetes.io/managed-by"] = mark.into();
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": labels}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.88.0.250"]}], "ports": [{"name": "http", "port": 16000}],
    })
}

fn pod() -> Value {
    json!({"metadata": {"name": "x"}, "spec": {"containers": [{"name": "x", "image": "kubenap.test/app:1"}]}})
}
