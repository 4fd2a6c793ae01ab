//! Others who own an app's replicas: GitOps that sets them back, autoscalers that have a least.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::{Patch, PatchParams};
use kubenap_controller::run::Running;
use serde_json::{Value, json};

use crate::visitor;
use crate::world::{SPACE, World, ingress, service};

const GITOPS: &str = "argocd-controller";

/// What a GitOps tool does: applies what is in Git, the replicas included, under its own name.
async fn apply(world: &World, replicas: u32) {
    let api: Api<Deployment> = Api::namespaced(world.client(), SPACE);
    let manifest = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": replicas}});
    let params =
        PatchParams { field_manager: Some(GITOPS.to_owned()), force: true, ..PatchParams::default() };
    api.patch("web", &params, &Patch::Apply(&manifest)).await.unwrap();
}

async fn reverted(world: &World, times: usize) {
    for _ in 0..times {
        world.asleep("web").await;
        apply(world, 2).await;
        world.awake("web", 2).await;
    }
}

async fn in_git() -> (World, Running) {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    apply(&world, 2).await;
    let running = world.join(1).await;
    (world, running)
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_replicas_are_set_back_three_times_naps_no_more_and_it_is_told_by_whom() {
    let (world, running) = in_git().await;
    let guard = world.guard("web");
    reverted(&world, 1).await;
    let awake = world.events("web", "Awake");
    assert!(
        awake.iter().any(|note| note.contains("argocd-controller scaled it up while it slept")),
        "{awake:?}"
    );
    reverted(&world, 2).await;
    let epoch = world.note("web", "epoch");
    world.pass(1200).await;
    assert_eq!(
        (world.phase("web").as_str(), world.note("web", "epoch")),
        ("awake", epoch),
        "{}",
        world.show()
    );
    assert_eq!(World::label(&running, "web"), "reverted");
    let told = world.events("web", "NapRefused");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains(GITOPS) && told[0].contains("spec.replicas"), "{told:?}");
    let status = running.context().board.all().remove(0);
    assert!(status.complaints.iter().any(|complaint| complaint.contains(GITOPS)), "{status:?}");
    assert_eq!(guard.holes(), 0);
    // The hour is over.
    world.pass(3600).await;
    world.asleep("web").await;
}

#[tokio::test(start_paused = true)]
async fn who_fights_is_remembered_by_the_next_leader() {
    let (world, one) = in_git().await;
    reverted(&world, 2).await;
    one.crash();
    let two = world.join(2).await;
    reverted(&world, 1).await;
    two.crash();
    let three = world.join(3).await;
    world.pass(300).await;
    assert_eq!((world.phase("web").as_str(), World::label(&three, "web").as_str()), ("awake", "reverted"));
    // A person's wish does not end it either: the next one would be set back, too.
    world.annotate("web", "wish", "nap");
    world.until("the wish is refused", 30, || world.note("web", "wish").is_none()).await;
    assert_eq!(world.phase("web"), "awake");
}

#[tokio::test(start_paused = true)]
async fn taking_the_label_away_forgets_who_fought() {
    let (world, _running) = in_git().await;
    reverted(&world, 3).await;
    assert!(world.note("web", "reverts").is_some());
    world.edit("deployments", "web", |app| app["metadata"]["labels"] = json!({}));
    world.until("no trace", 30, || world.note("web", "reverts").is_none()).await;
    world.edit("deployments", "web", |app| app["metadata"]["labels"] = json!({"kubenap/enabled": "true"}));
    world.asleep("web").await;
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_scaled_up_now_and_then_naps_on() {
    let (world, _running) = in_git().await;
    for _ in 0..4 {
        reverted(&world, 1).await;
        world.annotate("web", "idleAfter", "1h");
        world.pass(1860).await;
        world.annotate("web", "idleAfter", "10s");
    }
    world.asleep("web").await;
    let reverts = world.note("web", "reverts").unwrap();
    assert!(reverts.split(',').count() <= 3, "bounded: {reverts}");
}

#[tokio::test(start_paused = true)]
async fn wakes_of_kubenaps_own_are_no_fights_and_leave_its_name_on_the_replicas() {
    let (world, _running) = in_git().await;
    for _ in 0..4 {
        world.asleep("web").await;
        assert_eq!(managers_of_replicas(&world), ["kubenap"], "{}", world.show());
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 200);
        world.awake("web", 2).await;
    }
    assert_eq!(world.note("web", "reverts"), None);
}

fn managers_of_replicas(world: &World) -> Vec<String> {
    let fields = world.deployment("web")["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let owns = |entry: &&Value| entry["fieldsV1"]["f:spec"].get("f:replicas").is_some();
    fields.iter().filter(owns).map(|entry| entry["manager"].as_str().unwrap().to_owned()).collect()
}

fn autoscaler(name: &str, least: u32, target: &str) -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": SPACE},
        "spec": {"minReplicas": least, "maxReplicas": 9,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": target}}})
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_comes_back_as_it_was_after_a_nap_and_a_wake() {
    for (replicas, least, after) in [(4, 2, 4), (1, 3, 3)] {
        let world = World::quick();
        world.app("web", replicas, &[]).await;
        world.put(autoscaler("web", least, "web"));
        world.put(autoscaler("other", 7, "other"));
        let before = world.sandbox.get("horizontalpodautoscalers", SPACE, "web").unwrap();
        let _running = world.join(1).await;
        world.asleep("web").await;
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        world.awake("web", after).await;
        assert_eq!(world.sandbox.get("horizontalpodautoscalers", SPACE, "web").unwrap(), before, "untouched");
        assert!(world.writes(0).iter().all(|write| write.plural != "horizontalpodautoscalers"));
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_autoscalers_the_one_that_owns_zero_and_else_the_greater_least_counts() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let mut keda = autoscaler("a-keda", 1, "web");
    keda["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "web", "uid": "1"}]);
    world.put(keda);
    world.put(autoscaler("z-plain", 5, "web"));
    let running = world.join(1).await;
    world.pass(120).await;
    assert_eq!(
        (world.phase("web").as_str(), World::label(&running, "web").as_str()),
        ("awake", "scaled-by-other")
    );
    assert!(world.sandbox.delete("horizontalpodautoscalers", SPACE, "a-keda"));
    world.put(autoscaler("b-plain", 2, "web"));
    world.asleep("web").await;
    world.annotate("web", "wish", "wake");
    world.awake("web", 5).await;
}

#[tokio::test(start_paused = true)]
async fn a_zero_that_an_autoscaler_owns_is_left_to_it() {
    let world = World::quick();
    world.put(crate::world::deployment("web", 0, &[]));
    world.put(service("web", "web"));
    world.put(ingress("web"));
    let mut keda = autoscaler("web", 1, "web");
    keda["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "web", "uid": "1"}]);
    world.put(keda);
    let _running = world.join(1).await;
    world.pass(120).await;
    assert!(world.writes(0).is_empty(), "{}", world.show());
}
