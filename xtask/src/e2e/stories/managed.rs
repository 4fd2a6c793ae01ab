//! Hooks that `KubeNap` puts in place itself: there while an app sleeps, gone while it is awake, and nobody else's fields.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::Counts;
use super::account::{Account, Try, is_forbidden};
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{self, Call, Caller};
use crate::e2e::members::{HOME, Settings};
use crate::e2e::world::{Space, eventually};

/// Reached by an Ingress and by an `IngressRoute`, each with the form that is rendered for it.
const APPS: [(&str, &str); 2] = [("by-ingress", "ingress"), ("by-route", "ingressroute")];
/// A client comes back that often until Traefik, through kube-proxy, finds the pod.
const MOST_REDIRECTS: usize = 8;
/// What begins the names of its managers, of which each app has one.
const MANAGERS: &str = "kubenap-proxies-";
/// Every kind of which there may be a piece, with where it lies.
const KINDS: [&str; 6] = [
    "services",
    "endpointslices",
    "ingresses",
    "middlewares.traefik.io",
    "traefikservices.traefik.io",
    "ingressroutes.traefik.io",
];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let flags = vec![("manage-proxies", json!(true)), ("proxy-listen", json!(["traefik=0.0.0.0:8080"]))];
    space.world.members.ensure(&Settings { flags, ..Settings::default() }).await?;
    let (mut naps, mut requests) = (0, 0);
    for (app, form) in APPS {
        deploy(space, app).await.with_context(|| app.to_owned())?;
        let before = held(space).await?;
        ensure!(before.is_empty(), "before its first nap: {before:?}");
        for nap in 1..=2 {
            requests += nap_and_wake(space, app, form).await.with_context(|| format!("{app}, nap {nap}"))?;
            naps += 1;
        }
    }
    let (app, _) = APPS[0];
    contested(space, app).await.context("a field that somebody else holds")?;
    let refused = overreached(space, app).await.context("the account's reach")?;
    opted_out(space, app).await.context("the label is taken away while it sleeps")?;
    Ok(vec![("naps", naps + 1), ("requests through Traefik", requests), ("tries refused", refused)])
}

async fn deploy(space: &Space, app: &str) -> Result<()> {
    let spec = App::new(app).annotate("substitute", "false").annotate("proxy", "traefik").host(&host(app));
    space.deploy(&if app == "by-ingress" { spec } else { spec.by_ingress_route() }).await?;
    routed(space, app).await
}

/// Traefik and the leader know its route: before that, the leader refuses a wish.
async fn routed(space: &Space, app: &str) -> Result<()> {
    eventually("it is reached through Traefik", Duration::from_secs(30), async || {
        http::get(TRAEFIK, &host(app), "/").await?.ensure_from_app()?;
        let status = space.status(app).await?;
        ensure!(status["label"] != "hook-missing", "{status}");
        Ok(())
    })
    .await
}

/// Asleep, with what `kubenap render` prints on the cluster; then awake, with nothing of it. A visitor comes all the time.
async fn nap_and_wake(space: &Space, app: &str, form: &str) -> Result<u64> {
    space.nap(app).await?;
    asleep(space, app).await?;
    let there = held(space).await?;
    let told = rendered(space, app, form).await?;
    ensure!(there.len() == told.len(), "there is {there:?}, rendered is {told:?}");
    for piece in &told {
        let same = |object: &&Value| {
            let of = |field: &str| object["metadata"][field] == piece["metadata"][field];
            object["kind"] == piece["kind"] && of("name") && of("namespace")
        };
        let object = there.iter().find(same).with_context(|| format!("{piece} is not there"))?;
        ensure!(covers(object, piece), "there is {object}, rendered is {piece}");
    }
    let mut visitor = Caller::fresh(TRAEFIK, host(app));
    let journey = visitor.follow(&Call::get("/wake?a=%2Fb"), MOST_REDIRECTS).await?;
    journey.reply.ensure_from_app().with_context(|| format!("after {:?}", journey.redirects))?;
    let mut requests = 1;
    // While Traefik hears of the pods, and while the hook goes.
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let journey = visitor.follow(&Call::get("/on"), MOST_REDIRECTS).await?;
        journey.reply.ensure_from_app().with_context(|| format!("request {requests} after the wake"))?;
        requests += 1;
        let left = held(space).await?;
        if left.is_empty() && space.annotation(app, "kubenap/hookPieces").await?.is_none() {
            break;
        }
        ensure!(Instant::now() < end, "still there: {left:?}");
        sleep(Duration::from_millis(100)).await;
    }
    for _ in 0..20 {
        visitor.send(&Call::get("/after")).await?.ensure_from_app().context("after the hook has gone")?;
        requests += 1;
        sleep(Duration::from_millis(150)).await;
    }
    space.until_awake(app, app, 1).await?;
    Ok(requests)
}

