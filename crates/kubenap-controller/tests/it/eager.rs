//! A pod that answers, and that its kubelet has not called ready yet: who is let go to it, and who waits.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use kubenap_controller::run::Running;
use serde_json::{Value, json};

use crate::visitor;
use crate::world::{World, deployment, host, ingress, service};

/// A pod of the sandbox listens after half of this time, and is ready after all of it.
const READY_DELAY: &str = "8s";

/// An app whose pods answer four seconds before they are called ready, asleep.
async fn sleeping(change: impl FnOnce(&mut Value)) -> (World, Running) {
    let world = World::quick();
    let mut app = deployment("web", 1, &[]);
    app["spec"]["template"]["metadata"]["annotations"] = json!({ "sandbox/readyDelay": READY_DELAY });
    change(&mut app);
    world.put(app);
    let mut both = service("web", "web");
    both["spec"]["ports"] = json!([
        {"name": "http", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 90, "targetPort": "admin"},
    ]);
    world.put(both);
    world.put(ingress("web"));
    world.ready("web", 1).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    (world, running)
}

/// A request that is passed: when it was answered, and how many pods were ready then.
async fn post(world: &World, port: u16) -> (Duration, u32) {
    let begun = world.elapsed();
    let reply = visitor::post(world.cluster_ip("web", port), "web", "/order", b"one book").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", world.show());
    (world.elapsed().saturating_sub(begun), world.ready_replicas("web"))
}

#[tokio::test(start_paused = true)]
async fn what_is_passed_goes_to_a_pod_that_answers_and_what_is_sent_back_waits_for_the_service() {
    let (world, _running) = sleeping(|_| {}).await;
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let ((at_http, ready_then), (at_admin, _), (sent_back, at_redirect)) =
        tokio::join!(post(&world, 80), post(&world, 90), async {
            let begun = world.elapsed();
            let reply = visitor::get(ingress.address(), &host("web"), "/hello").await;
            (reply, world.elapsed().saturating_sub(begun))
        });
    assert_eq!(ready_then, 0, "{}", world.show());
    for passed in [at_http, at_admin] {
        assert!(passed > Duration::from_secs(3) && passed < Duration::from_secs(6), "{passed:?}");
    }
    assert_eq!(sent_back.status, 307, "{sent_back:?}");
    assert!(at_redirect >= Duration::from_secs(8), "{at_redirect:?}");
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_probe_only_the_kubelet_can_run_is_waited_for() {
    let (world, _running) = sleeping(|app| {
        app["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
            json!({"exec": {"command": ["/check"]}});
    })
    .await;
    let (passed, ready_then) = post(&world, 80).await;
    assert!(passed >= Duration::from_secs(8), "{passed:?}");
    assert_eq!(ready_then, 1);
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_does_not_succeed_keeps_the_door_shut_until_the_kubelet_opens_it() {
    let (world, _running) = sleeping(|app| {
        app["spec"]["template"]["spec"]["containers"][0]["readinessProbe"] =
            json!({"httpGet": {"path": "/own503", "port": "http"}});
    })
    .await;
    let (passed, _) = post(&world, 80).await;
    assert!(passed >= Duration::from_secs(8), "{passed:?}");
    world.awake("web", 1).await;
}
