//! When an app naps, when it does not, and what a nap leaves behind.

use std::time::Duration;

use serde_json::Value;

use crate::world::{Pace, World, deployment, ingress, service};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

#[tokio::test(start_paused = true)]
async fn a_quiet_app_naps_after_idle_after_and_not_a_poll_later() {
    let world = World::new(Pace::USUAL);
    world.app("web", 2, &[("idleAfter", "10m")]).await;
    let running = world.join(1).await;
    world.pass(100).await;
    world.traffic.visit("web", world.now());
    let visited = world.now();
    world.until("web is asleep", 11 * MINUTE, || world.phase("web") == "asleep").await;
    let since = |index: usize| world.patches("web")[index].time.duration_since(visited).as_secs_f64();
    let (armed, slept) = (since(0), since(1));
    assert!((600.0..=615.0).contains(&armed), "armed after {armed}");
    let drowsy = slept - armed;
    assert!((5.0..=7.0).contains(&drowsy), "drowsy for {drowsy}");
    assert_eq!(world.note("web", "restoreReplicas").as_deref(), Some("2"));
    assert_eq!(world.members_in("web"), ["m1"]);
    world.asleep("web").await;
    for (reason, count) in [("Drowsy", 1), ("Asleep", 1), ("Waking", 0), ("Awake", 0), ("NapRefused", 0)] {
        assert_eq!(world.events("web", reason).len(), count, "{reason}\n{}", world.show());
    }
    let metrics = World::metrics(&running).await;
    assert!(metrics.contains("kubenap_naps_total{outcome=\"asleep\"} 1"), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_busy_app_does_not_nap_in_hours() {
    let world = World::new(Pace { poll: Duration::from_secs(60), ..Pace::USUAL });
    world.app("web", 1, &[("idleAfter", "10m")]).await;
    let _running = world.join(1).await;
    for _ in 0..3 * 60 / 9 {
        world.traffic.visit("web", world.now());
        world.pass(9 * MINUTE).await;
    }
    assert!(world.elapsed() >= Duration::from_secs(2 * HOUR));
    assert!(world.writes(0).is_empty(), "{}", world.show());
    world.until("then it naps", 15 * MINUTE, || world.phase("web") == "asleep").await;
}

#[tokio::test(start_paused = true)]
async fn a_woken_app_is_left_awake_for_min_awake() {
    let world = World::new(Pace { min_awake: Duration::from_secs(300), ..Pace::QUICK });
    world.app("web", 1, &[]).await;
    let running = world.join(1).await;
    world.asleep("web").await;
    world.annotate("web", "wish", "wake");
    world.awake("web", 1).await;
    let woken = world.now();
    world.pass(60).await;
    assert_eq!(World::label(&running, "web"), "woke-recently");
    world.until("it naps again", 300, || world.phase("web") == "drowsy").await;
    let awake = world.now().duration_since(woken).as_secs();
    assert!((299..=304).contains(&awake), "{awake}");
}

#[tokio::test(start_paused = true)]
async fn naps_keep_the_pace_that_was_set() {
    let world = World::new(Pace { poll: Duration::from_secs(30), naps: Some(6), ..Pace::QUICK });
    let names: Vec<_> = (0..100).map(|index| format!("app-{index:02}")).collect();
    for name in &names {
        world.put(deployment(name, 1, &[]));
        world.put(service(name, name));
    }
    let _running = world.join(1).await;
    let asleep = || names.iter().filter(|name| world.phase(name) == "asleep").count();
    for minute in 0..3 {
        world.pass(MINUTE).await;
        let count = asleep();
        assert!((6 * minute..=6 * (minute + 1)).contains(&count), "{count} asleep after minute {minute}");
    }
    assert!(asleep() >= 12);
}

#[tokio::test(start_paused = true)]
async fn not_more_than_five_of_few_apps_are_drowsy_at_a_time() {
    let world = World::quick();
    for index in 0..20 {
        let name = format!("app-{index:02}");
        world.put(deployment(&name, 1, &[]));
        world.put(service(&name, &name));
    }
    let _running = world.join(1).await;
    let count =
        |phase: &str| (0..20).filter(|index| world.phase(&format!("app-{index:02}")) == phase).count();
    let mut most = 0;
    while count("asleep") < 20 {
        most = most.max(count("drowsy"));
        assert!(world.elapsed() < Duration::from_secs(300), "{}", world.show());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(most, 5);
}

#[tokio::test(start_paused = true)]
async fn a_nap_and_a_wake_leave_the_spec_as_it_was() {
    let world = World::quick();
    world.app("web", 3, &[]).await;
    let before = world.deployment("web");
    let _running = world.join(1).await;
    world.asleep("web").await;
    world.annotate("web", "wish", "wake");
    world.awake("web", 3).await;
    let after = world.deployment("web");
    assert_eq!(before["spec"].to_string(), after["spec"].to_string());
    let others = |app: &Value| {
        let mut meta = app["metadata"].clone();
        for key in ["annotations", "managedFields", "resourceVersion", "generation"] {
            meta[key] = Value::Null;
        }
        meta
    };
    assert_eq!(others(&before), others(&after));
    let left: Vec<_> = after["metadata"]["annotations"].as_object().unwrap().keys().cloned().collect();
    let kept = ["epoch", "idleAfter", "phase", "reason", "since", "wakePorts"];
    let mut kept: Vec<_> = kept.iter().map(|key| format!("kubenap/{key}")).collect();
    kept.extend(left.iter().filter(|key| !key.starts_with("kubenap/")).cloned());
    kept.sort();
    assert_eq!(left, kept);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_minute_asleep_or_awake_has_no_writes_but_leases() {
    let world = World::new(Pace::USUAL);
    world.app("web", 1, &[("idleAfter", "1m")]).await;
    world.app("busy", 1, &[("idleAfter", "1h")]).await;
    let _one = world.join(1).await;
    let _two = world.join(2).await;
    world.until("asleep", 150, || world.phase("web") == "asleep").await;
    world.pass(30).await;
    let from = world.sandbox.log().len();
    world.pass(5 * MINUTE).await;
    assert!(world.writes(from).is_empty(), "{:#?}", world.writes(from));
    assert!(world.sandbox.log().len() > from, "and the Leases are renewed");
}

#[tokio::test(start_paused = true)]
async fn two_ports_get_two_wake_ports_in_one_slice() {
    let world = World::quick();
    world.put(deployment("web", 1, &[]));
    let mut two = service("web", "web");
    let admin =
        serde_json::json!({"name": "admin", "port": 9090, "targetPort": "admin", "appProtocol": "h2c"});
    two["spec"]["ports"].as_array_mut().unwrap().push(admin);
    world.put(two);
    world.put(ingress("web"));
    let _running = world.join(1).await;
    world.asleep("web").await;
    let slices = world.slices("web");
    assert_eq!(slices.len(), 1);
    let ports = slices[0]["ports"].as_array().unwrap();
    let mut names: Vec<_> = ports.iter().map(|port| port["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["admin", "http"]);
    assert_ne!(ports[0]["port"], ports[1]["port"]);
    let admin = ports.iter().find(|port| port["name"] == "admin").unwrap();
    assert_eq!(admin["appProtocol"], "h2c");
    world.annotate("web", "wish", "wake");
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn two_apps_behind_one_service_nap_and_wake_together() {
    let world = World::quick();
    for name in ["blue", "green"] {
        world.put(deployment(name, 1, &[]));
        world.traffic.visit(name, world.now());
    }
    let mut front = service("front", "");
    front["spec"]["selector"] = serde_json::json!({ "behind": "front" });
    world.put(front);
    let _running = world.join(1).await;
    for _ in 0..20 {
        world.traffic.visit("green", world.now());
        world.pass(5).await;
    }
    assert_eq!((world.phase("blue"), world.phase("green")), ("awake".into(), "awake".into()));
    world.asleep("blue").await;
    world.asleep("green").await;
    assert_eq!(world.slices("front").len(), 1);
    world.annotate("green", "wish", "wake");
    for name in ["blue", "green"] {
        world.until(name, 60, || world.phase(name) == "awake" && world.ready_replicas(name) == 1).await;
    }
    assert!(world.slices("front").is_empty());
}
