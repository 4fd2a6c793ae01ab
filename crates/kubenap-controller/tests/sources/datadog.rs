//! Datadog: the request field by field, and answers of the shape that its API has; live for people with keys.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use jiff::{SignedDuration, Timestamp};
use kubenap_controller::activity::{
    Ask, Credentials, Samples, SourceError, SourceSpec, TrafficMetricsSource, build,
};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use serde_json::{Value, json};

use crate::stage::target;
use crate::stand_in::{World, cluster};

const MINUTE: i64 = 60_000;

/// What the server says next, and what it was asked.
#[derive(Default)]
struct Server {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Value,
    asked: Vec<(HeaderMap, Value)>,
}

type Shared = Arc<Mutex<Server>>;

struct Stage {
    server: Shared,
    source: Arc<dyn TrafficMetricsSource>,
    now: i64,
}

/// The first minute of the data.
const START: i64 = 1_700_000_040_000;

async fn answer(State(server): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let mut server = server.lock().unwrap();
    server.asked.push((headers, serde_json::from_str(&body).unwrap()));
    let mut response =
        (StatusCode::from_u16(server.status).unwrap(), axum::Json(server.body.clone())).into_response();
    for (name, value) in &server.headers {
        response.headers_mut().insert(*name, value.parse().unwrap());
    }
    response
}

async fn stage(minutes: i64) -> Stage {
    let server = Shared::new(Mutex::new(Server { status: 200, ..Server::default() }));
    let router =
        Router::new().route("/api/v2/query/timeseries", post(answer)).with_state(Arc::clone(&server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = json!({
        "kind": "datadog", "url": format!("http://127.0.0.1:{port}"), "filter": "env:prod",
        "apiKeyEnv": "PATH", "appKeyFile": concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/datadog/app-key"),
    });
    let spec = SourceSpec::read("dog", settings).unwrap();
    let client = cluster(Arc::new(Mutex::new(World::default())), port);
    let source = build(&[spec], &Credentials::default(), &client).unwrap().remove(0);
    Stage { server, source, now: START + minutes * MINUTE }
}

/// The tags of a series, the query that it answers, and its points.
type Said = (&'static [&'static str], usize, Vec<Option<f64>>);

impl Stage {
    /// One row of points for each series: `(tag, tag, query, points)` from the first minute on.
    fn says(&self, series: &[Said]) {
        let times: Vec<_> =
            (0..series[0].2.len()).map(|at| START + i64::try_from(at).unwrap() * MINUTE).collect();
        let mut server = self.server.lock().unwrap();
        server.headers = vec![("date", date(self.now))];
        server.body = json!({"data": {"id": "0", "type": "timeseries_response", "attributes": {
            "series": series.iter().map(|(tags, query, _)| json!({
                "group_tags": tags, "query_index": query, "unit": [{"family": "network", "name": "request"}, null],
            })).collect::<Vec<_>>(),
            "times": times,
            "values": series.iter().map(|(_, _, points)| points).collect::<Vec<_>>(),
        }}});
    }

    async fn poll(&self) -> Result<Samples, SourceError> {
        let now = Timestamp::from_millisecond(self.now).unwrap();
        let targets = [target("shop", "web"), target("shop", "api"), target("shop", "never")].into();
        self.source.poll(&Ask { now, targets, history: Duration::from_mins(10) }).await
    }

    async fn activity(&self, name: &str) -> Activity {
        self.poll().await.unwrap().of(&AppId::new("shop", name))
    }

    fn asked(&self) -> usize {
        self.server.lock().unwrap().asked.len()
    }
}

fn date(millis: i64) -> String {
    let at = Timestamp::from_millisecond(millis).unwrap();
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

const WEB: &[&str] = &["namespace:shop", "service:web"];
const API: &[&str] = &["namespace:shop", "service:api"];
const HOST: &[&str] = &["host:node-1"];

fn alive(minutes: usize) -> Said {
    (HOST, 1, vec![Some(1.0); minutes])
}

#[tokio::test]
async fn the_request_is_the_api_s_own_field_by_field() {
    let stage = stage(20).await;
    stage.says(&[(WEB, 0, vec![Some(0.0); 20]), alive(20)]);
    stage.poll().await.unwrap();
    let server = stage.server.lock().unwrap();
    let (headers, body) = &server.asked[0];
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(headers["dd-api-key"], std::env::var("PATH").unwrap().as_str());
    assert_eq!(headers["dd-application-key"], "an-app-key");
    assert_eq!(body["data"]["type"], "timeseries_request");
    let attributes = &body["data"]["attributes"];
    assert_eq!(attributes["to"], stage.now);
    assert_eq!(attributes["from"], stage.now - 60 * MINUTE);
    assert_eq!(attributes["interval"], MINUTE);
    assert_eq!(
        attributes["queries"],
        json!([
            {"data_source": "metrics", "name": "requests", "query":
                "sum:nginx_ingress.controller.requests{env:prod} by {namespace,service}.as_count().rollup(sum, 60)"},
            {"data_source": "metrics", "name": "alive", "query":
                "max:nginx_ingress.controller.last.reload.success{env:prod} by {host}.rollup(max, 60)"},
        ])
    );
    assert_eq!(attributes["formulas"], json!([{"formula": "requests"}, {"formula": "alive"}]));
}

#[tokio::test]
async fn a_bucket_above_zero_is_activity_up_to_its_end_and_null_is_nothing() {
    let stage = stage(20).await;
    let mut web = vec![None; 20];
    (web[0], web[5], web[6]) = (Some(9.0), Some(1.0), Some(0.0));
    stage.says(&[(WEB, 0, web), (API, 0, vec![Some(2.0); 20]), alive(20)]);
    let web = stage.activity("web").await;
    assert_eq!(web.blind.len(), 0);
    // The bucket of minute 5 ends with minute 6; the newest sign of life is of minute 19. Datadog's `Date` names
    // whole seconds, so that ages are rounded up by one.
    let second = SignedDuration::from_secs(1);
    assert_eq!(web.last_seen + second, Timestamp::from_millisecond(START + 6 * MINUTE).unwrap());
    assert_eq!(web.watermark + second, Timestamp::from_millisecond(START + 19 * MINUTE).unwrap());
    let api = stage.activity("api").await;
    assert_eq!(api.quiet_since(Timestamp::MIN), Duration::ZERO);
    let never = stage.activity("never").await;
    assert_eq!(never.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries], "absence is not silence");
}

#[tokio::test]
async fn it_is_asked_once_a_minute_at_most_and_the_watermark_stands_still_meanwhile() {
    let mut stage = stage(20).await;
    stage.says(&[(WEB, 0, vec![Some(0.0); 20]), alive(20)]);
    let first = stage.activity("web").await;
    stage.now += 15_000;
    assert_eq!(stage.activity("web").await, first);
    assert_eq!(stage.asked(), 1);
    stage.now += 45_000;
    stage.says(&[(WEB, 0, vec![Some(0.0); 21]), alive(21)]);
    assert!(stage.activity("web").await.watermark > first.watermark);
    assert_eq!(stage.asked(), 2);
}

#[tokio::test]
async fn its_limits_are_obeyed() {
    let mut stage = stage(20).await;
    stage.server.lock().unwrap().status = 429;
    stage.server.lock().unwrap().headers = vec![("x-ratelimit-reset", "120".to_owned())];
    assert!(matches!(stage.poll().await, Err(SourceError::Limited { wait, .. }) if wait.as_secs() == 120));
    stage.server.lock().unwrap().status = 200;
    assert!(matches!(stage.poll().await, Err(SourceError::Limited { .. })));
    assert_eq!(stage.asked(), 1, "it was asked again too soon");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(121)).await;
    tokio::time::resume();
    stage.now += 121_000;
    stage.says(&[(WEB, 0, vec![Some(0.0); 22]), alive(22)]);
    stage.server.lock().unwrap().headers.push(("x-ratelimit-remaining", "0".to_owned()));
    stage.server.lock().unwrap().headers.push(("x-ratelimit-reset", "300".to_owned()));
    let known = stage.activity("web").await;
    stage.now += 120_000;
    assert_eq!(stage.activity("web").await.watermark, known.watermark, "what is known stays, and no more");
    assert_eq!(stage.asked(), 2, "that was the last question of its period");
}

