//! Requests to an app that sleeps, and what each of them gets.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use kubenap_controller::run::Running;
use kubenap_sandbox::Ingress;
use serde_json::json;

use crate::visitor::{self, Reply};
use crate::world::{Pace, World, host};

async fn ingress(world: &World) -> Ingress {
    world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap()
}

/// How often a patch of the Deployment lifted its count: what the wakes of an app cost.
fn scale_ups(world: &World) -> usize {
    world.events("web", "Waking").len()
}

#[tokio::test(start_paused = true)]
async fn a_get_is_sent_back_and_answered_by_the_woken_app() {
    let world = World::quick();
    world.app("web", 2, &[]).await;
    let ingress = ingress(&world).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    let reply = visitor::get(ingress.address(), &host("web"), "/hello?name=you%20there").await;
    assert_eq!(reply.status, 307, "{reply:?}\n{}", world.show());
    assert_eq!(reply.header("location"), Some("/hello?name=you%20there"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let reply = visitor::get(ingress.address(), &host("web"), "/hello?name=you%20there").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.body.contains("\"path\":\"/hello?name=you%20there\""), "{reply:?}");
    world.awake("web", 2).await;
    assert_eq!(scale_ups(&world), 1);
    let metrics = World::metrics(&running).await;
    assert!(metrics.contains("kubenap_wakes_total{outcome=\"awake\"} 1"), "{metrics}");
    assert!(metrics.contains("kubenap_held_requests 0"), "{metrics}");
    for part in ["scale", "schedule", "start", "ready", "release"] {
        let once = format!("kubenap_wake_part_duration_seconds_count{{part=\"{part}\"}} 1\n");
        assert!(metrics.contains(&once), "{part}: {metrics}");
    }
    assert!(metrics.contains("kubenap_wake_duration_seconds_count 1\n"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_wake_is_never_longer_than_it_was_on_any_member() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    let mut wakes = 0;
    for _ in 0..4 {
        world.asleep("web").await;
        for _ in 0..8 {
            visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        }
        world.awake("web", 1).await;
        wakes += 1;
        world.pass(60).await;
    }
    let mut counted = 0.0;
    for running in [&one, &two] {
        let metrics = World::metrics(running).await;
        let value = |name: &str| {
            let found = metrics.lines().find_map(|line| line.strip_prefix(name));
            found.map_or(0.0, |value| value.trim().parse::<f64>().unwrap())
        };
        let count = value("kubenap_wake_duration_seconds_count");
        assert!(value("kubenap_wake_duration_seconds_sum") <= count * 30.0, "{metrics}");
        assert!(count <= f64::from(wakes), "{metrics}");
        counted += count;
    }
    assert!(counted >= f64::from(wakes), "each wake was asked for here");
}

#[tokio::test(start_paused = true)]
async fn a_post_of_a_megabyte_arrives_whole_and_once() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    let body = vec![b'x'; 1 << 20];
    let reply = visitor::post(world.cluster_ip("web", 80), "web", "/form", &body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(
        reply.body.contains("\"method\":\"POST\"") && reply.body.contains("\"body\":1048576"),
        "{reply:?}"
    );
    world.awake("web", 1).await;
}

/// Two members stand in for an app that sleeps, on a clock that does not jump.
async fn sleeping_for_real() -> (World, Running, Running) {
    let world = World::new(Pace::REAL);
    world.app("web", 2, &[("idleAfter", "1h")]).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    world.pass(1).await;
    world.annotate("web", "wish", "forceNap");
    world.asleep("web").await;
    world.until("both stand in", 10, || world.members_in("web").len() == 2).await;
    (world, one, two)
}

#[tokio::test]
async fn two_hundred_at_once_wake_it_once() {
    let (world, _one, _two) = sleeping_for_real().await;
    let at = world.cluster_ip("web", 80);
    let visits = (0..200).map(|visit| async move { visitor::get(at, "web", &format!("/{visit}")).await });
    let replies: Vec<Reply> = futures::future::join_all(visits).await;
    let lost: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
    assert!(lost.is_empty(), "{} lost: {:?}", lost.len(), lost.first());
    world.awake("web", 2).await;
    assert_eq!(scale_ups(&world), 1, "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn a_request_in_the_drowsy_phase_is_answered_and_cancels_the_nap() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.until("a slice", 30, || !world.slices("web").is_empty()).await;
    let mut visits = 0;
    while world.phase("web") == "drowsy" {
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
        visits += 1;
        assert!(visits < 100, "no request came to KubeNap: {}", world.show());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.awake("web", 1).await;
    assert_eq!(world.events("web", "Asleep").len(), 0);
    assert_eq!(world.replicas("web"), 1);
    assert!(world.note("web", "reason").unwrap().starts_with("asked-while-drowsy: "));
}

#[tokio::test(start_paused = true)]
async fn a_body_of_unknown_length_is_passed() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    let head =
        "POST /chunks HTTP/1.1\r\nHost: web\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let body = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n";
    let reply = visitor::send(world.cluster_ip("web", 80), head, body).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(reply.body.contains("\"body\":11"), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn a_websocket_is_passed_to_the_pod_it_woke_and_outlives_the_wake() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    let (reply, echo) = visitor::upgrade(world.cluster_ip("web", 80), "web", "are you there?").await;
    assert_eq!(reply.status, 101, "{reply:?}");
    assert_eq!(echo, "are you there?");
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_proxys_error_path_wakes_by_the_host_and_leads_back() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    let strange = visitor::get(running.proxies[0], "nobody.example", "/wake?original=%2Fhello").await;
    assert_eq!(strange.status, 404);
    let nowhere = visitor::get(running.proxies[0], &host("web"), "/wake?original=https%3A%2F%2Fevil").await;
    assert_eq!(nowhere.status, 400);
    world.pass(5).await;
    assert_eq!(world.phase("web"), "asleep", "neither wakes anything");
    let reply = visitor::get(running.proxies[0], &host("web"), "/wake?original=%2Fhello%3Fa%3Db").await;
    assert_eq!(reply.status, 307, "{reply:?}");
    assert_eq!(reply.header("location"), Some("/hello?a=b"));
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn probes_and_ignored_requests_wake_nothing() {
    let world = World::quick();
    world.app("web", 1, &[("ignorePaths", "/metrics"), ("ignoreUserAgents", "curious")]).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    let at = world.cluster_ip("web", 80);
    for (path, agent) in
        [("/", "kube-probe/1.34"), ("/metrics", "x"), ("/", "CuriousBot"), ("/favicon.ico", "x")]
    {
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: web\r\nUser-Agent: {agent}\r\nConnection: close\r\n\r\n");
        let reply = visitor::send(at, &head, b"").await;
        assert_eq!(reply.status, 503, "{path} {agent}: {reply:?}");
        assert!(reply.header("retry-after").is_some());
    }
    world.pass(30).await;
    assert_eq!((world.phase("web").as_str(), world.replicas("web")), ("asleep", 0));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_cannot_start_says_so_quickly_and_heals() {
    for (broken, reason) in [
        ("ImagePullBackOff", "image"),
        ("CrashLoopBackOff", "crash-loop"),
        ("Unschedulable", "unschedulable"),
    ] {
        let world = World::quick();
        world.app("web", 1, &[]).await;
        let _running = world.join(1).await;
        world.asleep("web").await;
        world.edit("deployments", "web", |app| {
            app["spec"]["template"]["metadata"]["annotations"] = json!({ "sandbox/broken": broken });
        });
        let begun = world.elapsed();
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 503, "{broken}: {reply:?}");
        assert!(world.elapsed() < begun + Duration::from_secs(5), "{broken}: not quick");
        assert!(reply.head.contains(reason), "{broken}: {reply:?}");
        assert!(reply.body.contains("the app cannot start"), "{broken}: {reply:?}");
        assert!(reply.header("retry-after").is_some());
        world.pass(20).await;
        assert_eq!(world.events("web", "WakeFailed").len(), 1, "{broken}: {}", world.show());
        world
            .edit("deployments", "web", |app| app["spec"]["template"]["metadata"]["annotations"] = json!({}));
        world.awake("web", 1).await;
        let reply = visitor::get(world.cluster_ip("web", 80), "web", "/").await;
        assert_eq!(reply.status, 200, "{broken}: {reply:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_refused_while_a_wake_takes_longer_than_hold_for() {
    let world = World::quick();
    world.app("web", 1, &[("holdFor", "2s")]).await;
    let ingress = ingress(&world).await;
    let _running = world.join(1).await;
    world.asleep("web").await;
    world.edit("deployments", "web", |app| {
        app["spec"]["template"]["metadata"]["annotations"] = json!({ "sandbox/readyDelay": "20s" });
    });
    let mut hops = 0;
    let reply = loop {
        let reply = visitor::get(ingress.address(), &host("web"), "/").await;
        if reply.status != 307 {
            break reply;
        }
        hops += 1;
        assert!(hops < 20, "a loop");
    };
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!((2..15).contains(&hops), "{hops} hops");
    world.awake("web", 1).await;
}

#[tokio::test]
async fn a_member_that_leaves_loses_nobody_it_holds() {
    let (world, one, _two) = sleeping_for_real().await;
    let at = world.cluster_ip("web", 80);
    let visits = (0..50).map(|visit| async move { visitor::get(at, "web", &format!("/{visit}")).await });
    let (replies, ()) = tokio::join!(futures::future::join_all(visits), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        one.leave().await;
    });
    let lost: Vec<_> = replies.iter().filter(|reply| !matches!(reply.status, 200 | 307)).collect();
    assert!(lost.is_empty(), "{} lost: {:?}", lost.len(), lost.first());
    world.awake("web", 2).await;
}

#[tokio::test]
async fn a_post_that_a_leaving_member_holds_is_answered_by_the_app() {
    let (world, one, two) = sleeping_for_real().await;
    // The other one is gone: nobody but the leaving member can wake it.
    two.leave().await;
    let at = world.cluster_ip("web", 80);
    let (reply, ()) = tokio::join!(visitor::post(at, "web", "/order", b"one book"), async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        one.leave().await;
    });
    assert_eq!(reply.status, 200, "{reply:?}");
}
