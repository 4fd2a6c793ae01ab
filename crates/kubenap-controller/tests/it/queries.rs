//! An app naps and wakes by a query of its own, with the timing that nobody has changed.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::http::Uri;
use kubenap_controller::activity::{Credentials, build};
use kubenap_controller::run::{Running, start, start_with};
use kubenap_controller::settings::Settings;
use serde_json::{Value, json};

use crate::visitor;
use crate::world::{Pace, World, host};

const QUERY: &str = "sum(queue_received_total)";

/// A Prometheus that scrapes each target once a minute, and no proxy.
#[derive(Clone)]
struct Prometheus {
    world: Arc<World>,
    /// When messages came.
    received: Arc<Mutex<Vec<f64>>>,
    interval: f64,
}

impl Prometheus {
    async fn start(world: &Arc<World>, interval: f64) -> (Self, SocketAddr) {
        let own = Self { world: Arc::clone(world), received: Arc::default(), interval };
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = own.clone();
        let router = axum::Router::new()
            .fallback(move |uri: Uri, body: String| std::future::ready(served.answer(&uri, &body)));
        tokio::spawn(async move { axum::serve(listener, router).await });
        (own, address)
    }

    fn now(&self) -> f64 {
        self.world.now().as_duration().as_secs_f64()
    }

    fn receive(&self) {
        self.received.lock().unwrap().push(self.now());
    }

    /// The last scrape before this moment.
    fn scraped(&self, at: f64) -> f64 {
        (at / self.interval).floor() * self.interval
    }

    fn value(&self, at: f64) -> String {
        let scraped = self.scraped(at);
        let count = self.received.lock().unwrap().iter().filter(|moment| **moment <= scraped).count();
        (count + 7).to_string()
    }

    fn answer(&self, uri: &Uri, body: &str) -> axum::Json<Value> {
        let now = self.now();
        let one = |metric: Value, value: String| json!({"metric": metric, "value": [now, value]});
        let of = |name: &str| {
            let pair = body.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            pair.unwrap().parse::<f64>().unwrap()
        };
        let (kind, rows) = if body.contains("offset%2075s") {
            ("vector", vec![one(json!({"kubenap": "scraped"}), self.scraped(now - 75.0).to_string())])
        } else if !body.contains("queue_received_total") {
            ("vector", Vec::new())
        } else if uri.path().ends_with("query_range") {
            let (start, step) = (of("start"), of("step"));
            let moments = (0..).map(|number| start + step * f64::from(number));
            let moments = moments.take_while(|at| *at <= of("end"));
            let values: Vec<_> = moments.map(|at| json!([at, self.value(at)])).collect();
            ("matrix", vec![json!({"metric": {}, "values": values})])
        } else {
            ("vector", vec![one(json!({}), self.value(now))])
        };
        axum::Json(json!({"status": "success", "data": {"resultType": kind, "result": rows}}))
    }
}

