//! Answers recorded from a real Prometheus 3.16 that scraped a real Traefik 3.7, and from that Traefik itself;
//! from InfluxDB 2.10 a recorded answer, the same in the shape with annotations, and its refusals.
#![expect(clippy::unwrap_used, reason = "a recording that cannot be served has failed")]

use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{get, post};
use jiff::{SignedDuration, Timestamp};
use kubenap_controller::activity::{
    Ask, Credentials, Endpoint, IngressSource, PrometheusSource, Samples, SourceError, SourceSpec,
    TrafficMetricsSource, build,
};
use kubenap_core::activity::Activity;
use kubenap_core::app::AppId;

use crate::stage::target;

const NOW: i64 = 1_800_000_000;

async fn serve(router: Router) -> Endpoint {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    Endpoint::parse(&format!("http://127.0.0.1:{port}")).unwrap()
}

async fn poll(source: &dyn TrafficMetricsSource) -> Result<Samples, SourceError> {
    let now = Timestamp::from_second(NOW).unwrap();
    let targets = [target("shop", "web"), target("shop", "never")].into();
    source.poll(&Ask { now, targets, history: Duration::from_mins(10) }).await
}

fn of(samples: &Samples, name: &str) -> Activity {
    samples.of(&AppId::new("shop", name))
}

#[tokio::test]
async fn a_real_prometheus_is_understood() {
    let router = Router::new()
        .route(
            "/api/v1/query",
            post(|query: String| async move {
                if query.contains("timestamp%28up%29") {
                    include_str!("../fixtures/prometheus/heartbeat.json")
                } else if query.contains("1d%5D") {
                    // The target that is down was never one of a proxy.
                    r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#
                } else {
                    include_str!("../fixtures/prometheus/counters.json")
                }
            }),
        )
        .route(
            "/api/v1/query_range",
            post(|query: String| async move {
                if query.contains("timestamp%28up%29") {
                    include_str!("../fixtures/prometheus/heartbeat-range.json")
                } else if query.contains("1d%5D") {
                    r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#
                } else {
                    include_str!("../fixtures/prometheus/counters-range.json")
                }
            }),
        );
    let endpoint = serve(router).await;
    let source = PrometheusSource::new("prometheus".to_owned(), endpoint, Credentials::default()).unwrap();
    let samples = poll(&source).await.unwrap();
    let now = Timestamp::from_second(NOW).unwrap();
    let (web, never) = (of(&samples, "web"), of(&samples, "never"));
    assert_eq!((web.blind.len(), never.blind.len()), (0, 0));
    assert!(now.duration_since(web.watermark) < SignedDuration::from_secs(2), "it was scraped every second");
    // The two requests were made shortly before the recording, Traefik ran for its whole length.
    assert!(now.duration_since(web.last_seen) < SignedDuration::from_secs(180), "{web:?}");
    assert!(now.duration_since(never.last_seen) >= SignedDuration::from_secs(600), "{never:?}");
    assert_eq!(samples.detail(&AppId::new("shop", "web")).unwrap().matched, 1);
}

#[tokio::test]
async fn a_real_refusal_is_told_in_its_own_words() {
    let refusal = (StatusCode::BAD_REQUEST, include_str!("../fixtures/prometheus/bad-query.json"));
    let endpoint = serve(Router::new().route("/api/v1/query", post(move || async move { refusal }))).await;
    let source = PrometheusSource::new("prometheus".to_owned(), endpoint, Credentials::default()).unwrap();
    let error = poll(&source).await.unwrap_err().to_string();
    assert!(error.contains("bad_data") && error.contains("unclosed left parenthesis"), "{error}");
}

#[tokio::test]
async fn a_real_traefik_is_understood() {
    let text = include_str!("../fixtures/ingress/traefik.txt");
    let endpoint = serve(Router::new().route("/", get(move || async move { text }))).await;
    let samples = poll(&IngressSource::at(vec![endpoint])).await.unwrap();
    let now = Timestamp::from_second(NOW).unwrap();
    let (web, never) = (of(&samples, "web"), of(&samples, "never"));
    assert_eq!((web.blind.len(), never.blind.len()), (0, 0));
    assert!(web.last_seen >= now, "its count has no history");
    assert_eq!(never.last_seen.as_second(), 1_795_524_326, "when that Traefik started");
}

async fn influx(status: StatusCode, body: &'static str) -> Result<Samples, SourceError> {
    let date = [("date", "Mon, 23 Nov 2026 06:25:34 GMT")];
    let router = Router::new().route("/api/v2/query", post(move || async move { (status, date, body) }));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = serde_json::json!({
        "kind": "influxdb", "url": format!("http://127.0.0.1:{port}"), "org": "kubenap", "bucket": "traffic",
        "measurement": "nginx_ingress_controller_requests", "instanceTag": "controller_pod",
    });
    let spec = SourceSpec::read("influx", settings).unwrap();
    let client = crate::stand_in::cluster(std::sync::Arc::default(), port);
    poll(&*build(&[spec], &Credentials::default(), &client).unwrap().remove(0)).await
}

#[tokio::test]
async fn a_real_influxdb_is_understood_with_annotations_and_without() {
    let plain = include_str!("../fixtures/influxdb/last.csv");
    let annotated = include_str!("../fixtures/influxdb/last-annotated.csv");
    for body in [plain, annotated] {
        let samples = influx(StatusCode::OK, body).await.unwrap();
        let (web, never) = (of(&samples, "web"), of(&samples, "never"));
        assert_eq!((web.blind.len(), samples.detail(&AppId::new("shop", "web")).unwrap().matched), (0, 1));
        // The last but one point is of 06:25:04, and the second of the answer's date is not over.
        let now = Timestamp::from_second(NOW).unwrap();
        assert_eq!(now.duration_since(web.watermark), SignedDuration::from_secs(31));
        assert_eq!(never.blind.len(), 1, "a measurement of somebody's own may lack an app");
    }
}

#[tokio::test]
async fn a_real_influxdb_s_refusals_are_told_in_its_own_words() {
    for (status, body, said) in [
        (StatusCode::NOT_FOUND, include_str!("../fixtures/influxdb/no-bucket.json"), "could not find bucket"),
        (StatusCode::UNAUTHORIZED, include_str!("../fixtures/influxdb/bad-token.json"), "unauthorized"),
        (
            StatusCode::BAD_REQUEST,
            include_str!("../fixtures/influxdb/bad-query.json"),
            "expected RPAREN, got EOF",
        ),
    ] {
        let error = influx(status, body).await.unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}