/// What somebody else holds with another value keeps the app awake, says who and what, and stays.
async fn contested(space: &Space, app: &str) -> Result<()> {
    let field = "traefik.ingress.kubernetes.io/service.nativelb";
    let theirs = format!("{field}=false");
    space.kubectl(&["annotate", "service", app, &theirs, "--field-manager=helm"]).await?;
    // What was looked at before counts for two minutes.
    let ran = space.world.kubenap(&["nap", &space.id(app)], Duration::from_secs(90)).await?;
    ensure!(ran.code != 0, "it fell asleep: {}", ran.stdout);
    eventually("the reason names the holder and the field", Duration::from_secs(150), async || {
        let status = space.status(app).await?;
        let why = status["why"].as_str().unwrap_or_default();
        ensure!(why.contains("helm") && why.contains("nativelb"), "{status}");
        Ok(())
    })
    .await?;
    ensure!(space.replicas(app).await? == 1 && held(space).await?.is_empty(), "something was put in place");
    space.kubectl(&["annotate", "service", app, &format!("{field}-")]).await.map(drop)
}

/// What somebody with the account's token might like to do with the rights for hooks.
async fn overreached(space: &Space, app: &str) -> Result<u64> {
    let account = Account::of(space).await?;
    let service = format!("/api/v1/namespaces/{}/services", space.namespace);
    let ingress = format!("/apis/networking.k8s.io/v1/namespaces/{}/ingresses/{app}", space.namespace);
    let route = format!("/apis/traefik.io/v1alpha1/namespaces/{}/ingressroutes/by-route", space.namespace);
    let (own, port) = (format!("{service}/{app}"), json!([{"port": 80}]));
    let made = |labels: Value| json!({"metadata": {"name": "kubenap-made", "labels": labels}, "spec": {"ports": port.clone()}});
    let tries = [
        Try::new("a Service without the mark", "POST", service.clone(), made(json!({}))),
        Try::new(
            "the app's Service led elsewhere",
            "PATCH",
            own.clone(),
            json!({"spec": {"selector": {"a": "b"}}}),
        ),
        Try::new(
            "the mark on the app's Service",
            "PATCH",
            own.clone(),
            json!({"metadata": {"labels": {"kubenap/managed": "true"}}}),
        ),
        Try::new("the app's Service's end", "DELETE", own, json!({})),
        Try::new(
            "a Service with an outside address",
            "POST",
            service,
            json!({"metadata": {"name": "kubenap-made", "labels": {"kubenap/managed": "true"}},
                "spec": {"ports": port, "externalIPs": ["203.0.113.1"]}}),
        ),
        Try::new(
            "middlewares of somebody else's",
            "PATCH",
            ingress.clone(),
            json!({"metadata": {"annotations": {"traefik.ingress.kubernetes.io/router.middlewares": "evil@file"}}}),
        ),
        Try::new(
            "text of its own in NGINX",
            "PATCH",
            ingress.clone(),
            json!({"metadata": {"annotations": {"nginx.org/server-snippets": "return 200 $http_cookie;"}}}),
        ),
        Try::new(
            "an annotation of another kind",
            "PATCH",
            ingress.clone(),
            json!({"metadata": {"annotations": {"a": "b"}}}),
        ),
        Try::new(
            "the Ingress's rules",
            "PATCH",
            ingress,
            json!({"spec": {"rules": [{"host": "evil.example"}]}}),
        ),
        Try::new("the app's route", "PATCH", route.clone(), json!({"spec": {"routes": []}})),
        Try::new("the app's route's end", "DELETE", route, json!({})),
    ];
    let mut refused = 0;
    for attempt in tries {
        match account.send(&attempt).await {
            Ok(_) => bail!("{}: it was allowed", attempt.what),
            Err(error) => ensure!(is_forbidden(&error), "{}: {error:#}", attempt.what),
        }
        refused += 1;
    }
    Ok(refused)
}

