//! Apps that are not substituted, and whose proxies KubeNap tells itself, only while they sleep.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kubenap_controller::cluster::{Cluster, pieces};
use kubenap_controller::nap::by_hand::{Progress, Want, bring, touched};
use kubenap_controller::nap::hooks;
use kubenap_controller::run::Running;
use kubenap_controller::settings::Settings;
use kubenap_core::proxy::Piece;
use kubenap_sandbox::{Effect, Fault};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::unsubstituted::{proxy, rendered, visit};
use crate::world::{SPACE, World, deployment, host, ingress, service};

/// Apps behind a proxy whose hook touches awake traffic, behind one with whole routes of KubeNap's own, and behind one
/// whose hook is silent.
pub(crate) const KINDS: [(&str, &str); 3] =
    [("traefik", "Ingress"), ("traefik", "IngressRoute"), ("nginx", "Ingress")];

/// The mark of KubeNap's that is added to a whole object.
const MARKS: [&str; 2] = ["/metadata/labels/kubenap~1managed", "/metadata/annotations/kubenap~1app"];

/// An app that is ready, and what is there of its proxy's before KubeNap has told it anything.
pub(crate) async fn app(world: &World, (proxy, route): (&str, &str)) -> Vec<(String, Value)> {
    world.put(deployment("web", 2, &[("substitute", "false"), ("proxy", proxy)]));
    world.put(service("web", "web"));
    if route == "Ingress" {
        let mut ingress = ingress("web");
        ingress["metadata"]["annotations"] = json!({ "example.com/theirs": "stays" });
        world.put(ingress);
    } else {
        world.put(json!({ "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
            "metadata": { "name": "web", "namespace": SPACE },
            "spec": { "entryPoints": ["web"], "routes": [{ "match": format!("Host(`{}`)", host("web")), "kind": "Rule",
                "services": [{ "name": "web", "port": 80 }] }] } }));
    }
    world.ready("web", 2).await;
    told(world)
}

pub(crate) async fn join(world: &World, nth: u8) -> Running {
    world.join_as(Settings { manage_proxies: true, ..world.settings(nth) }).await
}

/// Somebody else applies the same objects as well.
pub(crate) async fn also_theirs(world: &World) {
    let cluster = Cluster::new(world.client());
    for piece in rendered(world, "web") {
        if let Piece::Object(object) = piece {
            let (api, name) = pieces::api_of(&cluster, &object);
            api.patch(&name, &PatchParams::apply("argocd"), &Patch::Apply(object)).await.unwrap();
        }
    }
}

/// Every object by which a proxy may be told, without its version and the times in it.
pub(crate) fn told(world: &World) -> Vec<(String, Value)> {
    let mut all = Vec::new();
    for kind in ["services", "ingresses", "ingressroutes", "middlewares", "traefikservices", "endpointslices"]
    {
        for space in [SPACE, "kubenap-system"] {
            for mut object in world.sandbox.list(kind, Some(space)) {
                // The members' own Service, and what Kubernetes makes of pods.
                let is_surrounding = object["metadata"]["name"] == "kubenap"
                    || (kind == "endpointslices"
                        && object["metadata"]["labels"]["kubenap/managed"].is_null());
                if is_surrounding {
                    continue;
                }
                let metadata = object["metadata"].as_object_mut().unwrap();
                metadata.remove("resourceVersion");
                metadata.remove("generation");
                let entries = metadata.remove("managedFields").unwrap_or_default();
                let held =
                    entries.as_array().into_iter().flatten().any(|entry| is_kubenaps(&entry["manager"]));
                // A map without entries is none.
                metadata.retain(|_, value| *value != json!({}));
                metadata.insert("held".to_owned(), held.into());
                all.push((format!("{kind} {space}/{}", object["metadata"]["name"]), object));
            }
        }
    }
    all
}

fn is_kubenaps(manager: &Value) -> bool {
    manager.as_str().is_some_and(|manager| manager.starts_with(hooks::MANAGERS))
}

/// Whether everything is there that is rendered, by KubeNap's hand.
pub(crate) fn is_attached(world: &World) -> bool {
    let there = told(world);
    rendered(world, "web").into_iter().all(|piece| {
        let (Piece::Object(wanted) | Piece::Fields(wanted)) = piece else { panic!("no text is applied") };
        there.iter().any(|(_, object)| {
            let of_same = |field: &str| object["metadata"][field] == wanted["metadata"][field];
            object["kind"] == wanted["kind"]
                && of_same("name")
                && of_same("namespace")
                && object["metadata"]["held"] == true
                && covers(object, &wanted)
        })
    })
}

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

/// Awake, and the proxy as if KubeNap had never been.
pub(crate) async fn as_before(world: &World, before: &[(String, Value)], what: &str) {
    world
        .until(&format!("{what}: its proxy is as it was"), 60, || {
            told(world) == before && world.note("web", "hookPieces").is_none()
        })
        .await;
    world.ready("web", 2).await;
}

