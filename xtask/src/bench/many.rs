//! (e) Ten thousand enrolled apps on the real API server: what KubeNap needs for them, and what it leaves alone.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use futures::stream;
use http::Request;
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::apps::eventually;
use super::figures::{Part, Row};
use super::launcher::Bench;
use super::process::Usage;
use crate::e2e::say;

/// How many in one namespace.
const EACH: usize = 100;
/// Calls to the API server at a time.
const AT_ONCE: usize = 32;
/// Resident memory of a member.
const MEMORY: u64 = 64 << 20;
/// From the start of a member to its readiness.
const START: Duration = Duration::from_secs(10);
/// What acts on such objects; stopped meanwhile, so that they stay as they were written.
const ACTORS: [&str; 3] = ["controllers", "scheduler", "kube-proxy"];
const FLAGS: [&str; 2] = ["--idle-after", "1h"];

pub(crate) async fn run(bench: &Bench) -> Result<Part> {
    let count = bench.count(10_000, 500);
    // What earlier parts left is taken away by those who are stopped next.
    eventually("no enrolled app is left", Duration::from_secs(180), async || {
        let enrolled = ListParams::default().labels("kubenap/enabled");
        let left = Api::<Deployment>::all(bench.client.clone()).list(&enrolled).await?.items.len();
        ensure!(left == 0, "{left} are");
        Ok(())
    })
    .await?;
    for actor in ACTORS {
        signal(bench, actor, Signal::STOP)?;
    }
    let measured = filled(bench, count).await;
    let cleared = clear(bench, count).await;
    for actor in ACTORS {
        signal(bench, actor, Signal::CONT)?;
    }
    let part = measured?;
    cleared?;
    Ok(part)
}

async fn filled(bench: &Bench, count: usize) -> Result<Part> {
    let begun = Instant::now();
    fill(bench, count).await?;
    say(&format!("{count} apps were made in {:.0} s", begun.elapsed().as_secs_f64()));
    // Its own caches have to take them in.
    sleep(Duration::from_secs(3)).await;
    let took = bench.members.start(1, &FLAGS).await?;
    let at_start = one(bench).await?;
    sleep(Duration::from_secs(20)).await;
    let known = bench.members.sum("kubenap_apps").await?;
    let log = bench.log()?;
    let before = one(bench).await?;
    sleep(Duration::from_secs(60)).await;
    let after = one(bench).await?;
    let writes = log.writes()?;
    let (leases, others): (Vec<_>, Vec<_>) = writes.iter().partition(|(what, _)| what.ends_with(" leases"));
    let sum = |of: &[(&String, &usize)]| of.iter().map(|(_, count)| **count).sum::<usize>();
    let other_names =
        others.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ");
    bench.members.stop_all().await?;

    #[expect(clippy::cast_precision_loss, reason = "counts and memory sizes fit")]
    let number = |value: u64| value as f64;
    let mib = |bytes: u64| number(bytes) / f64::from(1 << 20);
    let resident = mib(after.resident);
    let busy = after.busy.saturating_sub(before.busy).as_secs_f64() / 60.0;
    let rows = vec![
        Row::new("apps known", known, format!("{known:.0}"), format!("{count} made"))
            .promised((known - number(count as u64)).abs() < 0.5),
        Row::new("resident memory", resident, format!("{resident:.1} MiB"), "at most 64 MiB")
            .promised(after.resident <= MEMORY),
        Row::new(
            "resident memory just after the start",
            mib(at_start.resident),
            format!("{:.1} MiB", mib(at_start.resident)),
            "",
        ),
        Row::new(
            "the most that was ever resident",
            mib(after.peak),
            format!("{:.1} MiB", mib(after.peak)),
            "while the first lists came in",
        ),
        Row::new(
            "start to ready",
            took.as_secs_f64(),
            format!("{:.1} s", took.as_secs_f64()),
            "at most 10 s",
        )
        .promised(took <= START),
        Row::new(
            "processor time until ready",
            at_start.busy.as_secs_f64(),
            format!("{:.1} s", at_start.busy.as_secs_f64()),
            "of one processor",
        ),
        Row::new("processor in a quiet minute", busy, format!("{:.1} %", busy * 100.0), "of one processor"),
        Row::new(
            "writes in a quiet minute, Leases left out",
            number(sum(&others) as u64),
            sum(&others).to_string(),
            if other_names.is_empty() { "0".to_owned() } else { other_names },
        )
        .promised(others.is_empty()),
        Row::new("Lease renewals in it", number(sum(&leases) as u64), sum(&leases).to_string(), ""),
    ];
    Ok(Part {
        name: "e",
        title: "Many enrolled apps",
        how: format!(
            "{count} enrolled Deployments of one ready pod each, with a Service, its EndpointSlice and an Ingress, in \
             namespaces of {EACH}, on the real API server. They are written as controllers and a kubelet would have left \
             them, status included, with controller manager, scheduler and kube-proxy stopped meanwhile: to start so many fake \
             pods through those would take longer than all the rest of this. The Ingresses have a class of nobody, so that \
             Traefik leaves them alone. One member with default settings; memory and processor time as the kernel counts them; writes from \
             the audit log, over one minute that begins 20 s after the start."
        ),
        rows,
        plots: Vec::new(),
    })
}

async fn one(bench: &Bench) -> Result<Usage> {
    bench.members.usage().await?.first().copied().context("no member runs")
}

fn signal(bench: &Bench, actor: &str, signal: Signal) -> Result<()> {
    kill_process(bench.cluster.pid(actor)?, signal).with_context(|| format!("stop or go on with {actor}"))
}

