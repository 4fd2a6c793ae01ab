//! The chart's roles against what is really asked of the API: no right is missing, and none is granted for nothing.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{ApiResource, GroupVersionKind};
use kubenap_controller::activity::{Ask, Credentials, KEPT_IN, SourceSpec, build, build_kept};
use kubenap_controller::cluster::Cluster;
use kubenap_controller::cluster::lease::{give_back, occupy};
use kubenap_controller::nap::by_hand::{Progress, Want, bring, sweep, touched};
use kubenap_controller::nap::hooks;
use kubenap_core::app::AppId;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::world::{SPACE, World};
use crate::{managed, visitor};

/// Verb and resource.
type Right = (String, String);

fn rights_file() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../chart/kubenap/rights.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// What the chart grants one of its accounts, wherever it grants it.
fn granted(account: &str) -> BTreeSet<Right> {
    let all = rights_file();
    rights_of(all[account].as_object().unwrap().values())
}

/// What it grants besides, with the flag `manage-proxies`.
fn granted_to_manage(account: &str) -> BTreeSet<Right> {
    let all = rights_file();
    rights_of([&all["manage"][account]])
}

fn rights_of<'a>(rules: impl IntoIterator<Item = &'a Value>) -> BTreeSet<Right> {
    let texts = |list: &Value| -> Vec<String> { serde_json::from_value(list.clone()).unwrap() };
    let rules = rules.into_iter().flat_map(|rules| rules.as_array().unwrap());
    let mut rights = BTreeSet::new();
    for rule in rules {
        for resource in texts(&rule["resources"]) {
            rights.extend(texts(&rule["verbs"]).into_iter().map(|verb| (verb, resource.clone())));
        }
    }
    rights
}

/// What was asked of the API so far.
fn asked(world: &World) -> BTreeSet<Right> {
    world.sandbox.requests().into_keys().collect()
}

#[tokio::test(start_paused = true)]
async fn the_chart_grants_the_controller_what_it_uses_and_nothing_else() {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    // Naps, a wish, wakes, and a second nap, whose slices may still be there from the first.
    for round in 0..3 {
        world.asleep("web").await;
        if round == 0 {
            world.annotate("web", "wish", "wake");
        } else {
            let _ = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        }
        world.awake("web", 2).await;
    }
    // A source reads logs of pods, which the chart grants where one is configured.
    let spec = "logs=pods:app=web".parse().unwrap();
    let source = build(&[spec], &Credentials::default(), &world.client()).unwrap().remove(0);
    let ask = Ask { now: world.now(), targets: Arc::from([]), history: Duration::from_secs(600) };
    source.poll(&ask).await.unwrap();
    drop(source);
    // Another one keeps what it has seen.
    keeps_what_it_sees(&world).await;
    // Somebody changes a slice, and it is written anew.
    world.asleep("web").await;
    let slice = world.slices("web")[0].clone();
    let name = slice["metadata"]["name"].as_str().unwrap();
    world.edit("endpointslices", name, |slice| slice["ports"][0]["port"] = 1.into());
    let mended = || {
        world
            .slices("web")
            .iter()
            .any(|now| now["metadata"]["name"] == name && now["ports"] == slice["ports"])
    };
    world.until("the slice is mended", 30, mended).await;
    // A mistake is told as an Event, a request in the drowsy phase cancels, and a dead member is swept away.
    world.annotate("web", "idleAfter", "soon");
    world.pass(5).await;
    two.crash();
    world.pass(180).await;
    world.annotate("web", "idleAfter", "10s");
    world.annotate("web", "wish", "wake");
    world.awake("web", 2).await;
    // A member that comes in the middle of a wake has not seen its beginning.
    world.asleep("web").await;
    world.annotate("web", "wish", "wake");
    world.until("waking", 10, || world.phase("web") == "waking").await;
    let three = world.join(3).await;
    world.awake("web", 2).await;
    three.leave().await;
    // The label goes, and comes back.
    world.edit("deployments", "web", |app| app["metadata"]["labels"] = serde_json::json!({}));
    world.pass(20).await;
    world.edit("deployments", "web", |app| app["metadata"]["labels"]["kubenap/enabled"] = "true".into());
    world.asleep("web").await;
    one.leave().await;

    assert_eq!(asked(&world), granted("controller"), "left: what is used, right: what is granted");
}