#[tokio::test]
async fn an_agent_that_was_away_leaves_a_hole() {
    let stage = stage(20).await;
    let mut alive = alive(20);
    alive.2[8..14].fill(None);
    stage.says(&[(WEB, 0, vec![Some(0.0); 20]), alive]);
    let web = stage.activity("web").await;
    let known = Timestamp::from_millisecond(START + 14 * MINUTE).unwrap();
    assert!(web.last_seen >= known, "nobody knows what came meanwhile");
}

#[tokio::test]
async fn silence_of_the_agents_is_not_silence_of_the_app() {
    let mut stage = stage(20).await;
    stage.says(&[(WEB, 0, vec![Some(0.0); 20]), alive(20)]);
    let known = stage.activity("web").await;
    let mut silent = alive(20);
    for _ in 0..10 {
        stage.now += MINUTE;
        silent.2.push(None);
        let nothing = vec![Some(0.0); silent.2.len()];
        stage.says(&[(WEB, 0, nothing), (silent.0, silent.1, silent.2.clone())]);
        let web = stage.activity("web").await;
        assert!(web.watermark <= known.watermark);
    }
    assert_eq!(stage.activity("web").await.blind.into_iter().collect::<Vec<_>>(), [Blind::Stale]);
}

#[tokio::test]
async fn refusals_are_told_in_its_own_words_and_never_with_a_key() {
    let stage = stage(20).await;
    stage.server.lock().unwrap().status = 403;
    stage.server.lock().unwrap().body = json!({"errors": ["Forbidden"]});
    let error = stage.poll().await.unwrap_err().to_string();
    assert!(error.contains("answered with the error `403`: Forbidden"), "{error}");
    assert!(!error.contains("an-app-key"));
    stage.server.lock().unwrap().status = 200;
    stage.server.lock().unwrap().body = json!({"errors": ["disk on fire"]});
    assert!(stage.poll().await.unwrap_err().to_string().contains("disk on fire"));
    stage.server.lock().unwrap().body = json!("hello");
    assert!(matches!(stage.poll().await, Err(SourceError::NotUnderstood { .. })));
}

#[tokio::test]
async fn the_live_api_answers_if_there_are_keys() {
    if ["DD_API_KEY", "DD_APP_KEY"].iter().any(|name| std::env::var_os(name).is_none()) {
        println!("skipped: set DD_API_KEY, DD_APP_KEY and DD_SITE to ask the live API");
        return;
    }
    let spec: SourceSpec = "datadog".parse().unwrap();
    let client = cluster(Arc::new(Mutex::new(World::default())), 1);
    let source = build(&[spec], &Credentials::default(), &client).unwrap().remove(0);
    let now = kubenap_controller::clock::Clock::System.now();
    let ask = Ask { now, targets: [target("shop", "web")].into(), history: Duration::from_mins(10) };
    // An account without an ingress-nginx has nothing to say, which is an answer too.
    match source.poll(&ask).await {
        Ok(_) | Err(SourceError::NothingScraped { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}
