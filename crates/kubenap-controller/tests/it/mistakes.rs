//! What is wrong costs money, never availability: the app stays awake, and one Event says why.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use serde_json::{Value, json};

use crate::world::{SPACE, World, deployment, ingress, service};

/// Sets a mistake up, lets many polls pass, and counts what was said.
async fn refused(what: &str, reason: &str, said: &str, spoil: impl FnOnce(&World)) {
    let world = World::quick();
    world.put(deployment("web", 1, &[]));
    world.put(service("web", "web"));
    world.put(ingress("web"));
    spoil(&world);
    let _running = world.join(1).await;
    world.pass(300).await;
    assert_eq!(world.phase("web"), "awake", "{what}");
    assert_eq!(world.replicas("web"), 1, "{what}");
    let told = world.events("web", reason);
    assert_eq!(told.len(), 1, "{what}: {told:?}");
    assert!(told[0].contains(said), "{what}: {told:?}");
    let others = world.sandbox.list("events", Some(SPACE)).len();
    assert_eq!(others, 1, "{what}: {}", world.show());
    assert!(world.patches("web").is_empty(), "{what}");
}

/// Leaves the app alone, without any Event: it passes by itself.
async fn waits(what: &str, spoil: impl FnOnce(&World), mend: impl FnOnce(&World)) {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    spoil(&world);
    let _running = world.join(1).await;
    world.pass(120).await;
    assert_eq!(world.phase("web"), "awake", "{what}");
    assert!(world.writes(0).is_empty(), "{what}: {}", world.show());
    mend(&world);
    world.asleep("web").await;
}

fn with_service(change: impl FnOnce(&mut Value)) -> impl FnOnce(&World) {
    move |world| {
        assert!(world.sandbox.delete("services", SPACE, "web"));
        let mut web = service("web", "web");
        change(&mut web["spec"]);
        world.put(web);
    }
}

