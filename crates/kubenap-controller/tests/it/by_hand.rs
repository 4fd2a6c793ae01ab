//! A person with a kubeconfig and no controller: awake or restored, from each phase.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::time::Duration;

use kubenap_controller::cluster::Cluster;
use kubenap_controller::nap::by_hand::{Progress, Want, bring, sweep, touched};
use kubenap_core::app::AppId;
use serde_json::Value;
use tokio::time::Instant;

use crate::world::{SPACE, World};

/// A world whose controller crashed when the app was in this phase.
async fn left_in(phase: &str) -> World {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    let running = world.join(1).await;
    match phase {
        "awake" => world.pass(3).await,
        "drowsy" => world.until("a slice", 30, || !world.slices("web").is_empty()).await,
        "waking" => {
            world.asleep("web").await;
            world.annotate("web", "wish", "wake");
            world.until("waking", 10, || world.phase("web") == "waking").await;
        }
        _ => world.asleep("web").await,
    }
    assert_eq!(world.phase("web"), phase);
    running.crash();
    world
}

async fn brought(world: &World, want: Want) -> Progress {
    let cluster = Cluster::new(world.client());
    let deadline = Instant::now() + Duration::from_secs(60);
    bring(&cluster, &AppId::new(SPACE, "web"), want, || world.now(), deadline).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_app_in_any_phase_is_woken_by_hand() {
    for phase in ["awake", "drowsy", "asleep", "waking"] {
        let world = left_in(phase).await;
        assert_eq!(brought(&world, Want::Awake).await, Progress::Done, "{phase}: {}", world.show());
        world.awake("web", 2).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_app_in_any_phase_is_restored_without_a_trace() {
    for phase in ["awake", "drowsy", "asleep", "waking"] {
        let world = left_in(phase).await;
        let cluster = Cluster::new(world.client());
        let all = touched(&cluster, &[]).await.unwrap();
        assert_eq!(all.into_iter().collect::<Vec<_>>(), [AppId::new(SPACE, "web")]);
        assert_eq!(brought(&world, Want::Restored).await, Progress::Done, "{phase}: {}", world.show());
        world.ready("web", 2).await;
        assert!(world.slices("web").is_empty(), "{phase}");
        let notes = world.deployment("web")["metadata"]["annotations"].clone();
        let ours: Vec<_> =
            notes.as_object().unwrap().keys().filter(|key| key.starts_with("kubenap/")).collect();
        assert_eq!(ours, ["kubenap/idleAfter"], "{phase}");
    }
}

#[tokio::test(start_paused = true)]
async fn slices_whose_deployment_is_gone_are_swept_by_hand() {
    let world = left_in("asleep").await;
    assert!(world.sandbox.delete("deployments", SPACE, "web"));
    assert_eq!(sweep(&Cluster::new(world.client()), &[]).await.unwrap(), 1);
    assert!(world.slices("web").is_empty());
    assert_eq!(brought(&world, Want::Restored).await, Progress::Gone);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_cannot_start_is_not_waited_for_in_silence() {
    let world = left_in("asleep").await;
    world.edit("deployments", "web", |app| {
        app["spec"]["template"]["metadata"]["annotations"] =
            Value::from_iter([("sandbox/broken", "ImagePullBackOff")]);
    });
    assert_eq!(brought(&world, Want::Awake).await, Progress::CannotStart("its image cannot be pulled"));
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_that_lies_about_does_not_keep_restore_from_waking() {
    let world = left_in("asleep").await;
    world.put(serde_json::json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-evicted", "namespace": SPACE, "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
        "status": {"phase": "Failed", "reason": "Evicted"}}));
    assert_eq!(brought(&world, Want::Restored).await, Progress::Done, "{}", world.show());
    world.ready("web", 2).await;
}
