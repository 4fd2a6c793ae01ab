//! Zeros that KubeNap did not make, and counts that others change while an app sleeps.

use serde_json::json;

use crate::visitor;
use crate::world::{World, deployment, ingress, service};

#[tokio::test(start_paused = true)]
async fn an_owners_zero_stays_his() {
    let world = World::quick();
    world.put(deployment("web", 0, &[]));
    world.put(service("web", "web"));
    world.put(ingress("web"));
    let running = world.join(1).await;
    world.pass(120).await;
    assert_eq!(World::label(&running, "web"), "owners-zero");
    assert!(world.writes(0).is_empty(), "{}", world.show());
    world.annotate("web", "adoptZero", "false");
    world.annotate("web", "replicaCount", "2");
    world.pass(30).await;
    assert_eq!((world.phase("web").as_str(), world.slices("web").len()), ("awake", 0));
}

#[tokio::test(start_paused = true)]
async fn a_zero_with_a_replica_count_sleeps_and_wakes_to_it() {
    for (key, value, count) in [("replicaCount", "3", 3), ("adoptZero", "true", 1)] {
        let world = World::quick();
        world.put(deployment("web", 0, &[(key, value)]));
        world.put(service("web", "web"));
        world.put(ingress("web"));
        let _running = world.join(1).await;
        world.asleep("web").await;
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        world.awake("web", count).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_awake_app_scaled_to_zero_by_its_owner_is_let_go_or_adopted() {
    let world = World::quick();
    world.app("his", 2, &[("idleAfter", "1h")]).await;
    world.app("ours", 2, &[("idleAfter", "1h"), ("replicaCount", "2")]).await;
    let _running = world.join(1).await;
    for name in ["his", "ours"] {
        world.edit("deployments", name, |app| app["spec"]["replicas"] = json!(0));
    }
    world.asleep("ours").await;
    world.pass(30).await;
    assert_eq!((world.phase("his").as_str(), world.slices("his").len()), ("awake", 0));
    let reply = visitor::get(world.cluster_ip("ours", 80), "ours", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    world.awake("ours", 2).await;
}

#[tokio::test(start_paused = true)]
async fn scaled_up_by_hand_while_asleep_it_wakes_to_that() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    world.edit("deployments", "web", |app| app["spec"]["replicas"] = json!(4));
    world.awake("web", 4).await;
    assert_eq!(world.note("web", "restoreReplicas"), None);
    world.asleep("web").await;
    assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("4"));
}

#[tokio::test(start_paused = true)]
async fn zeroed_by_its_owner_in_the_drowsy_phase_the_count_is_still_known() {
    let world = World::quick();
    world.app("web", 3, &[]).await;
    let _running = world.join(1).await;
    world.until("a slice", 30, || !world.slices("web").is_empty()).await;
    world.edit("deployments", "web", |app| app["spec"]["replicas"] = json!(0));
    world.asleep("web").await;
    let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    world.awake("web", 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_replica_count_counts_at_the_next_wake() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    world.annotate("web", "replicaCount", "5");
    world.annotate("web", "wish", "wake");
    world.awake("web", 5).await;
}