#[tokio::test(start_paused = true)]
async fn each_wrong_annotation_leaves_the_app_alone_with_one_event() {
    let wrong = [
        ("idleAfter", "1d", "is not a duration"),
        ("idleAfter", "10ms", "is too short"),
        ("idleAfter", "99999999999999999999h", "is not a duration"),
        ("idleAfter", "", "is not a duration"),
        ("replicaCount", "0", "is not understood"),
        ("replicaCount", "two", "is not understood"),
        ("service", "no-such", "does not exist"),
        ("service", "Web!", "is not understood"),
        ("ingress", "no-such", "does not exist"),
        ("proxy", "squid", "is not understood"),
        ("wake", "maybe", "is not understood"),
        ("holdFor", "soon", "is not a duration"),
        ("wakeTimeout", "0s", "is too short"),
        ("metrics", "graphite", "names a source that is not configured"),
        ("ignorePaths", "metrics", "is not understood"),
        ("ignoreUserAgents", "x", "is not understood"),
        ("adoptZero", "yes", "is not understood"),
        ("substitute", "no", "is not understood"),
        ("hook", "yes", "is not understood"),
        ("query", "up", "is asked by no source that counts for it (script)"),
        ("awakeDuring", "always", "not carried out by this version"),
        ("dependsOn", "shop/db", "not carried out by this version"),
        ("wish", "sleep", "is not understood"),
        ("idle-after", "10m", "did you mean kubenap/idleAfter?"),
        ("sleepy", "true", "is not a key of KubeNap"),
        ("enabled", "true", "this key as a label"),
    ];
    for (key, value, said) in wrong {
        let spoil = |world: &World| world.annotate("web", key, value);
        refused(&format!("{key}={value:?}"), "BadAnnotation", said, spoil).await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_service_that_cannot_be_stood_in_for_is_refused_with_one_event() {
    refused("headless", "NapRefused", "is headless", with_service(|spec| spec["clusterIP"] = json!("None")))
        .await;
    refused(
        "udp",
        "NapRefused",
        "has a port that is not TCP",
        with_service(|spec| {
            let udp = json!({"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53});
            spec["ports"].as_array_mut().unwrap().push(udp);
        }),
    )
    .await;
    refused(
        "not ready too",
        "NapRefused",
        "has publishNotReadyAddresses",
        with_service(|spec| {
            spec["publishNotReadyAddresses"] = json!(true);
        }),
    )
    .await;
    refused(
        "local",
        "NapRefused",
        "a traffic policy Local",
        with_service(|spec| {
            spec["internalTrafficPolicy"] = json!("Local");
        }),
    )
    .await;
    refused("external name", "NapRefused", "ExternalName", |world| {
        world.annotate("web", "service", "web");
        with_service(|spec| *spec = json!({"type": "ExternalName", "externalName": "web.example"}))(world);
    })
    .await;
    refused("no selector", "NapRefused", "has no selector", |world| {
        world.annotate("web", "service", "web");
        with_service(|spec| spec["selector"] = Value::Null)(world);
    })
    .await;
    refused("none", "NapRefused", "no Service selects its pods", |world| {
        assert!(world.sandbox.delete("services", SPACE, "web"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_service_shared_with_a_deployment_that_is_not_opted_in_is_refused() {
    refused("shared", "NapRefused", "it shares a Service with shop/stranger", |world| {
        let mut stranger = deployment("stranger", 1, &[]);
        stranger["metadata"]["labels"] = json!({});
        stranger["metadata"]["annotations"] = json!({});
        stranger["spec"]["template"]["metadata"]["labels"]["app"] = json!("stranger");
        world.put(stranger);
        with_service(|spec| spec["selector"] = json!({"behind": "front"}))(world);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_autoscaler_that_may_go_to_zero_is_left_alone() {
    refused("keda", "NapRefused", "HorizontalPodAutoscaler web scales it to zero by itself", |world| {
        let mut keda = autoscaler(1);
        let owner =
            json!({"apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "name": "web", "uid": "1"});
        keda["metadata"]["ownerReferences"] = json!([owner]);
        world.put(keda);
    })
    .await;
}

fn autoscaler(least: u32) -> Value {
    json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "web", "namespace": SPACE},
        "spec": {"minReplicas": least, "maxReplicas": 9,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}}})
}

#[tokio::test(start_paused = true)]
async fn a_wake_gives_an_autoscaler_its_least() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    world.put(autoscaler(3));
    world.annotate("web", "wish", "wake");
    world.awake("web", 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_paused_or_unready_app_is_waited_for() {
    waits(
        "paused",
        |world| world.edit("deployments", "web", |app| app["spec"]["paused"] = json!(true)),
        |world| world.edit("deployments", "web", |app| app["spec"]["paused"] = json!(false)),
    )
    .await;
    let noted = |notes: Value| {
        move |world: &World| {
            world
                .edit("deployments", "web", |app| app["spec"]["template"]["metadata"]["annotations"] = notes);
        }
    };
    waits("a rollout that hangs", noted(json!({"sandbox/broken": "ImagePullBackOff"})), noted(json!({})))
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_mistake_that_is_mended_ends_its_refusal_and_is_told_again_when_it_comes_back() {
    let world = World::quick();
    world.app("web", 1, &[("idleAfter", "1d")]).await;
    let _running = world.join(1).await;
    world.pass(30).await;
    world.annotate("web", "idleAfter", "10s");
    world.asleep("web").await;
    world.annotate("web", "idleAfter", "1d");
    world.pass(30).await;
    assert_eq!(world.events("web", "BadAnnotation").len(), 1, "the Event of the first time is still there");
    forget_events(&world);
    world.annotate("web", "idleAfter", "10s");
    world.pass(30).await;
    world.annotate("web", "idleAfter", "1d");
    world.pass(30).await;
    assert_eq!(world.events("web", "BadAnnotation").len(), 1, "told again once it is gone");
    assert_eq!((world.phase("web").as_str(), world.replicas("web")), ("asleep", 0));
    world.annotate("web", "wish", "wake");
    world.awake("web", 1).await;
}

/// What the API server does with Events after an hour.
fn forget_events(world: &World) {
    for event in world.sandbox.list("events", Some(SPACE)) {
        assert!(world.sandbox.delete("events", SPACE, event["metadata"]["name"].as_str().unwrap()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_once_though_traffic_comes_between_and_another_member_leads() {
    let world = World::quick();
    world.put(deployment("web", 1, &[]));
    world.put(ingress("web"));
    let one = world.join(1).await;
    world.until("it is told", 60, || world.events("web", "NapRefused").len() == 1).await;
    // A leader that told it does not even try again.
    forget_events(&world);
    world.put(service("web", "web"));
    world.pass(2).await;
    assert!(world.sandbox.delete("services", SPACE, "web"));
    world.pass(120).await;
    assert_eq!(world.events("web", "NapRefused").len(), 0, "{}", world.show());
    // One that begins anew tells it, and the next one's is the same Event.
    one.crash();
    let two = world.join(2).await;
    world.until("it is told again", 120, || world.events("web", "NapRefused").len() == 1).await;
    two.crash();
    let three = world.join(3).await;
    world.until("another leads", 120, || three.context().lead.holds()).await;
    world.pass(60).await;
    assert_eq!(World::label(&three, "web"), "no-service");
    assert_eq!(world.events("web", "NapRefused").len(), 1, "{}", world.show());
}
