//! Apps that cannot start are told within two seconds of the fact being in the API, once, and healed they wake.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, ResourceQuota};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::http::{Call, Reply};
use crate::e2e::members::Settings;
use crate::e2e::stalls::Stalls;
use crate::e2e::world::{Space, eventually, throughout};

/// How soon what the API shows must reach those who ask.
const SOON: Duration = Duration::from_secs(2);

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.world.members.ensure(&Settings::default()).await?;
    let mut longest = Duration::ZERO;
    let mut told = 0;
    for (what, lag) in [
        ("a missing image", template(space, "image", image("127.0.0.1:1/missing:1"), image(OWN)).await),
        ("a crash loop", template(space, "crash-loop", boot("never"), boot("0")).await),
        ("a probe that never succeeds", never_ready(space).await),
        ("a missing ConfigMap", config(space).await),
        ("no node", unschedulable(space).await),
        ("a quota", quota(space).await),
        ("admission of pods", admission(space).await),
        ("admission of the wake itself", denied(space).await),
    ] {
        longest = longest.max(lag.context(what)?);
        told += 1;
    }
    Ok(vec![("troubles", told), ("longest ms", u64::try_from(longest.as_millis())?)])
}

const OWN: &str = "kubenap.test/app:1";

fn container(change: Value) -> Value {
    let mut container = change;
    container["name"] = "app".into();
    json!({"spec": {"template": {"spec": {"containers": [container]}}}})
}

fn image(name: &str) -> Value {
    container(json!({"image": name}))
}

fn boot(milliseconds: &str) -> Value {
    container(json!({"env": [{"name": "BOOT_MS", "value": milliseconds}]}))
}

/// An app that sleeps, of the name of its trouble.
async fn sleeping(space: &Space, name: &str) -> Result<()> {
    asleep(space, &App::new(name), name).await
}

async fn asleep(space: &Space, app: &App, name: &str) -> Result<()> {
    space.deploy(app).await?;
    space.nap(name).await?;
    space.until_asleep(name, name).await
}

/// Changes a Deployment as `kubectl set` does, list items merged by their names.
async fn set(space: &Space, name: &str, patch: &Value) -> Result<()> {
    let api = space.api::<Deployment>();
    api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
    Ok(())
}

async fn template(space: &Space, trouble: &'static str, breaks: Value, mends: Value) -> Result<Duration> {
    sleeping(space, trouble).await?;
    set(space, trouble, &breaks).await?;
    let lag = fails(space, trouble, trouble).await?;
    set(space, trouble, &mends).await?;
    healed(space, trouble).await?;
    Ok(lag)
}

async fn never_ready(space: &Space) -> Result<Duration> {
    const NAME: &str = "not-ready";
    asleep(space, &App::new(NAME).annotate("wakeTimeout", "8s"), NAME).await?;
    let probe =
        |port: Value| container(json!({"readinessProbe": {"httpGet": {"path": "/healthz", "port": port}}}));
    set(space, NAME, &probe(json!(9999))).await?;
    let begun = Instant::now();
    let held = space.neighbour(NAME).await?.send(&Call::get("/")).await?;
    ensure!(held.status == 503, "held for all of its time, then {}", held.status);
    let reply = eventually("it is told as never ready", Duration::from_secs(30), async || {
        let reply = space.neighbour(NAME).await?.send(&Call::get("/")).await?;
        named(&reply, NAME)?;
        Ok(begun.elapsed())
    })
    .await?;
    told_once(space, NAME).await?;
    set(space, NAME, &probe(json!("http"))).await?;
    healed(space, NAME).await?;
    Ok(reply.saturating_sub(Duration::from_secs(8)))
}

async fn config(space: &Space) -> Result<Duration> {
    const NAME: &str = "config";
    sleeping(space, NAME).await?;
    set(space, NAME, &container(json!({"envFrom": [{"configMapRef": {"name": "settings"}}]}))).await?;
    let lag = fails(space, NAME, NAME).await?;
    let settings =
        serde_json::from_value(json!({"metadata": {"name": "settings"}, "data": {"COLOUR": "blue"}}))?;
    space.api::<ConfigMap>().create(&PostParams::default(), &settings).await?;
    healed(space, NAME).await?;
    Ok(lag)
}