/// A proxy's page of metrics, on loopback, and a source that reads it.
async fn keeps_what_it_sees(world: &World) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": KEPT_IN, "namespace": "kubenap-system"}});
    world.sandbox.put(map).unwrap();
    // Sockets are of the real world, where time passes.
    tokio::time::resume();
    let started = world.now().as_second() - 60;
    let page = format!(
        "process_start_time_seconds {started}\ntraefik_config_last_reload_success 1\ntraefik_service_requests_total{{service=\"a-b-80@kubernetes\"}} 7\n"
    );
    let proxy = axum::Router::new().route("/metrics", axum::routing::get(move || async { page }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let serving = tokio::spawn(async { axum::serve(listener, proxy).await });
    let spec = SourceSpec::read("main", json!({"kind": "ingress", "urls": [url]})).unwrap();
    let credentials = Credentials::default();
    let source =
        build_kept(&[spec], &credentials, &world.client(), Some("kubenap-system")).unwrap().remove(0);
    let ask = Ask { now: world.now(), targets: Arc::from([]), history: Duration::from_secs(600) };
    source.poll(&ask).await.unwrap();
    serving.abort();
    tokio::time::pause();
    let kept = world.sandbox.get("configmaps", "kubenap-system", KEPT_IN).unwrap();
    assert!(kept["binaryData"]["main"].is_string(), "{kept}");
}

#[test]
fn the_chart_can_grant_a_look_at_every_kind_of_object_that_proxies_are_told_by() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let rights: Value = serde_saphyr::from_str(&read(&top.join("chart/kubenap/rights.yaml"))).unwrap();
    let places = [&rights["hooks"], &rights["controller"]["apps"]];
    let listed = |group: &str, plural: &str| {
        let has = |list: &Value, text: &str| list.as_array().unwrap().iter().any(|one| one == text);
        places.iter().flat_map(|rules| rules.as_array().unwrap()).any(|rule| {
            has(&rule["apiGroups"], group) && has(&rule["resources"], plural) && has(&rule["verbs"], "list")
        })
    };
    let mut kinds = BTreeSet::new();
    // What is rendered for every proxy, as its golden files have it.
    for folder in std::fs::read_dir(top.join("crates/kubenap-core/tests/proxies")).unwrap() {
        let folder = folder.unwrap().path();
        if !folder.is_dir() || folder.ends_with("apps") {
            continue;
        }
        for file in std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()) {
            if file.extension().is_none_or(|end| end != "yaml") {
                continue;
            }
            for object in serde_saphyr::from_multiple::<Value>(&read(&file)).unwrap() {
                let version = object["apiVersion"].as_str().unwrap().to_owned();
                let group = version.split_once('/').map_or("", |(group, _)| group).to_owned();
                kinds.insert((group, version, object["kind"].as_str().unwrap().to_owned()));
            }
        }
    }
    assert!(kinds.len() > 5, "{kinds:?}");
    let mut used = BTreeSet::new();
    for (group, version, kind) in kinds {
        let version = version.rsplit('/').next().unwrap();
        let plural = ApiResource::from_gvk(&GroupVersionKind::gvk(&group, version, &kind)).plural;
        assert!(listed(&group, &plural), "{plural}.{group} may not be listed");
        used.insert(plural);
    }
    let granted = rights["hooks"].as_array().unwrap().iter();
    for resource in granted.flat_map(|rule| rule["resources"].as_array().unwrap()) {
        assert!(used.contains(resource.as_str().unwrap()), "no proxy is told by {resource}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_chart_grants_the_job_that_restores_what_it_uses_and_nothing_else() {
    let mut used = BTreeSet::new();
    for phase in ["drowsy", "asleep", "waking", "gone"] {
        let world = World::quick();
        world.app("web", 2, &[]).await;
        let running = world.join(1).await;
        match phase {
            "drowsy" => world.until("drowsy", 30, || world.phase("web") == "drowsy").await,
            "waking" => {
                world.asleep("web").await;
                world.annotate("web", "wish", "wake");
                world.until("waking", 10, || world.phase("web") == "waking").await;
            }
            _ => world.asleep("web").await,
        }
        running.crash();
        if phase == "gone" {
            assert!(world.sandbox.delete("deployments", SPACE, "web"));
            assert!(world.sandbox.delete("leases", "kubenap-system", "kubenap"));
        }
        let before = world.sandbox.requests();
        restore(&world).await;
        let after = world.sandbox.requests();
        used.extend(
            after
                .into_iter()
                .filter(|(right, count)| before.get(right) != Some(count))
                .map(|(right, _)| right),
        );
        assert!(world.slices("web").is_empty(), "{phase}: {}", world.show());
    }
    assert_eq!(used, granted("restore"), "left: what is used, right: what is granted");
}

#[tokio::test(start_paused = true)]
async fn managing_proxies_needs_what_the_chart_grants_for_it_and_nothing_else() {
    let (mut used, mut restoring) = (BTreeSet::new(), BTreeSet::new());
    for kind in managed::KINDS {
        for end in ["awake", "restored", "shared"] {
            let world = World::quick();
            managed::app(&world, kind).await;
            let running = managed::join(&world, 1).await;
            world.serve_wakes(&[&running]);
            world.asleep("web").await;
            if end == "awake" {
                world.annotate("web", "wish", "wake");
                world.awake("web", 2).await;
                world.until("taken back", 30, || world.note("web", "hookPieces").is_none()).await;
                used.extend(asked(&world));
                continue;
            }
            if end == "shared" {
                managed::also_theirs(&world).await;
            }
            running.crash();
            let before = world.sandbox.requests();
            restore(&world).await;
            hooks::sweep(&Cluster::new(world.client()), &[], "kubenap-system", hooks::Spared::Living)
                .await
                .unwrap();
            let after = world.sandbox.requests().into_iter();
            restoring.extend(
                after.filter(|(right, count)| before.get(right) != Some(count)).map(|(right, _)| right),
            );
        }
    }
    let writes = |(verb, resource): &Right| {
        let kinds =
            ["services", "endpointslices", "ingresses", "ingressroutes", "middlewares", "traefikservices"];
        verb != "list" && verb != "watch" && kinds.contains(&resource.as_str())
    };
    used.retain(writes);
    assert_eq!(used, granted_to_manage("controller"), "left: what is used, right: what is granted");
    let mut both = granted("restore");
    both.extend(granted_to_manage("restore"));
    let missing: Vec<_> = restoring.difference(&both).collect();
    assert!(missing.is_empty(), "{missing:?}");
    let unused: Vec<_> = granted_to_manage("restore").difference(&restoring).cloned().collect();
    assert!(unused.is_empty(), "{unused:?}");
}

/// What `kubenap restore --all --stop-naps` does.
async fn restore(world: &World) {
    let cluster = Cluster::new(world.client());
    let span = Duration::from_secs(600);
    occupy(&cluster, "kubenap-system", "restore", span, || world.now()).await.unwrap();
    for app in touched(&cluster, &[]).await.unwrap() {
        assert_eq!(app, AppId::new(SPACE, "web"));
        let deadline = Instant::now() + Duration::from_secs(60);
        let progress = bring(&cluster, &app, Want::Restored, || world.now(), deadline).await.unwrap();
        assert!(matches!(progress, Progress::Done | Progress::Gone), "{progress:?}\n{}", world.show());
    }
    sweep(&cluster, &[]).await.unwrap();
    give_back(&cluster, "kubenap-system", "restore", world.now()).await.unwrap();
}
