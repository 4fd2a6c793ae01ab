//! Every setting of every kind of source changes what is asked, how it is refused, or what is made of the answer; and the
//! guide names it.
#![expect(clippy::unwrap_used, reason = "a stand-in that breaks should stop its test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Uri};
use axum::response::IntoResponse as _;
use jiff::Timestamp;
use kubenap_controller::activity::{
    Ask, Credentials, Samples, SourceArg, SourceError, SourceSpec, Target, build,
};
use kubenap_core::activity::Blind;
use kubenap_core::app::AppId;
use serde_json::{Value, json};

use crate::stage::target;

/// Where the effect of a setting is seen.
#[derive(Clone, Copy)]
enum Shows {
    /// In what is asked, or in the refusal; not so without the setting.
    Asked(&'static str),
    /// In what was understood: the address is one that a test does not ask.
    Understood(&'static str),
    /// In this test of this file.
    Test(&'static str, &'static str),
}

use Shows::{Asked, Test, Understood};

/// A source that can be asked, and what each setting changes; a setting of null is taken away.
struct Form {
    kind: &'static str,
    base: Value,
    settings: Vec<(Value, Shows)>,
}

const KEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/datadog/app-key");
/// Of the environment of every test that Cargo runs.
const NAME: &str = "CARGO_PKG_NAME";
const LOGS: &str = include_str!("logs.rs");
const SETTINGS: &str = include_str!("settings.rs");
const OWN: &str = "a_measurement_of_one_s_own_is_read_by_its_own_names";

/// What is asked by HTTP shows these as headers.
fn credentials() -> Vec<(Value, Shows)> {
    vec![
        (json!({"headers": {"X-Scope-OrgID": "shop"}}), Asked("x-scope-orgid: shop")),
        (json!({"bearerTokenFile": KEY}), Asked("authorization: Bearer an-app-key")),
        (json!({"bearerTokenEnv": NAME}), Asked("authorization: Bearer kubenap-controller")),
        // `me:an-app-key` and `me:kubenap-controller`
        (json!({"username": "me", "passwordFile": KEY}), Asked("authorization: Basic bWU6YW4tYXBwLWtleQ==")),
        (
            json!({"username": "me", "passwordEnv": NAME}),
            Asked("authorization: Basic bWU6a3ViZW5hcC1jb250cm9sbGVy"),
        ),
        (json!({"caFile": "/nowhere/ca.pem"}), Asked("/nowhere/ca.pem")),
    ]
}

fn prometheus() -> Form {
    let mut settings = credentials();
    settings.extend([
        (json!({"url": "http://127.0.0.1:PORT/mimir"}), Asked("/mimir/api/v1/query")),
        (json!({"allowQuery": true}), Asked("offset%2075s")),
        (json!({"allowQuery": true, "ruleInterval": "20s"}), Asked("offset%2035s")),
    ]);
    Form { kind: "prometheus", base: json!({"url": "http://127.0.0.1:PORT"}), settings }
}

/// Of both languages.
fn influxdb() -> Vec<(Value, Shows)> {
    let mut settings = credentials();
    settings.extend([
        (json!({"tokenFile": KEY}), Asked("authorization: Token an-app-key")),
        (json!({"tokenEnv": NAME}), Asked("authorization: Token kubenap-controller")),
        (json!({"url": "http://127.0.0.1:PORT/influx"}), Asked("/influx/")),
        (json!({"measurement": "visits"}), Asked("visits")),
        (json!({"measurement": "visits", "field": "hits"}), Asked("hits")),
        (json!({"namespaceTag": "ns", "measurement": "visits"}), Test(SETTINGS, OWN)),
        (json!({"serviceTag": "svc", "measurement": "visits"}), Test(SETTINGS, OWN)),
    ]);
    settings
}

fn flux() -> Form {
    let base = json!({"url": "http://127.0.0.1:PORT", "org": "shop", "bucket": "traffic"});
    let mut settings = influxdb();
    settings.extend([
        (json!({"org": "other"}), Asked("/api/v2/query?org=other")),
        (json!({"bucket": "other"}), Asked("from(bucket: \"other\")")),
        (json!({"goneAfter": "2h"}), Asked("range(start: -7200s)")),
        (json!({"instanceTag": "pod_ip"}), Asked("pod_ip")),
        (json!({"metricVersion": "2"}), Asked("r._measurement == \"prometheus\"")),
        (
            json!({"language": "influxql", "org": null, "bucket": null, "database": "traffic"}),
            Asked("/query?db="),
        ),
    ]);
    Form { kind: "influxdb", base, settings }
}

fn influxql() -> Form {
    let base = json!({"url": "http://127.0.0.1:PORT", "language": "influxql", "database": "traffic"});
    let mut settings = influxdb();
    settings.extend([
        (json!({"database": "other"}), Asked("/query?db=other")),
        (json!({"retentionPolicy": "autogen"}), Asked("rp=autogen")),
        (json!({"goneAfter": "2h"}), Asked("7200")),
        (json!({"instanceTag": "pod_ip"}), Asked("pod_ip")),
        (json!({"metricVersion": "2"}), Asked("FROM%20%22prometheus%22")),
        (
            json!({"language": "flux", "org": "shop", "bucket": "traffic", "database": null}),
            Asked("/api/v2/query?org=shop"),
        ),
    ]);
    Form { kind: "influxdb", base, settings }
}

fn datadog() -> Form {
    let base = json!({"url": "http://127.0.0.1:PORT", "apiKeyEnv": "PATH", "appKeyEnv": "PATH"});
    let settings = vec![
        (json!({"url": "http://127.0.0.1:PORT/dog"}), Asked("/dog/api/v2/query/timeseries")),
        (json!({"url": null, "site": "datadoghq.eu"}), Understood("https://api.datadoghq.eu")),
        (json!({"apiKeyEnv": null, "apiKeyFile": KEY}), Asked("dd-api-key: an-app-key")),
        (json!({"apiKeyEnv": NAME}), Asked("dd-api-key: kubenap-controller")),
        (json!({"appKeyEnv": null, "appKeyFile": KEY}), Asked("dd-application-key: an-app-key")),
        (json!({"appKeyEnv": NAME}), Asked("dd-application-key: kubenap-controller")),
        (json!({"caFile": "/nowhere/ca.pem"}), Asked("/nowhere/ca.pem")),
        (json!({"metric": "traefik.requests"}), Asked("sum:traefik.requests{*}")),
        (json!({"filter": "env:prod"}), Asked("{env:prod} by {namespace,service}")),
        (json!({"namespaceTag": "room"}), Asked("by {room,service}")),
        (json!({"serviceTag": "desk"}), Asked("by {namespace,desk}")),
        (json!({"heartbeat": "traefik.up"}), Asked("max:traefik.up{*}")),
        (json!({"instanceTag": "pod_name"}), Asked("by {pod_name}")),
        (json!({"every": "1s"}), Asked("question 2")),
    ];
    Form { kind: "datadog", base, settings }
}

fn ingress() -> Form {
    let base = json!({"urls": ["http://127.0.0.1:PORT/metrics"]});
    let settings = vec![
        (json!({"urls": ["http://127.0.0.1:PORT/other"]}), Asked("GET /other")),
        (json!({"discover": true}), Asked("GET /api/v1/pods?")),
    ];
    Form { kind: "ingress", base, settings }
}

fn logs() -> Form {
    const SILENCE: &str = "silence_is_no_sign_of_life_unless_it_is_said_to_be";
    const NOBODY: &str = "a_log_without_names_belongs_to_the_service_that_is_declared_or_to_nobody";
    const FORMAT: &str = "lines_of_another_format_than_the_declared_one_fit_nothing";
    const TWICE: &str = "a_file_that_is_rotated_twice_between_polls_is_read_in_between";
    let pods = |more: Value| {
        let mut pods = json!({"files": null, "pods": "app=traefik"});
        pods.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        pods
    };
    let settings = vec![
        (json!({"files": ["/nowhere/other.log"]}), Asked("/nowhere/other.log")),
        (pods(json!({})), Asked("GET /api/v1/pods?&labelSelector=app%3Dtraefik")),
        (pods(json!({"namespace": "edge"})), Asked("GET /api/v1/namespaces/edge/pods?")),
        (pods(json!({"container": "second"})), Asked("container=second")),
        (json!({"format": "json"}), Test(LOGS, FORMAT)),
        (json!({"service": "shop/web"}), Test(LOGS, NOBODY)),
        (json!({"trustSilence": true}), Test(LOGS, SILENCE)),
        (json!({"every": "2s"}), Test(LOGS, TWICE)),
    ];
    Form { kind: "logs", base: json!({"files": ["/nowhere/access.log"]}), settings }
}

fn forms() -> Vec<Form> {
    vec![ingress(), prometheus(), flux(), influxql(), datadog(), logs()]
}

/// The base with these settings.
fn with(form: &Form, settings: &Value) -> Value {
    let mut all = form.base.clone();
    let fields = all.as_object_mut().unwrap();
    fields.insert("kind".to_owned(), json!(form.kind));
    for (name, value) in settings.as_object().unwrap() {
        fields.insert(name.clone(), value.clone());
    }
    fields.retain(|_, value| !value.is_null());
    all
}

#[tokio::test]
async fn every_setting_changes_what_is_asked_or_what_is_made_of_the_answer() {
    for form in forms() {
        let without = told(with(&form, &json!({}))).await;
        for (settings, shows) in &form.settings {
            let (text, expected) = match *shows {
                Asked(expected) => (told(with(&form, settings)).await, expected),
                Understood(expected) => {
                    (format!("{:?}", SourceSpec::read("main", with(&form, settings)).unwrap()), expected)
                }
                Test(file, name) => {
                    let test = file.split("async fn ").find(|test| test.starts_with(name));
                    let test = test.unwrap_or_else(|| panic!("{settings}: there is no test {name}"));
                    let sets = |key: &String| test.contains(&format!("\"{key}\""));
                    assert!(settings.as_object().unwrap().keys().all(sets), "{name} does not set {settings}");
                    continue;
                }
            };
            assert!(text.contains(expected), "{} {settings}: {expected}\nis not in\n{text}", form.kind);
            assert!(!without.contains(expected), "{} {settings}: {expected} is there without it", form.kind);
        }
    }
}

#[test]
fn every_setting_that_is_accepted_is_among_these_and_in_the_guide() {
    let mut tried: BTreeMap<&str, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
    for form in forms() {
        let (known, shown) = tried.entry(form.kind).or_default();
        for (settings, _) in &form.settings {
            shown.extend(settings.as_object().unwrap().keys().cloned());
            let mut all: Value =
                serde_json::from_str(&with(&form, settings).to_string().replace("PORT", "1")).unwrap();
            all["noSuchSetting"] = json!(1);
            let refusals = SourceSpec::read("main", all).unwrap_err();
            assert_eq!(refusals.len(), 1, "{refusals:?}");
            let (_, accepted) = refusals[0].split_once("is not known; accepted: ").unwrap();
            known.extend(accepted.split(", ").map(str::to_owned));
        }
    }
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/sources");
    let read = |page: &str| std::fs::read_to_string(format!("{guide}/{page}.md")).unwrap();
    for (kind, (known, shown)) in tried {
        assert_eq!(known, shown, "{kind}");
        let text = read(kind) + &read("README");
        let named =
            |name: &String| [format!("`{name}`"), format!("{name}: ")].iter().any(|form| text.contains(form));
        let unnamed: Vec<_> = known.into_iter().filter(|name| !named(name)).collect();
        assert!(unnamed.is_empty(), "docs/guide/sources/{kind}.md does not name {unnamed:?}");
    }
}

#[test]
fn rules_that_are_evaluated_too_seldom_for_a_nap_are_refused_in_both_forms() {
    for given in ["2m1s", "often"] {
        let settings = json!({"kind": "prometheus", "url": "http://127.0.0.1:1", "ruleInterval": given});
        let refusal = SourceSpec::read("main", settings).unwrap_err().join("\n");
        assert!(refusal.contains(&format!("sources.main.ruleInterval: `{given}`")), "{refusal}");
        let short = format!("prometheus=http://127.0.0.1:1?ruleInterval={given}").parse::<SourceArg>();
        let refusal = short.unwrap_err().to_string();
        assert!(refusal.contains(&format!("has ruleInterval={given}; accepted: ")), "{refusal}");
    }
    assert!("prometheus=http://127.0.0.1:1?ruleInterval=0s".parse::<SourceArg>().is_ok());
}

#[test]
fn a_parameter_that_is_nearly_a_setting_is_no_parameter_of_the_server_s() {
    for (given, meant) in [("alowQuery=true", "allowQuery"), ("rule-interval=30s", "ruleInterval")] {
        let short = format!("prometheus=http://127.0.0.1:1?tenant=a&{given}").parse::<SourceArg>();
        let refusal = short.unwrap_err().to_string();
        let name = given.split('=').next().unwrap();
        assert!(refusal.contains(&format!("has {name}; accepted: {meant}")), "{refusal}");
    }
    assert!("prometheus=http://127.0.0.1:1?tenant=a&allowQuery=true".parse::<SourceArg>().is_ok());
}

/// What a server is asked in two polls that lie 15 seconds apart, and how they were refused.
async fn told(settings: Value) -> String {
    let (samples, mut asked) = poll(settings, "").await;
    if let Err(error) = samples {
        write!(asked, "\n{error}").unwrap();
    }
    asked
}

/// What was asked, in order.
type Questions = Arc<Mutex<String>>;

/// Two polls with these settings of a server that answers this; what was asked.
async fn poll(settings: Value, answer: &'static str) -> (Result<Samples, SourceError>, String) {
    let questions = Questions::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = server(&questions, answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = serde_json::from_str(&settings.to_string().replace("PORT", &port.to_string())).unwrap();
    let spec = SourceSpec::read("main", settings).unwrap();
    let api = tower::ServiceBuilder::new()
        .map_request(|request: http::Request<kube::client::Body>| request.map(Body::new))
        .service(server(&questions, answer));
    let client = kube::Client::new(api, "default");
    let source = match build(&[spec], &Credentials::default(), &client) {
        Ok(mut sources) => sources.remove(0),
        Err(error) => return (Err(error), String::new()),
    };
    let web = Target { query: Some("sum(own_total)".into()), ..target("shop", "web") };
    let mut samples = Err(SourceError::Crashed);
    for second in [0, 15] {
        let now = Timestamp::from_second(1_800_000_000 + second).unwrap();
        let ask = Ask { now, targets: [web.clone()].into(), history: Duration::from_mins(10) };
        samples = source.poll(&ask).await;
        if source.asks_queries() {
            source.queries(&ask).await.ok();
        }
    }
    let asked = questions.lock().unwrap().clone();
    (samples, asked)
}

/// Writes down what it is asked, and answers as an API server with one pod, as Datadog, or what it was told.
fn server(questions: &Questions, answer: &'static str) -> Router {
    let questions = Arc::clone(questions);
    Router::new().fallback(move |method: Method, uri: Uri, headers: HeaderMap, body: String| {
        let mut questions = questions.lock().unwrap();
        let number = questions.matches("question ").count() + 1;
        write!(questions, "question {number}: {method} {uri}\n{body}\n").unwrap();
        for (name, value) in &headers {
            writeln!(questions, "{name}: {}", value.to_str().unwrap()).unwrap();
        }
        let reply = if uri.path().ends_with("/pods") {
            axum::Json(pods()).into_response()
        } else if uri.path().ends_with("/log") {
            "2027-01-15T08:00:00.000000000Z a line\n".into_response()
        } else if uri.path().ends_with("/timeseries") {
            axum::Json(timeseries()).into_response()
        } else {
            ([("date", "Mon, 23 Nov 2026 06:25:34 GMT")], answer).into_response()
        };
        std::future::ready(reply)
    })
}

/// A pod of two containers, at whose port 1 nobody listens.
fn pods() -> Value {
    let state = json!({"running": {"startedAt": "2027-01-15T07:00:00Z"}});
    let container = |name: &str| json!({"name": name, "ready": true, "restartCount": 0, "image": "proxy:1", "imageID": "", "state": state});
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [{
        "metadata": {
            "name": "proxy", "namespace": "edge", "uid": "1", "labels": {"app": "traefik"},
            "annotations": {"prometheus.io/port": "1"},
        },
        "spec": {"containers": [{"name": "first"}, {"name": "second"}]},
        "status": {
            "phase": "Running", "podIP": "127.0.0.1",
            "containerStatuses": [container("first"), container("second")],
        },
    }]})
}

/// That its proxy was heard of, and nothing else.
fn timeseries() -> Value {
    json!({"data": {"id": "0", "type": "timeseries_response", "attributes": {
        "series": [{"group_tags": ["host:a"], "query_index": 1, "unit": null}],
        "times": [1_799_999_880_000_i64, 1_799_999_940_000_i64],
        "values": [[1.0, 1.0]],
    }}})
}

#[tokio::test]
async fn a_measurement_of_one_s_own_is_read_by_its_own_names() {
    const ROWS: &str = ",result,table,_time,_value,_field,_measurement,pod,ns,svc\r\n\
        ,_result,0,2026-11-23T06:25:04Z,7,hits,visits,a,shop,web\r\n\
        ,_result,0,2026-11-23T06:25:24Z,7,hits,visits,a,shop,web\r\n\r\n";
    let blind =
        |samples: &Samples| samples.of(&AppId::new("shop", "web")).blind.into_iter().collect::<Vec<_>>();
    let settings = |tags: Value| {
        let own = json!({"measurement": "visits", "field": "hits", "instanceTag": "pod"});
        let mut all = with(&flux(), &own);
        all.as_object_mut().unwrap().extend(tags.as_object().unwrap().clone());
        all
    };
    let samples = poll(settings(json!({"namespaceTag": "ns", "serviceTag": "svc"})), ROWS).await.0.unwrap();
    assert_eq!(blind(&samples), []);
    assert!(samples.detail(&AppId::new("shop", "web")).unwrap().matched > 0);
    // By other names nothing of it is the app's.
    assert_eq!(blind(&poll(settings(json!({})), ROWS).await.0.unwrap()), [Blind::NoSeries]);
}
