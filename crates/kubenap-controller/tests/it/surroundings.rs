//! What happens around an app while it sleeps: undone rollouts, lost labels, other ports, things deleted.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use kubenap_sandbox::{Effect, Fault};
use serde_json::{Value, json};

use crate::visitor;
use crate::world::{SPACE, World};

async fn sleeping() -> (World, kubenap_controller::run::Running) {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    (world, running)
}

fn own_notes(app: &Value) -> Vec<String> {
    let keys = app["metadata"]["annotations"].as_object().unwrap().keys();
    keys.filter(|key| key.starts_with("kubenap/")).cloned().collect()
}

#[tokio::test(start_paused = true)]
async fn an_undone_rollout_with_old_annotations_loses_nothing() {
    let (world, _running) = sleeping().await;
    // What `kubectl rollout undo` does: all annotations are the old ReplicaSet's.
    world.edit("deployments", "web", |app| {
        app["metadata"]["annotations"] = json!({ "kubenap/idleAfter": "10s" });
        app["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:0");
    });
    world.until("it is written down again", 20, || world.note("web", "restoreReplicas").is_some()).await;
    assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("2"));
    assert_eq!(world.note("web", "epoch").as_deref(), Some("1"));
    let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    world.awake("web", 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_app_stranded_at_zero_since_the_last_member_left_after_an_undone_rollout_wakes_with_its_count() {
    // What goes wrong besides: nothing can be written on the Deployment; it cannot be read either.
    for verbs in [["patch"].as_slice(), ["patch", "get"].as_slice()] {
        let (world, running) = sleeping().await;
        for verb in verbs {
            let refused = Fault::new(Effect::FailBefore(500)).verb(verb).resource("deployments").name("web");
            world.sandbox.faults().inject(refused);
        }
        world.edit("deployments", "web", |app| {
            app["metadata"]["annotations"] = json!({ "kubenap/idleAfter": "10s" });
        });
        world.pass(1).await;
        running.leave().await;
        world.sandbox.faults().clear();
        assert_eq!(world.note("web", "restoreReplicas"), None, "it was written down after all");
        let left = world.slices("web");
        let addresses =
            left.iter().filter_map(|slice| slice["endpoints"].as_array()).map(Vec::len).sum::<usize>();
        assert_eq!(addresses, 0, "a member that has left is still an endpoint: {left:?}");
        world.pass(60).await;

        let _next = world.join(2).await;
        world.until("it is written down again", 60, || world.note("web", "restoreReplicas").is_some()).await;
        assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("2"));
        world.until("the old slice is swept", 60, || world.members_in("web") == ["m2"]).await;
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        world.awake("web", 2).await;
        world.until("no slice is left", 30, || world.slices("web").is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_slice_that_was_emptied_is_swept_when_its_member_is_back_and_the_owner_has_scaled_up() {
    let (world, running) = sleeping().await;
    world.sandbox.faults().inject(Fault::new(Effect::FailBefore(500)).verb("patch").resource("deployments"));
    world.edit("deployments", "web", |app| {
        app["metadata"]["annotations"] = json!({ "kubenap/idleAfter": "10s" });
    });
    world.pass(1).await;
    running.leave().await;
    world.sandbox.faults().clear();
    assert!(!world.slices("web").is_empty(), "nothing remembers the count");
    world.edit("deployments", "web", |app| app["spec"]["replicas"] = 3.into());
    let from = world.sandbox.log().len();
    let _again = world.join(1).await;
    world.awake("web", 3).await;
    world.until("no slice is left", 30, || world.slices("web").is_empty()).await;
    let writes = world.writes(from);
    assert!(writes.len() < 20, "{} writes\n{}", writes.len(), world.show());
}

#[tokio::test(start_paused = true)]
async fn an_undo_to_the_record_of_an_older_nap_is_not_believed() {
    let (world, _running) = sleeping().await;
    let old = world.deployment("web")["metadata"]["annotations"].clone();
    world.annotate("web", "wish", "wake");
    world.awake("web", 2).await;
    world.edit("deployments", "web", |app| app["spec"]["replicas"] = json!(3));
    world.asleep("web").await;
    assert_eq!(world.note("web", "epoch").as_deref(), Some("2"));
    world.edit("deployments", "web", |app| app["metadata"]["annotations"] = old);
    world.pass(5).await;
    world.annotate("web", "wish", "wake");
    world.awake("web", 3).await;
}

#[tokio::test(start_paused = true)]
async fn an_undo_that_is_undone_while_it_sleeps_does_not_strand_it_at_zero() {
    let (world, _running) = sleeping().await;
    let wake = async || {
        world.annotate("web", "wish", "wake");
        world.awake("web", 2).await;
    };
    let undo = |revision: &Value| {
        world.edit("deployments", "web", |app| {
            app["spec"]["template"] = revision["spec"]["template"].clone();
            app["metadata"]["annotations"] = revision["metadata"]["annotations"].clone();
        });
    };
    wake().await;
    let first = world.deployment("web");
    world.edit("deployments", "web", |app| {
        app["spec"]["template"]["metadata"]["annotations"] = json!({ "version": "2" });
    });
    world.pass(3).await;
    world.ready("web", 2).await;
    for _ in 0..3 {
        world.asleep("web").await;
        wake().await;
    }
    let second = world.deployment("web");
    undo(&first);
    world.pass(3).await;
    world.asleep("web").await;
    // These annotations tell of more naps than the first revision's, and that the app is awake.
    undo(&second);
    world.pass(5).await;
    let reply = visitor::get(world.cluster_ip("web", 80), "web.shop.example", "/").await;
    assert_eq!(reply.status, 200, "{}", world.show());
    world.awake("web", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_label_that_is_taken_away_wakes_the_app_and_leaves_no_trace() {
    let (world, _running) = sleeping().await;
    world.edit("deployments", "web", |app| app["metadata"]["labels"] = json!({}));
    gone_without_trace(&world).await;
}

#[tokio::test(start_paused = true)]
async fn a_label_that_is_taken_away_while_no_controller_runs_is_noticed_at_the_start() {
    let (world, running) = sleeping().await;
    running.crash();
    world.edit("deployments", "web", |app| app["metadata"]["labels"] = json!({}));
    world.pass(5).await;
    let _next = world.join(2).await;
    gone_without_trace(&world).await;
}

async fn gone_without_trace(world: &World) {
    world
        .until("no trace", 60, || {
            let app = world.deployment("web");
            app["status"]["readyReplicas"] == 2
                && own_notes(&app) == ["kubenap/idleAfter"]
                && world.slices("web").is_empty()
        })
        .await;
    world.pass(60).await;
    assert_eq!(own_notes(&world.deployment("web")), ["kubenap/idleAfter"]);
    assert!(world.slices("web").is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_deployment_deleted_while_asleep_takes_the_slices_along() {
    let (world, _running) = sleeping().await;
    assert!(world.sandbox.delete("deployments", SPACE, "web"));
    world.until("the slices are gone", 10, || world.slices("web").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_is_made_again_while_the_old_one_sleeps_starts_awake() {
    let (world, _running) = sleeping().await;
    assert!(world.sandbox.delete("deployments", SPACE, "web"));
    world.put(crate::world::deployment("web", 1, &[("idleAfter", "1h")]));
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn slices_follow_the_services_ports_while_asleep() {
    let (world, _running) = sleeping().await;
    world.edit("services", "web", |service| {
        service["spec"]["ports"][0]["port"] = json!(8081);
        let admin = json!({"name": "admin", "port": 9090, "targetPort": "admin", "protocol": "TCP"});
        service["spec"]["ports"].as_array_mut().unwrap().push(admin);
    });
    world.until("two ports", 10, || world.slices("web")[0]["ports"].as_array().unwrap().len() == 2).await;
    let reply = visitor::get(world.cluster_ip("web", 9090), "web", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    world.awake("web", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_deleted_while_asleep_wakes_the_app() {
    let (world, _running) = sleeping().await;
    assert!(world.sandbox.delete("services", SPACE, "web"));
    world.until("its pods run", 30, || world.ready_replicas("web") == 2).await;
    assert!(world.slices("web").is_empty());
    world.put(crate::world::service("web", "web"));
    world.awake("web", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_template_changed_while_asleep_is_what_wakes() {
    let (world, _running) = sleeping().await;
    world.edit("deployments", "web", |app| {
        app["spec"]["template"]["spec"]["containers"][0]["image"] = json!("app:2");
    });
    world.pass(5).await;
    assert_eq!(world.replicas("web"), 0);
    let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    world.awake("web", 2).await;
    let images = world.sandbox.list("pods", Some(SPACE));
    assert!(images.iter().all(|pod| pod["spec"]["containers"][0]["image"] == "app:2"));
}

#[tokio::test(start_paused = true)]
async fn a_label_taken_away_after_every_member_left_in_order_wakes_the_app_at_the_next_start() {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    let one = world.join(1).await;
    world.asleep("web").await;
    one.leave().await;
    assert!(world.slices("web").is_empty());
    world.edit("deployments", "web", |web| {
        web["metadata"]["labels"].as_object_mut().unwrap().remove("kubenap/enabled");
    });
    let _two = world.join(2).await;
    world
        .until("awake without a trace", 60, || {
            world.replicas("web") == 2 && world.note("web", "phase").is_none()
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_sleeping_copy_with_the_ports_of_the_original_gets_ports_of_its_own() {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    let _one = world.join(1).await;
    world.asleep("web").await;
    let ports = world.note("web", "wakePorts").unwrap().replace("web:", "copy:");
    let state = [("phase", "asleep"), ("epoch", "1"), ("restoreReplicas", "1")];
    world.put(crate::world::service("copy", "copy"));
    let mut copy = crate::world::deployment("copy", 0, &state);
    copy["metadata"]["annotations"]["kubenap/wakePorts"] = ports.into();
    world.put(copy);
    world.until("a slice of its own", 60, || !world.slices("copy").is_empty()).await;
    assert_ne!(world.slices("copy")[0]["ports"][0]["port"], world.slices("web")[0]["ports"][0]["port"]);
}
