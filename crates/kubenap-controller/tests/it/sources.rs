//! What is not known about traffic keeps an app awake, and what is known again lets it nap.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kubenap_controller::activity::TrafficMetricsSource;
use kubenap_controller::run::{Running, start, start_with};
use kubenap_controller::settings::Settings;
use kubenap_core::activity::Blind;
use kubenap_sandbox::{Effect, Fault};
use serde_json::json;

use crate::traffic::{Mood, Traffic};
use crate::visitor;
use crate::world::{World, host};

async fn never_naps_while(mood: Mood, label: &str) {
    let world = World::quick();
    world.traffic.mood(mood);
    world.app("web", 1, &[]).await;
    let running = world.join(1).await;
    world.pass(600).await;
    assert_eq!(world.phase("web"), "awake", "{mood:?}");
    assert!(world.writes(0).is_empty(), "{mood:?}: {}", world.show());
    assert_eq!(World::label(&running, "web"), label, "{mood:?}");
    world.traffic.mood(Mood::Fine);
    world.asleep("web").await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_down_keeps_the_app_awake_until_it_is_back() {
    never_naps_while(Mood::Down, "blind").await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_has_never_heard_of_the_app_keeps_it_awake() {
    never_naps_while(Mood::Empty, "blind").await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_blind_in_any_way_keeps_the_app_awake() {
    for why in [Blind::Stale, Blind::NoSeries, Blind::NotMapped, Blind::Partial, Blind::Starting] {
        never_naps_while(Mood::Blind(why), "blind").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_whose_knowledge_stands_still_keeps_the_app_awake() {
    let world = World::quick();
    let stuck = world.now() + Duration::from_secs(5);
    drop(world);
    never_naps_while(Mood::Stuck(stuck), "had-traffic").await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_goes_blind_in_the_drowsy_phase_ends_the_nap() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.until("drowsy", 30, || world.phase("web") == "drowsy").await;
    world.traffic.mood(Mood::Down);
    world.awake("web", 1).await;
    assert_eq!(world.events("web", "Asleep").len(), 0, "{}", world.show());
    world.pass(120).await;
    assert_eq!(world.phase("web"), "awake");
}

#[tokio::test(start_paused = true)]
async fn traffic_in_the_drowsy_phase_ends_the_nap_though_no_request_came_here() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let _running = world.join(1).await;
    world.until("drowsy", 30, || world.phase("web") == "drowsy").await;
    world.traffic.visit("web", world.now());
    world.awake("web", 1).await;
    assert_eq!(world.events("web", "Asleep").len(), 0, "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn one_more_source_can_only_keep_an_app_awake() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    world.app("chosen", 1, &[("metrics", "script")]).await;
    let second = Traffic::new("second", world.now());
    second.mood(Mood::Down);
    let sources: Vec<Arc<dyn TrafficMetricsSource>> = vec![Arc::<Traffic>::clone(&world.traffic), second];
    let _running = start_with(world.client(), world.settings(1), sources).await.unwrap();
    world.asleep("chosen").await;
    world.pass(60).await;
    assert_eq!(world.phase("web"), "awake");
}

#[tokio::test(start_paused = true)]
async fn an_ingress_own_metrics_are_enough_to_nap_and_to_stay_awake() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let source = format!("ingress=http://{}/metrics", ingress.metrics_address()).parse().unwrap();
    let settings = Settings { sources: vec![source], ..world.settings(1) };
    let _running = start(world.client(), settings).await.unwrap();
    for _ in 0..20 {
        assert_eq!(visitor::get(ingress.address(), &host("web"), "/").await.status, 200);
        world.pass(5).await;
        assert_eq!(world.phase("web"), "awake");
    }
    world.asleep("web").await;
    assert_eq!(visitor::get(ingress.address(), &host("web"), "/").await.status, 307);
    world.awake("web", 1).await;
}

#[tokio::test(start_paused = true)]
async fn the_age_of_a_sources_knowledge_grows_while_it_is_down() {
    let world = World::quick();
    world.app("web", 1, &[("idleAfter", "1h")]).await;
    let running = world.join(1).await;
    world.pass(30).await;
    assert!(age(&World::metrics(&running).await) < 20.0);
    world.traffic.mood(Mood::Down);
    world.pass(300).await;
    assert!(age(&World::metrics(&running).await) > 290.0);
    world.traffic.mood(Mood::Fine);
    world.pass(30).await;
    assert!(age(&World::metrics(&running).await) < 20.0);
}

/// The oldest of the sources' watermarks.
fn age(metrics: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with("kubenap_source_watermark_age_seconds{"));
    let ages = lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap());
    ages.fold(f64::NAN, f64::max)
}

#[tokio::test(start_paused = true)]
async fn an_app_behind_another_proxy_than_the_source_s_own_stays_awake() {
    let world = World::quick();
    for (name, controller) in
        [("traefik", "traefik.io/ingress-controller"), ("other", "example.com/ingress-controller")]
    {
        world.put(json!({"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": name}, "spec": {"controller": controller}}));
    }
    for (app, class) in [("web", "traefik"), ("foreign", "other")] {
        world.app(app, 1, &[]).await;
        world.edit("ingresses", app, |ingress| ingress["spec"]["ingressClassName"] = class.into());
    }
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let source = format!("ingress=http://{}/metrics", ingress.metrics_address()).parse().unwrap();
    let settings = Settings { sources: vec![source], ..world.settings(1) };
    let running = start(world.client(), settings).await.unwrap();
    world.asleep("web").await;
    world.pass(60).await;
    assert_eq!(world.phase("foreign"), "awake");
    assert_eq!(World::label(&running, "foreign"), "blind");
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_ingress_classes_all_goes_on() {
    let world = World::quick();
    world.sandbox.faults().inject(Fault::new(Effect::Deny).resource("ingressclasses"));
    world.app("web", 1, &[]).await;
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let source = format!("ingress=http://{}/metrics", ingress.metrics_address()).parse().unwrap();
    let settings = Settings { sources: vec![source], ..world.settings(1) };
    let _running = start(world.client(), settings).await.unwrap();
    world.asleep("web").await;
    assert_eq!(visitor::get(ingress.address(), &host("web"), "/").await.status, 307);
}

/// A member with the metrics of an ingress as its only source, and the ingress, which ends with its value.
async fn by_ingress(world: &World) -> (Running, impl Sized) {
    let ingress = world.sandbox.ingress(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let source = format!("ingress=http://{}/metrics", ingress.metrics_address()).parse().unwrap();
    let settings = Settings { sources: vec![source], ..world.settings(1) };
    (start(world.client(), settings).await.unwrap(), ingress)
}

#[tokio::test(start_paused = true)]
async fn an_app_to_which_connections_are_routed_that_no_metric_tells_of_stays_awake() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    world.app("other", 1, &[]).await;
    for (kind, version) in [("TCPRoute", "v1alpha2"), ("TLSRoute", "v1")] {
        world.put(json!({"apiVersion": format!("gateway.networking.k8s.io/{version}"), "kind": kind,
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"parentRefs": [{"name": "gw"}], "rules": [{"backendRefs": [{"name": "web", "port": 80}]}]}}));
    }
    let (running, _ingress) = by_ingress(&world).await;
    world.asleep("other").await;
    for kind in ["tcproutes", "tlsroutes"] {
        world.pass(120).await;
        assert_eq!((world.phase("web").as_str(), World::label(&running, "web").as_str()), ("awake", "blind"));
        assert!(world.sandbox.delete(kind, "shop", "web"));
    }
    world.asleep("web").await;
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_routes_the_api_server_does_not_tell_at_the_start_stays_awake() {
    let world = World::quick();
    let faults = world.sandbox.faults();
    // It is starting itself: first it cannot, then it has not read its rights.
    faults.inject(Fault::new(Effect::FailBefore(503)).resource("httproutes").times(2));
    faults.inject(Fault::new(Effect::Deny).resource("httproutes").after(2));
    world.app("web", 1, &[]).await;
    let (running, _ingress) = by_ingress(&world).await;
    world.pass(300).await;
    assert_eq!((world.phase("web").as_str(), World::label(&running, "web").as_str()), ("awake", "blind"));
    faults.clear();
    world.until("it is listed, and asleep", 180, || world.phase("web") == "asleep").await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_starting_and_tells_of_no_kinds_yet_is_not_taken_for_one_without_routes() {
    let world = World::quick();
    let faults = world.sandbox.faults();
    faults.inject(Fault::new(Effect::FailBefore(503)).resource("httproutes"));
    faults.inject(Fault::new(Effect::NoGroups).resource("apis"));
    world.app("web", 1, &[]).await;
    let (running, _ingress) = by_ingress(&world).await;
    world.pass(120).await;
    assert_eq!((world.phase("web").as_str(), World::label(&running, "web").as_str()), ("awake", "blind"));
    faults.clear();
    world.until("it is listed, and asleep", 180, || world.phase("web") == "asleep").await;
}

#[tokio::test(start_paused = true)]
async fn an_app_stays_awake_when_the_right_to_list_a_kind_of_route_is_taken_back_later() {
    let world = World::quick();
    world.app("web", 1, &[("idleAfter", "2m")]).await;
    let (running, _ingress) = by_ingress(&world).await;
    world.pass(30).await;
    let label = World::label(&running, "web");
    assert_ne!(label, "blind", "all is well at first");
    world.sandbox.faults().inject(Fault::new(Effect::Deny).resource("grpcroutes"));
    // What is watched is ended after forty seconds, and asked for again.
    world.pass(300).await;
    assert_eq!((world.phase("web").as_str(), World::label(&running, "web").as_str()), ("awake", "blind"));
    world.sandbox.faults().clear();
    world.until("it is listed, and asleep", 300, || world.phase("web") == "asleep").await;
}

#[tokio::test(start_paused = true)]
async fn while_a_kind_of_route_may_not_be_listed_every_app_stays_awake_that_proxies_tell_of() {
    let world = World::quick();
    world.sandbox.faults().inject(Fault::new(Effect::Deny).resource("httproutes"));
    world.app("web", 1, &[]).await;
    let (running, _ingress) = by_ingress(&world).await;
    world.pass(300).await;
    assert_eq!((world.phase("web").as_str(), World::label(&running, "web").as_str()), ("awake", "blind"));
    world.sandbox.faults().clear();
    world.until("it is listed, and asleep", 180, || world.phase("web") == "asleep").await;
}
