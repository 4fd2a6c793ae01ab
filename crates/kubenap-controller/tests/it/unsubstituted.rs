//! Apps that are not substituted: the error path of the proxy in front alone leads to KubeNap while they sleep.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use kubenap_controller::run::Running;
use kubenap_controller::settings::Settings;
use kubenap_core::app::AppId;
use kubenap_core::proxy::{Piece, WakeAddress, read};
use kubenap_sandbox::Ingress;
use serde_json::json;

use crate::visitor::{self, Reply};
use crate::world::{SPACE, World, deployment, host, ingress, service};

/// Not substituted, and its administrator vouches for the proxy.
const DECLARED: [(&str, &str); 2] = [("substitute", "false"), ("hook", "declared")];

/// A proxy whose error path leads to the members' Service.
pub(crate) async fn proxy(world: &World, members: &[&Running]) -> Ingress {
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    ingress.set_error_path(Some(world.serve_wakes(members)));
    ingress
}

/// A request through the proxy, that follows redirects as a client does.
pub(crate) async fn visit(proxy: &Ingress, name: &str) -> Reply {
    let mut reply = Reply::default();
    for _ in 0..6 {
        reply = visitor::get(proxy.address(), &host(name), "/hello?a=b").await;
        if reply.status != 307 {
            break;
        }
        assert_eq!(reply.header("location"), Some("/hello?a=b"));
    }
    reply
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_not_substituted_naps_without_a_slice_and_wakes_by_the_proxys_error_path() {
    let world = World::quick();
    world.app("web", 2, &DECLARED).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    let proxy = proxy(&world, &[&one, &two]).await;
    for nap in 1..=2 {
        world.asleep("web").await;
        assert_eq!(world.note("web", "epoch"), Some(nap.to_string()));
        assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("2"));
        let reply = visit(&proxy, "web").await;
        assert_eq!(reply.status, 200, "{reply:?}\n{}", world.show());
        world.awake("web", 2).await;
    }
    let slices = world.writes(0).into_iter().filter(|write| write.plural == "endpointslices").count();
    assert_eq!(slices, 0, "no slice is ever written\n{}", world.show());
    assert_eq!(world.patches("web").len(), 8, "four patches each nap and wake\n{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn nobody_loses_a_request_that_comes_through_the_proxy_at_any_moment_of_naps_and_wakes() {
    let world = World::quick();
    world.app("web", 1, &DECLARED).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    let proxy = proxy(&world, &[&one, &two]).await;
    let mut answers = 0;
    for pause in [9_000, 11_900, 12_400, 13_100, 13_700, 14_300, 15_100, 16_000, 18_000, 21_000, 25_000] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let reply = visit(&proxy, "web").await;
        assert_eq!(reply.status, 200, "after {pause} ms: {reply:?}\n{}", world.show());
        answers += 1;
    }
    assert!(answers > 10 && world.events("web", "Asleep").len() > 2, "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_for_a_nap_without_substitution_is_said_and_nothing_is_written() {
    for (name, annotations, label) in [
        ("bare", &[("substitute", "false")][..], "hook-missing"),
        ("vouched", &DECLARED[..], "wake-address-silent"),
        ("routeless", &DECLARED[..], "hook-missing"),
    ] {
        let world = World::quick();
        world.put(deployment(name, 1, annotations));
        world.put(service(name, name));
        if name != "routeless" {
            world.put(ingress(name));
        }
        world.ready(name, 1).await;
        let running = world.join(1).await;
        world.pass(120).await;
        assert_eq!(World::label(&running, name), label, "{name}");
        assert!(world.patches(name).is_empty(), "{}", world.show());
        assert_eq!(world.events(name, "NapRefused").len(), 1, "{}", world.show());
    }
}

#[tokio::test(start_paused = true)]
async fn somebody_elses_listener_at_the_wake_address_proves_nothing() {
    let world = World::quick();
    world.app("web", 1, &DECLARED).await;
    let running = world.join(1).await;
    let other = World::quick();
    let foreign = other.join_as(Settings { identity: "elsewhere".to_owned(), ..other.settings(3) }).await;
    world.serve_wakes(&[&running]);
    let leads_to = |at: SocketAddr| {
        world
            .sandbox
            .edit("endpointslices", "kubenap-system", "kubenap-0", |slice| {
                slice["ports"][0]["port"] = at.port().into();
                slice["endpoints"][0]["addresses"] = json!([at.ip().to_string()]);
            })
            .unwrap();
    };
    // Another program, and a member of another installation.
    for at in [running.admin, foreign.proxies[0]] {
        leads_to(at);
        world.pass(60).await;
        assert_eq!(World::label(&running, "web"), "wake-address-silent", "{at}");
    }
    leads_to(running.proxies[0]);
    world.asleep("web").await;
}

#[tokio::test(start_paused = true)]
async fn the_nap_outlives_members_and_a_new_one_alone_answers() {
    let world = World::quick();
    world.app("web", 2, &DECLARED).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    let proxy = proxy(&world, &[&one, &two]).await;
    world.asleep("web").await;
    one.crash();
    two.leave().await;
    let three = world.join(3).await;
    world.serve_wakes(&[&three]);
    world.pass(120).await;
    assert_eq!((world.phase("web").as_str(), world.replicas("web")), ("asleep", 0), "{}", world.show());
    assert_eq!(visit(&proxy, "web").await.status, 200);
    world.awake("web", 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_undone_rollout_while_it_sleeps_loses_no_count_though_no_slice_remembers_it() {
    let world = World::quick();
    world.app("web", 3, &DECLARED).await;
    let running = world.join(1).await;
    let proxy = proxy(&world, &[&running]).await;
    let before = world.deployment("web");
    let template = |app: &mut serde_json::Value, version: &str| {
        app["spec"]["template"]["metadata"]["annotations"] = json!({ "version": version });
    };
    world.edit("deployments", "web", |app| template(app, "2"));
    world.pass(3).await;
    world.ready("web", 3).await;
    world.asleep("web").await;
    // As `kubectl rollout undo` does: the old template, and the annotations of its ReplicaSet.
    world.edit("deployments", "web", |app| {
        app["spec"]["template"] = before["spec"]["template"].clone();
        app["metadata"]["annotations"] = before["metadata"]["annotations"].clone();
    });
    world.until("the sleep is written down again", 30, || world.phase("web") == "asleep").await;
    assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("3"), "{}", world.show());
    assert_eq!(visit(&proxy, "web").await.status, 200);
    world.awake("web", 3).await;
    // A zero of the owner's after that is still the owner's.
    world.edit("deployments", "web", |app| app["spec"]["replicas"] = 0.into());
    world.pass(60).await;
    assert_eq!(World::label(&running, "web"), "owners-zero", "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn substitution_that_is_switched_on_or_off_in_any_phase_ends_well() {
    for phase in ["drowsy", "asleep", "waking"] {
        for (from, to) in [("true", "false"), ("false", "true")] {
            let world = World::quick();
            world.app("web", 2, &[("substitute", from), ("hook", "declared")]).await;
            let (one, two) = (world.join(1).await, world.join(2).await);
            let proxy = proxy(&world, &[&one, &two]).await;
            match phase {
                "drowsy" => world.until("drowsy", 60, || world.phase("web") == "drowsy").await,
                _ => world.asleep("web").await,
            }
            if phase == "waking" {
                world.annotate("web", "wish", "wake");
                world.until("waking", 10, || world.phase("web") == "waking").await;
            }
            world.annotate("web", "substitute", to);
            let placed = || world.slices("web").len() == if to == "true" { 2 } else { 0 };
            world
                .until(&format!("{phase}, from {from} to {to}"), 120, || {
                    world.phase("web") == "asleep" && placed()
                })
                .await;
            assert_eq!(
                visit(&proxy, "web").await.status,
                200,
                "{phase}, from {from} to {to}\n{}",
                world.show()
            );
            world.awake("web", 2).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_nobody_vouches_for_any_more_wakes_the_app() {
    let world = World::quick();
    world.app("web", 2, &DECLARED).await;
    let running = world.join(1).await;
    let _proxy = proxy(&world, &[&running]).await;
    world.asleep("web").await;
    world.edit("deployments", "web", |app| {
        app["metadata"]["annotations"].as_object_mut().unwrap().remove("kubenap/hook");
    });
    world.awake("web", 2).await;
    world.pass(60).await;
    assert_eq!(
        (world.phase("web").as_str(), World::label(&running, "web").as_str()),
        ("awake", "hook-missing")
    );
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_its_proxys_objects_show_is_enough_for_as_long_as_they_do() {
    let world = World::quick();
    world.app("web", 2, &[("substitute", "false"), ("proxy", "nginx")]).await;
    let running = world.join(1).await;
    let proxy = proxy(&world, &[&running]).await;
    world.pass(30).await;
    assert_eq!(World::label(&running, "web"), "hook-missing");
    for piece in rendered(&world, "web") {
        match piece {
            Piece::Object(object) => world.put(object),
            Piece::Fields(fields) => world.edit("ingresses", "web", |ingress| {
                ingress["metadata"]["annotations"] = fields["metadata"]["annotations"].clone();
            }),
            Piece::Text { .. } => panic!("not for an Ingress"),
        }
    }
    world.until("asleep", 300, || world.phase("web") == "asleep").await;
    assert_eq!(visit(&proxy, "web").await.status, 200);
    world.asleep("web").await;
    // Somebody takes the annotation away: no request could wake it any more.
    world.edit("ingresses", "web", |ingress| ingress["metadata"]["annotations"] = json!({}));
    world.until("awake", 300, || world.phase("web") == "awake").await;
    world.pass(30).await;
    assert_eq!(World::label(&running, "web"), "hook-missing");
}

/// What its proxy must be told.
pub(crate) fn rendered(world: &World, name: &str) -> Vec<Piece> {
    let kinds = ["deployments", "services", "ingresses", "ingressroutes"];
    let objects: Vec<_> = kinds.iter().flat_map(|kind| world.sandbox.list(kind, Some(SPACE))).collect();
    let found = read::read(&AppId::new(SPACE, name), &objects).unwrap();
    let ip = Some(world.cluster_ip_in("kubenap-system", "kubenap"));
    found.proxy.plugin().render(&found.app, &WakeAddress { ip, ..WakeAddress::default() }).unwrap().pieces
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_route_goes_while_it_sleeps_is_woken() {
    let world = World::quick();
    world.app("web", 1, &DECLARED).await;
    let running = world.join(1).await;
    let _proxy = proxy(&world, &[&running]).await;
    world.asleep("web").await;
    assert!(world.sandbox.delete("ingresses", SPACE, "web"));
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn two_apps_behind_one_service_nap_and_wake_together_without_substitution() {
    let world = World::quick();
    for name in ["blue", "green"] {
        world.put(deployment(name, 1, &[DECLARED[0], DECLARED[1], ("service", "front")]));
    }
    let mut both = service("front", "any");
    both["spec"]["selector"] = json!({ "behind": "front" });
    world.put(both);
    world.put(ingress("front"));
    world.ready("blue", 1).await;
    world.ready("green", 1).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    let proxy = proxy(&world, &[&one, &two]).await;
    world.asleep("blue").await;
    world.asleep("green").await;
    assert_eq!(visit(&proxy, "front").await.status, 200, "{}", world.show());
    world.awake("blue", 1).await;
    world.awake("green", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_may_not_substitute_writes_no_slice_for_anybody() {
    let world = World::quick();
    world.app("web", 1, &[("hook", "declared")]).await;
    world.app("stubborn", 1, &[("hook", "declared"), ("substitute", "true")]).await;
    let running = world.join_as(Settings { substitute: false, ..world.settings(1) }).await;
    let proxy = proxy(&world, &[&running]).await;
    world.asleep("web").await;
    assert_eq!(World::label(&running, "stubborn"), "bad-annotation");
    assert_eq!(visit(&proxy, "web").await.status, 200);
    world.awake("web", 1).await;
    assert!(world.writes(0).iter().all(|write| write.plural != "endpointslices"), "{}", world.show());
}