async fn opted_out(space: &Space, app: &str) -> Result<()> {
    // Until it is known that nobody holds the field any more.
    eventually("it naps again", Duration::from_secs(200), async || {
        space.nap(app).await?;
        asleep(space, app).await
    })
    .await?;
    ensure!(!held(space).await?.is_empty(), "it sleeps, and nothing is in place");
    space.label(app, "kubenap/enabled", Value::Null).await?;
    eventually("nothing of KubeNap's is left", Duration::from_secs(60), async || {
        let left = held(space).await?;
        ensure!(left.is_empty(), "{left:?}");
        let phase = space.annotation(app, "kubenap/phase").await?;
        ensure!(phase.is_none(), "phase {phase:?}");
        http::get(TRAEFIK, &host(app), "/").await?.ensure_from_app()
    })
    .await
}

async fn asleep(space: &Space, app: &str) -> Result<()> {
    eventually(&format!("{app} is asleep"), Duration::from_secs(60), async || {
        let (replicas, phase) = (space.replicas(app).await?, space.phase(app).await?);
        ensure!(replicas == 0 && phase == "asleep", "{replicas} replicas, phase {phase}");
        let pods = space.pods(app).await?.len();
        ensure!(pods == 0, "{pods} pods are left");
        Ok(())
    })
    .await
}

/// Every object in which `KubeNap`, as the manager of hooks, has a part.
async fn held(space: &Space) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for namespace in [HOME, &space.namespace] {
        let line = ["-n", namespace, "get", &KINDS.join(","), "-o", "json", "--show-managed-fields"];
        let list: Value = serde_json::from_str(&space.world.kubectl(&line).await?)?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        all.extend(items.into_iter().filter(|object| {
            let entries = object["metadata"]["managedFields"].as_array();
            let is_ours =
                |entry: &Value| entry["manager"].as_str().is_some_and(|name| name.starts_with(MANAGERS));
            entries.is_some_and(|entries| entries.iter().any(is_ours))
        }));
    }
    for object in &mut all {
        object["metadata"]["managedFields"] = Value::Null;
    }
    Ok(all)
}

/// What `kubenap render` prints for the app, from the cluster.
async fn rendered(space: &Space, app: &str, form: &str) -> Result<Vec<Value>> {
    let ran = space.world.kubenap(&["render", &space.id(app), "-o", "json"], Duration::from_secs(30)).await?;
    ensure!(ran.code == 0, "kubenap render: exit {}: {}", ran.code, ran.stderr.trim());
    let said: Value = serde_json::from_str(&ran.stdout)?;
    ensure!(said["form"] == form, "the form is {}", said["form"]);
    let pieces = said["pieces"].as_array().context("no pieces")?;
    let object = |piece: &Value| {
        let whole = piece["object"].as_object().or(piece["fields"].as_object());
        whole.cloned().map(Value::Object)
    };
    pieces.iter().map(object).collect::<Option<_>>().context("a piece is no object")
}

/// Whether everything that is wanted is there, whatever else is.
fn covers(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            wanted.iter().all(|(name, wanted)| there.get(name).is_some_and(|there| covers(there, wanted)))
        }
        (Value::Array(there), Value::Array(wanted)) => {
            there.len() == wanted.len()
                && there.iter().zip(wanted).all(|(there, wanted)| covers(there, wanted))
        }
        _ => there == wanted,
    }
}

fn host(app: &str) -> String {
    format!("{app}.managed.test")
}