async fn join(world: &World, at: SocketAddr, allow: &str) -> Running {
    let prometheus = format!("prometheus=http://{at}{allow}").parse().unwrap();
    start(world.client(), Settings { sources: vec![prometheus], ..world.settings(1) }).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn an_app_naps_and_wakes_by_its_query_alone() {
    let world = Arc::new(World::new(Pace::USUAL));
    let (prometheus, at) = Prometheus::start(&world, 60.0).await;
    world.app("web", 1, &[("query", QUERY), ("idleAfter", "10m")]).await;
    let running = join(&world, at, "?allowQuery=true").await;
    for _ in 0..10 {
        world.pass(120).await;
        prometheus.receive();
        assert_eq!(world.phase("web"), "awake", "it is in use: {}", world.show());
    }
    let used = world.now();
    world.until("asleep", 1200, || world.phase("web") == "asleep").await;
    let quiet = world.now().duration_since(used);
    assert!(quiet.as_secs() >= 600, "{quiet:?}");
    assert_eq!(World::label(&running, "web"), "asleep");
    let service = world.cluster_ip("web", 80);
    assert_eq!(visitor::get(service, &host("web"), "/").await.status, 200);
    world.awake("web", 1).await;
    assert!(world.events("web", "Awake").iter().all(|event| !event.contains("nobody finished its nap")));
    world.until("asleep again", 1200, || world.phase("web") == "asleep").await;
}

#[tokio::test(start_paused = true)]
async fn use_between_the_arming_and_the_last_look_ends_the_nap() {
    let world = Arc::new(World::new(Pace::USUAL));
    let (prometheus, at) = Prometheus::start(&world, 60.0).await;
    world.app("web", 1, &[("query", QUERY), ("idleAfter", "10m")]).await;
    let _running = join(&world, at, "?allowQuery=true").await;
    world.until("drowsy", 1800, || world.phase("web") == "drowsy").await;
    prometheus.receive();
    world.until("awake", 300, || world.phase("web") == "awake").await;
    assert!(world.events("web", "Asleep").is_empty(), "{}", world.show());
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_targets_are_scraped_too_seldom_stays_awake_and_both_times_are_told() {
    let world = Arc::new(World::new(Pace::USUAL));
    let (_prometheus, at) = Prometheus::start(&world, 600.0).await;
    world.app("web", 1, &[("query", QUERY), ("idleAfter", "1m")]).await;
    let running = join(&world, at, "?allowQuery=true").await;
    let mut told = false;
    for _ in 0..240 {
        world.pass(30).await;
        assert_ne!(world.phase("web"), "asleep", "{}", world.show());
        told |= World::label(&running, "web") == "behind";
    }
    assert!(told);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_no_source_may_ask_keeps_the_app_awake_and_is_complained_of() {
    let world = Arc::new(World::quick());
    let (prometheus, at) = Prometheus::start(&world, 60.0).await;
    world.app("web", 1, &[("query", QUERY)]).await;
    let running = join(&world, at, "").await;
    world.pass(900).await;
    assert_eq!(world.phase("web"), "awake");
    assert_eq!(World::label(&running, "web"), "bad-annotation");
    let events = world.events("web", "BadAnnotation");
    assert_eq!(events.len(), 1, "{events:?}");
    for said in [
        "kubenap/query: \"sum(queue_received_total)\" is asked by no source that counts for it (prometheus)",
        "accepted: where a source of kind prometheus with `allowQuery: true` counts for it",
    ] {
        assert!(events[0].contains(said), "{}", events[0]);
    }
    drop(prometheus);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_shows_the_past_keeps_the_app_awake_and_is_complained_of() {
    let world = Arc::new(World::quick());
    let (_prometheus, at) = Prometheus::start(&world, 15.0).await;
    world.app("web", 1, &[("query", "sum(queue_received_total offset 10m)")]).await;
    let running = join(&world, at, "?allowQuery=true").await;
    world.pass(900).await;
    assert_eq!(world.phase("web"), "awake");
    assert_eq!(World::label(&running, "web"), "bad-annotation");
    let events = world.events("web", "BadAnnotation");
    assert_eq!(events.len(), 1, "{events:?}");
    for said in ["kubenap/query: ", "has `offset`, which shows the past", "accepted: a PromQL expression"] {
        assert!(events[0].contains(said), "{}", events[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_asks_no_queries_adds_what_it_sees_and_naps_nobody_alone() {
    let world = Arc::new(World::quick());
    let (_prometheus, at) = Prometheus::start(&world, 15.0).await;
    world.app("web", 1, &[("query", QUERY)]).await;
    let source = format!("prometheus=http://{at}?allowQuery=true").parse().unwrap();
    let specs = [source];
    let client = world.client();
    let mut sources = build(&specs, &Credentials::default(), &client).unwrap();
    sources.push(Arc::<crate::traffic::Traffic>::clone(&world.traffic));
    let _running = start_with(client, world.settings(1), sources).await.unwrap();
    for _ in 0..60 {
        world.traffic.visit("web", world.now());
        world.pass(8).await;
        assert_eq!(world.phase("web"), "awake", "the other source sees its use");
    }
    world.traffic.mood(crate::traffic::Mood::Empty);
    world.until("asleep", 600, || world.phase("web") == "asleep").await;
}

#[tokio::test(start_paused = true)]
async fn apps_that_wait_for_what_their_queries_show_keep_no_other_app_from_its_nap() {
    let world = Arc::new(World::new(Pace::USUAL));
    let (_prometheus, at) = Prometheus::start(&world, 60.0).await;
    let slow: Vec<_> = (0..8).map(|number| format!("queue-{number}")).collect();
    for name in &slow {
        world.app(name, 1, &[("query", QUERY), ("idleAfter", "1m"), ("metrics", "prometheus")]).await;
    }
    world.app("web", 1, &[("idleAfter", "10s"), ("metrics", "script")]).await;
    let specs = [format!("prometheus=http://{at}?allowQuery=true").parse().unwrap()];
    let client = world.client();
    let mut sources = build(&specs, &Credentials::default(), &client).unwrap();
    sources.push(Arc::<crate::traffic::Traffic>::clone(&world.traffic));
    let _running = start_with(client, world.settings(1), sources).await.unwrap();
    let drowsy = || slow.iter().filter(|name| world.phase(name) == "drowsy").count();
    for _ in 0..1200 {
        world.traffic.visit("web", world.now());
        if drowsy() >= 3 {
            break;
        }
        world.pass(1).await;
    }
    world.until("asleep though others are drowsy", 60, || world.phase("web") == "asleep").await;
    assert_eq!(drowsy(), 3, "{}", world.show());
    // These share what is left to them, and each has its turn.
    world.until("all asleep", 1800, || slow.iter().all(|name| world.phase(name) == "asleep")).await;
}