/// What a cluster autoscaler does: the pod waits, and a node that fits it comes.
async fn unschedulable(space: &Space) -> Result<Duration> {
    const NAME: &str = "unschedulable";
    sleeping(space, NAME).await?;
    let place = format!("{}.test/place", space.namespace);
    set(space, NAME, &json!({"spec": {"template": {"spec": {"nodeSelector": {place.as_str(): "here"}}}}}))
        .await?;
    let lag = fails(space, NAME, NAME).await?;
    let nodes: Api<Node> = Api::all(space.world.client.clone());
    let node =
        nodes.list(&ListParams::default()).await?.items.into_iter().find_map(|node| node.metadata.name);
    let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {place.as_str(): value}}}));
    let node = node.context("the cluster has no node")?;
    nodes.patch(&node, &PatchParams::default(), &label(json!("here"))).await?;
    let healed = healed(space, NAME).await;
    nodes.patch(&node, &PatchParams::default(), &label(Value::Null)).await?;
    healed.map(|()| lag)
}

async fn quota(space: &Space) -> Result<Duration> {
    const NAME: &str = "quota";
    sleeping(space, NAME).await?;
    let quota =
        serde_json::from_value(json!({"metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}}))?;
    space.api::<ResourceQuota>().create(&PostParams::default(), &quota).await?;
    no_pod_can_be_made(space).await?;
    let lag = fails(space, NAME, NAME).await?;
    // Long enough for Kubernetes' own pauses to have grown far beyond ours.
    sleep(Duration::from_secs(25)).await;
    space.api::<ResourceQuota>().delete("none", &DeleteParams::default()).await?;
    healed(space, NAME).await?;
    Ok(lag)
}

async fn admission(space: &Space) -> Result<Duration> {
    const NAME: &str = "refused";
    sleeping(space, NAME).await?;
    let pods =
        json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    let policy = Policy::new(space, "no-pods", &pods, "false").await?;
    no_pod_can_be_made(space).await?;
    let lag = fails(space, NAME, NAME).await?;
    policy.remove().await?;
    healed(space, NAME).await?;
    Ok(lag)
}

async fn denied(space: &Space) -> Result<Duration> {
    const NAME: &str = "denied";
    sleeping(space, NAME).await?;
    let deployments = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"],
        "resources": ["deployments"]});
    let up = format!("object.metadata.name != '{NAME}' || object.spec.replicas <= oldObject.spec.replicas");
    let policy = Policy::new(space, "no-wake", &deployments, &up).await?;
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    eventually("the policy is in force", Duration::from_secs(60), async || {
        let patch = Patch::Merge(json!({"spec": {"replicas": 1}}));
        let tried = space.api::<Deployment>().patch(NAME, &dry, &patch).await;
        ensure!(tried.is_err(), "a Deployment can still be scaled up");
        Ok(())
    })
    .await?;
    let (begun, stalls) = (Instant::now(), Stalls::since_now());
    let reply = space.neighbour(NAME).await?.send(&Call::get("/")).await?;
    let lag = begun.elapsed();
    named(&reply, NAME)?;
    ensure_soon(lag, stalls.lost()).context("after it was asked for")?;
    told_once(space, NAME).await?;
    let phase = space.phase(NAME).await?;
    ensure!(phase == "asleep" && space.replicas(NAME).await? == 0, "phase {phase}");
    let from = space.world.audit.now()?;
    policy.remove().await?;
    healed(space, NAME).await?;
    let writes = space.world.audit.writes_since(from, &space.namespace, NAME)?;
    let wakes = writes.iter().filter(|write| write.phase.as_deref() == Some("waking")).count();
    ensure!(wakes == 1, "one wake: {writes:?}");
    Ok(lag)
}

/// Asks for a sleeping app that is broken; how long after the API showed it the answer came.
async fn fails(space: &Space, name: &str, reason: &str) -> Result<Duration> {
    let (mut visitor, stalls) = (space.neighbour(name).await?, Stalls::since_now());
    let told = async {
        let reply = visitor.send(&Call::get("/")).await?;
        let at = Instant::now();
        named(&reply, reason)?;
        anyhow::Ok(at)
    };
    let shown = eventually("the API shows what is wrong", Duration::from_secs(240), async || {
        ensure!(shows(space, name, reason).await?, "nothing says {reason}");
        Ok((Instant::now(), stalls.lost()))
    });
    let (told, (shown, lost)) = futures::future::try_join(told, shown).await?;
    let lag = told.saturating_duration_since(shown);
    ensure_soon(lag, stalls.lost().saturating_sub(lost)).context("after the API showed it")?;
    told_once(space, name).await?;
    throughout(Duration::from_secs(3), async || {
        let (phase, replicas) = (space.phase(name).await?, space.replicas(name).await?);
        ensure!(phase == "waking" && replicas == 1, "phase {phase}, {replicas} replicas");
        named(&space.neighbour(name).await?.send(&Call::get("/")).await?, reason)
    })
    .await?;
    Ok(lag)
}

fn ensure_soon(lag: Duration, lost: Duration) -> Result<()> {
    ensure!(lag <= SOON + lost, "told after {lag:?}, of which the machine stood still for {lost:?}");
    Ok(())
}

/// Whether pods or ReplicaSets say it by now.
async fn shows(space: &Space, name: &str, reason: &str) -> Result<bool> {
    let own = ListParams::default().labels(&format!("app={name}"));
    let pods = space.api::<Pod>().list(&own).await?;
    let text = serde_json::to_string(&pods.items.iter().map(|pod| &pod.status).collect::<Vec<_>>())?;
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    Ok(match reason {
        "image" => says(&["ErrImagePull", "ImagePullBackOff"]),
        "crash-loop" => says(&["CrashLoopBackOff"]),
        "unschedulable" => says(&["\"Unschedulable\""]),
        "config" => says(&["CreateContainerConfigError"]),
        _ => {
            let sets = space.api::<ReplicaSet>().list(&own).await?;
            let mut conditions = sets.items.into_iter().filter_map(|set| set.status?.conditions).flatten();
            conditions.any(|one| one.type_ == "ReplicaFailure" && one.status == "True")
        }
    })
}

fn named(reply: &Reply, reason: &str) -> Result<()> {
    let header =
        |name: &str| reply.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    ensure!(reply.status == 503, "{} {:?}", reply.status, reply.text());
    let class = header("x-kubenap-reason");
    ensure!(class == reason, "reason {class:?} instead of {reason:?}: {:?}", reply.text());
    ensure!(
        header("retry-after").parse().is_ok_and(|after: u64| (1..=60).contains(&after)),
        "{:?}",
        reply.headers
    );
    ensure!(reply.text().contains("the app cannot start"), "{:?}", reply.text());
    Ok(())
}

/// One Event says that the wake failed, also after a while.
async fn told_once(space: &Space, name: &str) -> Result<()> {
    let count = async || {
        let events = space.events(name).await?;
        let failed: Vec<_> = events.into_iter().filter(|(reason, _)| reason == "WakeFailed").collect();
        ensure!(failed.len() == 1, "Events: {failed:?}");
        Ok(())
    };
    eventually(&format!("{name} has its Event"), Duration::from_secs(60), count).await?;
    throughout(Duration::from_secs(2), count).await
}

/// Nothing but the next requests wakes it.
async fn healed(space: &Space, name: &str) -> Result<()> {
    eventually(&format!("{name} is healed and answers"), Duration::from_secs(240), async || {
        space.neighbour(name).await?.send(&Call::get("/healed")).await?.ensure_from_app()
    })
    .await?;
    space.until_awake(name, name, 1).await
}

async fn no_pod_can_be_made(space: &Space) -> Result<()> {
    let pod = json!({"metadata": {"name": "try"}, "spec": {"containers": [{"name": "app", "image": OWN}]}});
    let pod: Pod = serde_json::from_value(pod)?;
    eventually("no pod can be made", Duration::from_secs(60), async || {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let tried = space.api::<Pod>().create(&dry, &pod).await;
        ensure!(tried.is_err(), "a pod can still be made");
        Ok(())
    })
    .await
}

/// A policy in force in one namespace.
struct Policy {
    policies: Api<ValidatingAdmissionPolicy>,
    bindings: Api<ValidatingAdmissionPolicyBinding>,
    name: String,
}

impl Policy {
    async fn new(space: &Space, name: &str, rule: &Value, expression: &str) -> Result<Self> {
        let name = format!("{}-{name}", space.namespace);
        let policies = Api::all(space.world.client.clone());
        let bindings = Api::all(space.world.client.clone());
        let policy = json!({"metadata": {"name": name}, "spec": {"failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{"expression": expression, "message": "not on Fridays"}]}});
        let here = json!({"matchLabels": {"kubernetes.io/metadata.name": space.namespace}});
        let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": here}}});
        policies.create(&PostParams::default(), &serde_json::from_value(policy)?).await?;
        bindings.create(&PostParams::default(), &serde_json::from_value(binding)?).await?;
        Ok(Self { policies, bindings, name })
    }

    async fn remove(self) -> Result<()> {
        self.bindings.delete(&self.name, &DeleteParams::default()).await?;
        self.policies.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }
}
