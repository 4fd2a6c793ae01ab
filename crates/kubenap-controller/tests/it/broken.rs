//! Apps that cannot start: each is told within two seconds and once, its replicas stay wanted, and healed it wakes.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::net::SocketAddr;
use std::time::Duration;

use kubenap_controller::run::Running;
use kubenap_sandbox::{Effect, Fault};
use serde_json::{Value, json};

use crate::visitor::{self, Reply};
use crate::world::{SPACE, World};

/// How soon a fact that the API shows must reach those who ask.
const SOON: Duration = Duration::from_secs(2);

async fn sleeping(annotations: &[(&str, &str)]) -> (World, Running, SocketAddr) {
    let world = World::quick();
    world.app("web", 2, annotations).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    let at = world.cluster_ip("web", 80);
    (world, running, at)
}

fn broken(how: &'static str) -> impl Fn(&World) {
    move |world| {
        world.edit("deployments", "web", |app| {
            app["spec"]["template"]["metadata"]["annotations"] = match how {
                "" => json!({}),
                _ => json!({ "sandbox/broken": how }),
            };
        });
    }
}

fn no_pods(why: &'static str) -> impl Fn(&World) {
    move |world| {
        world
            .sandbox
            .edit("namespaces", "", SPACE, |space| {
                space["metadata"]["annotations"] =
                    if why.is_empty() { json!({}) } else { json!({ "sandbox/noPods": why }) };
            })
            .unwrap();
    }
}

fn ensure_named(reply: &Reply, reason: &str) -> u64 {
    assert_eq!(reply.status, 503, "{reply:?}");
    assert_eq!(reply.header("x-kubenap-reason"), Some(reason), "{reply:?}");
    assert!(reply.body.starts_with("the app cannot start: "), "{reply:?}");
    reply.header("retry-after").unwrap().parse().unwrap()
}

/// Breaks a sleeping app, asks for it, and follows it until it is mended and well.
async fn fails(reason: &str, breaks: impl Fn(&World), mends: impl Fn(&World)) {
    let (world, running, at) = sleeping(&[]).await;
    breaks(&world);
    let reply = visitor::get(at, "web", "/").await;
    ensure_named(&reply, reason);
    let visible = seen_in_the_api(&world).unwrap();
    assert!(
        world.elapsed() <= visible + SOON,
        "{reason}: told after {:?}, seen at {visible:?}",
        world.elapsed()
    );
    let post = visitor::post(at, "web", "/order", b"one book").await;
    ensure_named(&post, reason);

    world.pass(120).await;
    assert_eq!(world.replicas("web"), 2, "{reason}: the replicas stay wanted");
    assert_eq!(world.phase("web"), "waking", "{reason}: what is not ready does not nap");
    let told = world.events("web", "WakeFailed");
    assert_eq!(told.len(), 1, "{reason}: {}", world.show());
    assert!(told[0].contains("it cannot start"), "{told:?}");
    assert_eq!(World::label(&running, "web"), "cannot-start");
    let metrics = World::metrics(&running).await;
    assert!(metrics.contains("kubenap_wakes_total{outcome=\"failed\"} 1\n"), "{reason}: {metrics}");
    let before = world.patches("web").len();
    world.pass(600).await;
    assert_eq!(world.patches("web").len(), before, "{reason}: nobody asks, so nothing is written");

    mends(&world);
    let mut asked = 0;
    while visitor::get(at, "web", "/").await.status != 200 {
        asked += 1;
        assert!(asked < 30, "{reason}: mended, and nobody wakes it\n{}", world.show());
        world.pass(5).await;
    }
    world.awake("web", 2).await;
    assert_eq!(world.events("web", "WakeFailed").len(), 1, "{reason}");
    let metrics = World::metrics(&running).await;
    assert!(metrics.contains("kubenap_wakes_total{outcome=\"awake\"} 1\n"), "{reason}: {metrics}");
}

