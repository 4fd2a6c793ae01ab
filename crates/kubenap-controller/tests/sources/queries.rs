//! An app's own query: its one value is compared, and whatever else comes back keeps the app awake and is named.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use jiff::Timestamp;
use kubenap_controller::activity::{
    Ask, Credentials, Samples, SourceError, SourceSpec, Target, TrafficMetricsSource, build,
};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use serde_json::{Value, json};

/// What Prometheus knows.
struct Server {
    now: i64,
    /// The values of the app's own query, one a series.
    values: Vec<f64>,
    refuses: bool,
    /// How often the own query was asked for its value now.
    asked: usize,
}

struct Stage {
    server: Arc<Mutex<Server>>,
    source: Arc<dyn TrafficMetricsSource>,
    targets: Vec<Target>,
}

const START: i64 = 1_700_000_000;
const TICK: i64 = 15;
const QUERY: &str = "sum(queue_received_total)";

fn answer(server: &Mutex<Server>, uri: &Uri, body: &str) -> (StatusCode, String) {
    let mut server = server.lock().unwrap();
    let success = |kind: &str, rows: Vec<Value>| {
        json!({"status": "success", "data": {"resultType": kind, "result": rows}}).to_string()
    };
    if !body.contains("queue_received_total") {
        // It scrapes no proxy at all.
        return (StatusCode::OK, success("vector", Vec::new()));
    }
    if uri.path().ends_with("query_range") {
        return (StatusCode::OK, success("matrix", Vec::new()));
    }
    server.asked += 1;
    if server.refuses {
        let refusal = json!({"status": "error", "errorType": "bad_data", "error": "unexpected end of input"});
        return (StatusCode::BAD_REQUEST, refusal.to_string());
    }
    let row = |(at, value): (usize, &f64)| json!({"metric": {"number": at.to_string()}, "value": [server.now, value.to_string()]});
    (StatusCode::OK, success("vector", server.values.iter().enumerate().map(row).collect()))
}

impl Stage {
    async fn new(allows: bool) -> Self {
        let server = Server { now: START, values: vec![7.0], refuses: false, asked: 0 };
        let server = Arc::new(Mutex::new(server));
        let shared = Arc::clone(&server);
        let reply = move |uri: Uri, body: String| std::future::ready(answer(&shared, &uri, &body));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(reply);
        tokio::spawn(async move { axum::serve(listener, router).await });
        let settings =
            json!({"kind": "prometheus", "url": format!("http://127.0.0.1:{port}"), "allowQuery": allows});
        let spec = SourceSpec::read("main", settings).unwrap();
        let client = crate::stand_in::cluster(Arc::default(), port);
        let source = build(&[spec], &Credentials::default(), &client).unwrap().remove(0);
        Self { server, source, targets: vec![target("web")] }
    }

    async fn ask(&self) -> Result<Samples, SourceError> {
        let now = {
            let mut server = self.server.lock().unwrap();
            server.now += TICK;
            Timestamp::from_second(server.now).unwrap()
        };
        let ask = Ask { now, targets: self.targets.clone().into(), history: Duration::from_mins(10) };
        self.source.poll(&ask).await
    }

    async fn ticks(&self, count: usize) -> Activity {
        let mut last = None;
        for _ in 0..count {
            last = Some(self.ask().await.unwrap());
        }
        last.unwrap().of(&AppId::new("shop", "web"))
    }

    fn says(&self, value: f64) {
        self.server.lock().unwrap().values = vec![value];
    }
}

fn target(name: &str) -> Target {
    Target { query: Some(QUERY.to_owned()), ..Target::of(AppId::new("shop", name)) }
}

#[tokio::test]
async fn a_value_that_stands_still_is_quiet_and_one_that_changed_is_use() {
    let stage = Stage::new(true).await;
    let first = stage.ticks(1).await;
    let web = stage.ticks(40).await;
    assert!(web.blind.is_empty(), "no proxy is scraped, and none is needed: {web:?}");
    assert_eq!(web.last_seen, first.last_seen);
    // Forty ticks, less the two minutes that a value may be old.
    let quiet = web.quiet_since(Timestamp::MIN).as_secs();
    assert!((465..=481).contains(&quiet), "{quiet}");
    stage.says(8.0);
    let used = stage.ticks(1).await;
    assert_eq!(used.quiet_since(Timestamp::MIN), Duration::ZERO);
    stage.says(0.0);
    assert_eq!(stage.ticks(1).await.quiet_since(Timestamp::MIN), Duration::ZERO, "it begins anew");
}

#[tokio::test]
async fn whatever_is_no_single_value_keeps_the_app_awake_and_is_named() {
    let stage = Stage::new(true).await;
    assert!(stage.ticks(2).await.blind.is_empty());
    for (values, refuses, why, said) in [
        (&[1.0, 2.0][..], false, Blind::NotMapped, "2 series; accepted: one"),
        (&[][..], false, Blind::NoSeries, "no series"),
        (&[1.0][..], true, Blind::SourceDown, "unexpected end of input"),
    ] {
        {
            let mut server = stage.server.lock().unwrap();
            (server.values, server.refuses) = (values.to_vec(), refuses);
        }
        let samples = stage.ask().await.unwrap();
        let sample = samples.detail(&AppId::new("shop", "web")).unwrap();
        assert_eq!(sample.activity.blind.iter().copied().collect::<Vec<_>>(), [why]);
        let told = samples.looked_for(&AppId::new("shop", "web")).join("; ");
        assert!(told.contains(QUERY) && told.contains(said), "{told}");
    }
    stage.server.lock().unwrap().refuses = false;
    assert!(stage.ticks(1).await.blind.is_empty(), "it heals");
}

#[tokio::test]
async fn a_query_that_is_not_allowed_is_not_asked_and_the_app_stays_awake() {
    let stage = Stage::new(false).await;
    let samples = stage.ask().await.unwrap();
    let sample = samples.detail(&AppId::new("shop", "web")).unwrap();
    assert!(sample.activity.blind.contains(&Blind::NotMapped));
    let told = samples.looked_for(&AppId::new("shop", "web"));
    assert!(told[0].contains("allowQuery: true"), "{told:?}");
    assert_eq!(stage.server.lock().unwrap().asked, 0);
}

#[tokio::test]
async fn a_query_of_many_apps_is_asked_once_a_poll() {
    let mut stage = Stage::new(true).await;
    stage.targets = (0..100).map(|number| target(&format!("app-{number}"))).collect();
    let samples = stage.ask().await.unwrap();
    assert!(stage.targets.iter().all(|target| samples.of(&target.app).blind.is_empty()));
    assert_eq!(stage.server.lock().unwrap().asked, 1);
}

#[tokio::test]
async fn so_many_different_queries_are_asked_and_no_more() {
    let mut stage = Stage::new(true).await;
    stage.targets = (0..60).map(|number| target(&format!("app-{number}"))).collect();
    for (number, target) in stage.targets.iter_mut().enumerate() {
        target.query = Some(format!("{QUERY} * {number}"));
    }
    let samples = stage.ask().await.unwrap();
    let known = stage.targets.iter().filter(|target| samples.of(&target.app).blind.is_empty()).count();
    assert_eq!((known, stage.server.lock().unwrap().asked), (50, 50));
}