fn namespace(nth: usize) -> String {
    // Another one each time: what an earlier run made may still be on its way out.
    format!("many-{}-{:03}", std::process::id(), nth / EACH)
}

async fn fill(bench: &Bench, count: usize) -> Result<()> {
    for first in (0..count).step_by(EACH) {
        let name = namespace(first);
        bench.make_namespace(&name).await?;
        // Its controller would make this one, and no pod is taken without.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        post(&bench.client, &format!("/api/v1/namespaces/{name}/serviceaccounts"), account).await?;
    }
    let bench = Arc::new(bench.client.clone());
    let all = stream::iter((0..count).map(|nth| {
        let client = Arc::clone(&bench);
        async move { make(&client, nth).await.with_context(|| format!("make app {nth}")) }
    }));
    let mut made = all.buffer_unordered(AT_ONCE);
    let mut done = 0;
    while let Some(result) = made.next().await {
        result?;
        done += 1;
        if done % 2_000 == 0 {
            say(&format!("{done} of {count} apps are made"));
        }
    }
    Ok(())
}

/// One app with all that is around it, as it looks when it is awake and settled.
async fn make(client: &kube::Client, nth: usize) -> Result<()> {
    let space = namespace(nth);
    let name = format!("app-{nth:05}");
    let (high, low) = (u8::try_from(nth / 250)?, u8::try_from(nth % 250 + 1)?);
    let address = Ipv4Addr::new(10, 99, high, low).to_string();
    let core = format!("/api/v1/namespaces/{space}");
    let apps = format!("/apis/apps/v1/namespaces/{space}/deployments");
    let labels = json!({"app.kubernetes.io/name": name});
    let variables: Vec<_> = (0..12)
        .map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("value {n} of {name}")}))
        .collect();
    let template = json!({
        "metadata": {"labels": labels},
        "spec": {"containers": [{
            "name": "app", "image": "registry.example/team/app:1.2.3", "env": variables,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        }]},
    });
    let deployment = post(
        client,
        &apps,
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "labels": {"kubenap/enabled": "true", "app.kubernetes.io/name": name}},
            "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
        }),
    )
    .await?;
    put_status(client, &format!("{apps}/{name}"), deployment, json!({
        "observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
    }))
    .await?;
    let mut pod_spec = template["spec"].clone();
    pod_spec["nodeName"] = json!("fake");
    let pod_name = format!("{name}-5d8f7c9b6d-x{:04}", nth % 10_000);
    let pod = post(client, &format!("{core}/pods"), json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": pod_name, "labels": {"app.kubernetes.io/name": name, "pod-template-hash": "5d8f7c9b6d"}},
        "spec": pod_spec,
    }))
    .await?;
    let uid = pod["metadata"]["uid"].clone();
    let conditions = json!([{"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"}]);
    put_status(
        client,
        &format!("{core}/pods/{pod_name}"),
        pod,
        json!({
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions,
        }),
    )
    .await?;
    post(
        client,
        &format!("{core}/services"),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }),
    )
    .await?;
    post(client, &format!("/apis/discovery.k8s.io/v1/namespaces/{space}/endpointslices"), json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{name}-abcde"), "labels": {
            "kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        }},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": "fake", "targetRef": {"kind": "Pod", "name": pod_name, "namespace": space, "uid": uid}}],
    }))
    .await?;
    let backend = json!({"service": {"name": name, "port": {"name": "http"}}});
    post(
        client,
        &format!("/apis/networking.k8s.io/v1/namespaces/{space}/ingresses"),
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
            "spec": {"ingressClassName": "nobody", "rules": [{"host": format!("{name}.many.test"),
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]},
        }),
    )
    .await?;
    Ok(())
}

async fn post(client: &kube::Client, path: &str, object: Value) -> Result<Value> {
    call(client, http::Method::POST, path, &object).await
}

async fn put_status(client: &kube::Client, path: &str, mut object: Value, status: Value) -> Result<()> {
    object["status"] = status;
    call(client, http::Method::PUT, &format!("{path}/status"), &object).await.map(drop)
}

async fn call(client: &kube::Client, method: http::Method, path: &str, body: &Value) -> Result<Value> {
    let request =
        Request::builder().method(method.clone()).uri(path).header("content-type", "application/json");
    let answer = client.request(request.body(serde_json::to_vec(body)?)?).await;
    answer.with_context(|| format!("{method} {path}"))
}

/// Takes everything out again before the controllers see it: they would act on all of it.
async fn clear(bench: &Bench, count: usize) -> Result<()> {
    let namespaces = (0..count).step_by(EACH).map(namespace);
    let kinds = [
        "/api/v1/namespaces/{}/pods?gracePeriodSeconds=0",
        "/apis/apps/v1/namespaces/{}/deployments",
        "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
        "/apis/networking.k8s.io/v1/namespaces/{}/ingresses",
    ];
    let paths = namespaces.flat_map(|space| kinds.map(|kind| kind.replace("{}", &space)));
    let deletes = stream::iter(paths.map(|path| async move {
        call(&bench.client, http::Method::DELETE, &path, &json!({})).await.map(drop)
    }));
    let results: Vec<Result<()>> = deletes.buffer_unordered(8).collect().await;
    results.into_iter().collect::<Result<()>>()?;
    for first in (0..count).step_by(EACH) {
        let path = format!("/api/v1/namespaces/{}", namespace(first));
        call(&bench.client, http::Method::DELETE, &path, &json!({})).await?;
    }
    Ok(())
}