/// When a pod or the Deployment first showed what is wrong, as far as their whole seconds tell.
fn seen_in_the_api(world: &World) -> Option<Duration> {
    let start = world.sandbox.settings().start;
    let moment = |condition: &Value| {
        let at: jiff::Timestamp = condition["lastTransitionTime"].as_str()?.parse().ok()?;
        Duration::try_from(at.duration_since(start)).ok()
    };
    let conditions = |object: &Value| object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let objects = world.sandbox.list("pods", Some(SPACE)).into_iter().chain([world.deployment("web")]);
    objects
        .flat_map(|object| conditions(&object))
        .filter(|one| {
            one["reason"] == "ContainersNotReady"
                || one["reason"] == "Unschedulable"
                || one["type"] == "ReplicaFailure"
        })
        .filter_map(|one| moment(&one))
        .max()
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_missing_is_told_at_once_and_the_app_wakes_when_it_is_there() {
    fails("image", broken("ImagePullBackOff"), broken("")).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_told_at_once_and_the_app_wakes_when_it_is_mended() {
    fails("crash-loop", broken("CrashLoopBackOff"), broken("")).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_node_takes_is_told_at_once_and_a_node_that_comes_wakes_the_app() {
    fails("unschedulable", broken("Unschedulable"), broken("")).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_is_told_at_once_and_the_app_wakes_when_it_is_there() {
    fails("config", broken("CreateContainerConfigError"), broken("")).await;
}

#[tokio::test(start_paused = true)]
async fn a_quota_is_told_at_once_and_the_next_request_after_it_is_lifted_wakes_the_app() {
    fails("quota", no_pods("exceeded quota: none, requested: pods=1, used: pods=0"), no_pods("")).await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_admission_forbids_are_told_at_once_and_the_next_request_wakes_the_app() {
    fails("refused", no_pods("violates PodSecurity \"restricted\""), no_pods("")).await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_an_app_under_a_quota_makes_kubernetes_try_again_and_ever_more_seldom() {
    let (world, _running, at) = sleeping(&[]).await;
    no_pods("exceeded quota: none")(&world);
    visitor::get(at, "web", "/").await;
    let before = world.patches("web").len();
    let mut retry_after = Vec::new();
    for _ in 0..300 {
        retry_after.push(ensure_named(&visitor::get(at, "web", "/").await, "quota"));
        world.pass(1).await;
    }
    let mut grown = retry_after.clone();
    grown.sort_unstable();
    assert_eq!(grown, retry_after, "it only grows");
    grown.dedup();
    assert_eq!(grown, [2, 4, 8, 16, 32, 60]);
    let pushes = world.patches("web").len() - before;
    assert!((5..=9).contains(&pushes), "{pushes} patches in five minutes of asking\n{}", world.show());
    assert!(world.note("web", "reason").unwrap().contains("tried again at"), "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn what_never_gets_ready_is_told_when_the_time_for_a_wake_is_over_and_serves_when_it_is_ready_at_last()
{
    let (world, running, at) = sleeping(&[("wakeTimeout", "30s"), ("holdFor", "2s")]).await;
    world.edit("deployments", "web", |app| {
        app["spec"]["template"]["metadata"]["annotations"] = json!({ "sandbox/readyDelay": "4m" });
    });
    let reply = visitor::get(at, "web", "/").await;
    assert_eq!(reply.status, 503, "held for all of its time: {reply:?}");
    world.pass(2).await;
    ensure_named(&visitor::get(at, "web", "/").await, "not-ready");
    world.pass(60).await;
    assert_eq!(world.events("web", "WakeFailed").len(), 1, "{}", world.show());
    let metrics = World::metrics(&running).await;
    assert!(metrics.contains("kubenap_wakes_total{outcome=\"timed-out\"} 1\n"), "{metrics}");
    assert_eq!((world.replicas("web"), world.phase("web").as_str()), (2, "waking"));
    let mut asked = 0;
    while visitor::get(at, "web", "/").await.status != 200 {
        asked += 1;
        assert!(asked < 60, "ready, and not served\n{}", world.show());
        world.pass(5).await;
    }
    world.awake("web", 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_wake_that_the_api_server_refuses_is_named_not_hammered_and_carried_out_when_it_is_allowed() {
    for effect in [Effect::Deny, Effect::FailBefore(422)] {
        let (world, running, at) = sleeping(&[]).await;
        world.sandbox.faults().inject(Fault::new(effect).verb("patch").resource("deployments"));
        let from = world.sandbox.log().len();
        let begun = world.elapsed();
        ensure_named(&visitor::get(at, "web", "/").await, "denied");
        assert!(world.elapsed() <= begun + SOON);
        let mut last = 0;
        for _ in 0..300 {
            last = ensure_named(&visitor::get(at, "web", "/").await, "denied");
            world.pass(1).await;
        }
        assert_eq!(last, 60);
        let tries = world.writes(from).iter().filter(|write| write.plural == "deployments").count();
        assert!((5..=12).contains(&tries), "{tries} tries in five minutes of asking");
        assert_eq!(world.events("web", "WakeFailed").len(), 1, "{}", world.show());
        assert_eq!(World::label(&running, "web"), "wake-denied");
        assert_eq!((world.phase("web").as_str(), world.slices("web").len()), ("asleep", 1));
        world.sandbox.faults().clear();
        world.awake("web", 2).await;
        assert_eq!(visitor::get(at, "web", "/").await.status, 200, "nobody had to ask again");
    }
}

/// Until it has read its rights, an API server that starts forbids everything.
#[tokio::test(start_paused = true)]
async fn whoever_is_held_while_the_api_server_is_away_is_answered_though_it_forbids_the_wake_at_first() {
    for away in [Effect::FailBefore(503), Effect::Deny] {
        let (world, running, at) = sleeping(&[]).await;
        let forbids_for = if away == Effect::Deny { 0 } else { 4 };
        let fault = |effect| Fault::new(effect).verb("patch").resource("deployments");
        world.sandbox.faults().inject(fault(away));
        let held = async {
            let reply = visitor::get(at, "web", "/").await;
            assert_eq!(reply.status, 200, "{reply:?}");
        };
        let comes_back = async {
            // For a moment only, where it was not seen to be away.
            tokio::time::sleep(Duration::from_millis(700)).await;
            world.sandbox.faults().clear();
            world.sandbox.faults().inject(fault(Effect::Deny));
            world.pass(forbids_for).await;
            world.sandbox.faults().clear();
        };
        tokio::join!(held, comes_back);
        world.awake("web", 2).await;
        assert!(world.events("web", "WakeFailed").is_empty(), "{}", world.show());
        drop(running);
    }
}

/// That it was refused before, for good as it seemed, says nothing of an API server that is another one now.
#[tokio::test(start_paused = true)]
async fn whoever_is_held_while_the_api_server_restarts_is_answered_though_the_wake_was_refused_before() {
    let (world, running, at) = sleeping(&[]).await;
    let fault = |effect| Fault::new(effect).verb("patch").resource("deployments");
    world.sandbox.faults().inject(fault(Effect::Deny));
    ensure_named(&visitor::get(at, "web", "/").await, "denied");
    world.pass(600).await;
    world.sandbox.faults().clear();
    world.sandbox.faults().inject(fault(Effect::FailBefore(503)));
    // Until the breaker lets a try through.
    world.pass(61).await;
    let held = async {
        let reply = visitor::get(at, "web", "/").await;
        assert_eq!(reply.status, 200, "{reply:?}");
    };
    let comes_back = async {
        world.pass(1).await;
        world.sandbox.faults().clear();
        world.sandbox.faults().inject(fault(Effect::Deny));
        world.pass(4).await;
        world.sandbox.faults().clear();
    };
    tokio::join!(held, comes_back);
    world.awake("web", 2).await;
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn what_stays_forbidden_after_the_api_server_was_away_is_waited_for_once_and_told_at_once_from_then_on()
{
    let (world, running, at) = sleeping(&[]).await;
    let fault = |effect| Fault::new(effect).verb("patch").resource("deployments");
    world.sandbox.faults().inject(fault(Effect::FailBefore(503)));
    let held = async {
        ensure_named(&visitor::get(at, "web", "/").await, "denied");
    };
    let comes_back = async {
        world.pass(2).await;
        world.sandbox.faults().clear();
        world.sandbox.faults().inject(fault(Effect::Deny));
    };
    let begun = world.elapsed();
    tokio::join!(held, comes_back);
    let waited = world.elapsed().saturating_sub(begun);
    assert!(waited <= Duration::from_secs(14), "told after {waited:?}");
    for _ in 0..60 {
        let asked = world.elapsed();
        ensure_named(&visitor::get(at, "web", "/").await, "denied");
        assert!(world.elapsed() <= asked + SOON, "told after {:?}", world.elapsed().saturating_sub(asked));
        world.pass(1).await;
    }
    drop(running);
}

/// A node whose heartbeats nobody saw takes no pod, for a moment.
#[tokio::test(start_paused = true)]
async fn whoever_is_held_while_the_node_counts_as_lost_after_an_outage_is_answered_when_it_is_heard_of() {
    for away in [true, false] {
        let (world, running, at) = sleeping(&[]).await;
        broken("Unschedulable")(&world);
        let held = async {
            if away {
                let reply = visitor::get(at, "web", "/").await;
                assert_eq!(reply.status, 200, "{reply:?}");
            } else {
                ensure_named(&visitor::get(at, "web", "/").await, "unschedulable");
            }
        };
        let comes_back = async {
            if away {
                world.sandbox.faults().inject(Fault::new(Effect::FailBefore(503)));
                world.pass(20).await;
                world.sandbox.faults().clear();
            }
            world.pass(15).await;
            broken("")(&world);
        };
        tokio::join!(held, comes_back);
        world.awake("web", 2).await;
        let told = world.events("web", "WakeFailed").len();
        assert_eq!(told, usize::from(!away), "{}", world.show());
        drop(running);
    }
}

#[tokio::test(start_paused = true)]
async fn what_controllers_say_for_long_after_an_outage_is_told() {
    let (world, running, at) = sleeping(&[]).await;
    no_pods("exceeded quota: none")(&world);
    world.sandbox.faults().inject(Fault::new(Effect::FailBefore(503)));
    let held = async {
        let begun = world.elapsed();
        ensure_named(&visitor::get(at, "web", "/").await, "quota");
        let waited = world.elapsed().saturating_sub(begun);
        assert!((80..=90).contains(&waited.as_secs()), "told after {waited:?}");
    };
    let comes_back = async {
        world.pass(20).await;
        world.sandbox.faults().clear();
    };
    tokio::join!(held, comes_back);
    let asked = world.elapsed();
    ensure_named(&visitor::get(at, "web", "/").await, "quota");
    assert!(world.elapsed() <= asked + SOON);
    drop(running);
}

#[tokio::test(start_paused = true)]
async fn a_nap_that_the_api_server_refuses_is_not_hammered() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    world.sandbox.faults().inject(Fault::new(Effect::Deny).verb("patch").resource("deployments"));
    let _running = world.join(1).await;
    world.pass(600).await;
    let tries = world.writes(0).iter().filter(|write| write.plural == "deployments").count();
    assert!((8..=30).contains(&tries), "{tries} tries in ten minutes");
    world.sandbox.faults().clear();
    world.asleep("web").await;
}

#[tokio::test(start_paused = true)]
async fn two_members_tell_a_failed_wake_once() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let (one, two) = (world.join(1).await, world.join(2).await);
    world.asleep("web").await;
    broken("ImagePullBackOff")(&world);
    let at = world.cluster_ip("web", 80);
    for _ in 0..10 {
        ensure_named(&visitor::get(at, "web", "/").await, "image");
    }
    world.pass(60).await;
    assert_eq!(world.events("web", "WakeFailed").len(), 1, "{}", world.show());
    let mut counted = 0;
    for running in [&one, &two] {
        let metrics = World::metrics(running).await;
        counted += usize::from(metrics.contains("kubenap_wakes_total{outcome=\"failed\"} 1\n"));
    }
    assert_eq!(counted, 1, "the leader counts it");
}

#[tokio::test(start_paused = true)]
async fn a_browser_is_shown_why_and_the_page_opens_by_itself_when_the_app_is_mended() {
    let (world, _running, at) = sleeping(&[]).await;
    broken("ImagePullBackOff")(&world);
    let head = "GET / HTTP/1.1\r\nHost: web\r\nAccept: text/html\r\nX-Forwarded-Host: web\r\nConnection: close\r\n\r\n";
    let reply = visitor::send(at, head, b"").await;
    assert_eq!((reply.status, reply.header("x-kubenap-reason")), (503, Some("image")), "{reply:?}");
    let again = reply.header("retry-after").unwrap();
    assert!(reply.body.contains(&format!("http-equiv=\"refresh\" content=\"{again}\"")), "{reply:?}");
    assert!(reply.body.contains("its image cannot be pulled"), "{reply:?}");
    broken("")(&world);
    world.awake("web", 2).await;
}