#[tokio::test(start_paused = true)]
async fn its_proxy_is_told_what_render_prints_while_it_sleeps_and_nothing_while_it_is_awake() {
    for kind in KINDS {
        let world = World::quick();
        let before = app(&world, kind).await;
        let (one, two) = (join(&world, 1).await, join(&world, 2).await);
        let proxy = proxy(&world, &[&one, &two]).await;
        for nap in 1..=2 {
            world.asleep("web").await;
            assert_eq!(world.note("web", "epoch"), Some(nap.to_string()), "{kind:?}: no nap is called off");
            assert!(is_attached(&world), "{kind:?}: {:#?}\n{}", told(&world), world.show());
            let whole = told(&world)
                .into_iter()
                .filter(|(_, object)| MARKS.iter().all(|mark| object.pointer(mark).is_some()));
            let objects =
                rendered(&world, "web").iter().filter(|piece| matches!(piece, Piece::Object(_))).count();
            assert_eq!(whole.count(), objects, "{kind:?}: whole objects carry the mark");
            if kind.1 == "Ingress" {
                assert_eq!(visit(&proxy, "web").await.status, 200, "{kind:?}\n{}", world.show());
            } else {
                world.annotate("web", "wish", "wake");
            }
            world.awake("web", 2).await;
            as_before(&world, &before, "after a nap").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_may_die_after_any_write_and_another_one_finishes() {
    for kind in KINDS {
        for moment in ["nap", "wake"] {
            for writes in 1..14 {
                let what = format!("{kind:?}, {writes} writes after the {moment} begins");
                let world = World::quick();
                let before = app(&world, kind).await;
                let one = join(&world, 1).await;
                world.serve_wakes(&[&one]);
                if moment == "wake" {
                    world.asleep("web").await;
                    world.annotate("web", "wish", "wake");
                } else {
                    world.pass(5).await;
                }
                world.sandbox.faults().fail_after_writes(writes);
                world.pass(25).await;
                one.crash();
                world.sandbox.faults().clear();
                let two = join(&world, 2).await;
                world.serve_wakes(&[&two]);
                world
                    .until(&format!("{what}: asleep"), 200, || {
                        world.phase("web") == "asleep" && world.pods("web") == 0 && is_attached(&world)
                    })
                    .await;
                world.annotate("web", "wish", "wake");
                world.awake("web", 2).await;
                as_before(&world, &before, &what).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_field_that_somebody_else_wants_otherwise_keeps_it_awake_and_is_left_alone() {
    let world = World::quick();
    app(&world, KINDS[0]).await;
    let mine = "traefik.ingress.kubernetes.io/service.nativelb";
    world.edit("services", "web", |service| service["metadata"]["annotations"][mine] = "false".into());
    let before = told(&world);
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    world.pass(180).await;
    assert_eq!(World::label(&running, "web"), "hook-unmanaged", "{}", world.show());
    assert!(world.patches("web").is_empty() && told(&world) == before, "{}", world.show());
    let [told_of] = &world.events("web", "NapRefused")[..] else { panic!("{}", world.show()) };
    assert!(told_of.contains("\"administrator\"") && told_of.contains(mine), "{told_of}");
    // Who lets it go has the app nap.
    world.edit("services", "web", |service| {
        drop(service["metadata"]["annotations"].as_object_mut().unwrap().remove(mine));
    });
    world.until("asleep", 300, || world.phase("web") == "asleep").await;
}

#[tokio::test(start_paused = true)]
async fn a_field_that_somebody_takes_over_while_it_sleeps_wakes_it() {
    let world = World::quick();
    app(&world, KINDS[0]).await;
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    world.asleep("web").await;
    world.edit("ingresses", "web", |ingress| {
        ingress["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"] =
            "theirs@file".into();
    });
    world.until("awake", 300, || world.phase("web") == "awake").await;
    world.pass(60).await;
    assert_eq!(World::label(&running, "web"), "hook-unmanaged", "{}", world.show());
    let ingress = world.sandbox.get("ingresses", SPACE, "web").unwrap();
    let middlewares = &ingress["metadata"]["annotations"]["traefik.ingress.kubernetes.io/router.middlewares"];
    assert_eq!(middlewares, "theirs@file", "what somebody else wrote is theirs");
    assert!(world.sandbox.list("middlewares", None).is_empty(), "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_installed_or_not_allowed_or_not_for_kubenap_keeps_it_awake_with_the_reason() {
    let not_installed = Fault::new(Effect::FailBefore(404)).resource("middlewares");
    let not_listed = Fault::new(Effect::Deny).verb("list").resource("middlewares");
    let not_applied = Fault::new(Effect::Deny).verb("patch").resource("ingresses");
    for (proxy, fault, said) in [
        ("traefik", Some(not_installed), "does not exist here"),
        ("traefik", Some(not_listed), "told to deny list of middlewares"),
        ("traefik", Some(not_applied), "told to deny patch of ingresses"),
        ("envoy", None, "kubenap render"),
    ] {
        let world = World::quick();
        let before = app(&world, (proxy, "Ingress")).await;
        if let Some(fault) = fault {
            world.sandbox.faults().inject(fault);
        }
        let running = join(&world, 1).await;
        world.serve_wakes(&[&running]);
        world.pass(60).await;
        assert_eq!(World::label(&running, "web"), "hook-unmanaged", "{proxy}, {said}: {}", world.show());
        let told_of = world.events("web", "NapRefused").concat();
        assert!(told_of.contains(said), "{proxy}: {told_of}");
        assert!(world.patches("web").is_empty() && told(&world) == before, "{proxy}: {}", world.show());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_takes_the_label_away_has_the_proxy_as_it_was() {
    for kind in KINDS {
        let world = World::quick();
        let before = app(&world, kind).await;
        let (one, two) = (join(&world, 1).await, join(&world, 2).await);
        world.serve_wakes(&[&one, &two]);
        world.asleep("web").await;
        world.edit("deployments", "web", |app| app["metadata"]["labels"] = json!({}));
        as_before(&world, &before, "opted out").await;
        world.until("every trace is gone", 10, || world.note("web", "phase").is_none()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn restoring_takes_the_hook_back_from_any_phase_without_a_controller() {
    for phase in ["drowsy", "asleep", "waking", "just awake"] {
        let world = World::quick();
        let before = app(&world, KINDS[0]).await;
        let running = join(&world, 1).await;
        world.serve_wakes(&[&running]);
        if phase == "drowsy" {
            world.until("it is attached", 60, || is_attached(&world)).await;
        } else {
            world.asleep("web").await;
        }
        if matches!(phase, "waking" | "just awake") {
            world.annotate("web", "wish", "wake");
            let wanted = if phase == "waking" { "waking" } else { "awake" };
            world.until(wanted, 30, || world.phase("web") == wanted).await;
        }
        running.crash();
        assert!(is_attached(&world), "{phase}: {}", world.show());
        let cluster = Cluster::new(world.client());
        for app in touched(&cluster, &[]).await.unwrap() {
            let deadline = Instant::now() + Duration::from_secs(60);
            let progress = bring(&cluster, &app, Want::Restored, || world.now(), deadline).await.unwrap();
            assert_eq!(progress, Progress::Done, "{phase}: {}", world.show());
        }
        as_before(&world, &before, phase).await;
        assert_eq!(
            hooks::sweep(&cluster, &[], "kubenap-system", hooks::Spared::Living).await.unwrap(),
            0,
            "{phase}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_deleted_while_it_sleeps_leaves_no_hook_behind() {
    for running in [true, false] {
        let world = World::quick();
        let before = app(&world, KINDS[0]).await;
        let one = join(&world, 1).await;
        world.serve_wakes(&[&one]);
        world.asleep("web").await;
        if running {
            assert!(world.sandbox.delete("deployments", SPACE, "web"));
            world.until("its proxy is as it was", 60, || told(&world) == before).await;
            continue;
        }
        one.crash();
        assert!(world.sandbox.delete("deployments", SPACE, "web"));
        let cluster = Cluster::new(world.client());
        assert_eq!(hooks::sweep(&cluster, &[], "kubenap-system", hooks::Spared::Living).await.unwrap(), 3);
        assert_eq!(told(&world), before);
    }
}

#[tokio::test(start_paused = true)]
async fn two_apps_that_would_need_the_same_annotation_stay_awake() {
    let world = World::quick();
    let notes = [("substitute", "false"), ("proxy", "traefik"), ("service", "front")];
    for name in ["blue", "green"] {
        world.put(deployment(name, 1, &notes));
    }
    let mut both = service("front", "any");
    both["spec"]["selector"] = json!({ "behind": "front" });
    world.put(both);
    world.put(ingress("front"));
    world.ready("blue", 1).await;
    world.ready("green", 1).await;
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    world.pass(300).await;
    for name in ["blue", "green"] {
        assert_eq!(World::label(&running, name), "hook-unmanaged", "{}", world.show());
        assert!(world.patches(name).is_empty(), "{}", world.show());
    }
}

#[tokio::test(start_paused = true)]
async fn two_apps_behind_one_ingress_do_not_take_each_others_hook_away() {
    let world = World::quick();
    let notes = [("substitute", "false"), ("proxy", "traefik")];
    for name in ["blue", "green"] {
        world.put(deployment(name, 1, &notes));
        world.put(service(name, name));
    }
    let mut both = ingress("blue");
    let paths = both["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap();
    let mut other = paths[0].clone();
    other["path"] = json!("/green");
    other["backend"]["service"]["name"] = json!("green");
    paths.push(other);
    world.put(both);
    world.ready("blue", 1).await;
    world.ready("green", 1).await;
    let before = told(&world);
    let running = join(&world, 1).await;
    world.serve_wakes(&[&running]);
    world.pass(300).await;
    for name in ["blue", "green"] {
        assert_eq!(World::label(&running, name), "hook-unmanaged", "{}", world.show());
        assert!(world.patches(name).is_empty(), "{}", world.show());
    }
    assert_eq!(told(&world), before);
}
