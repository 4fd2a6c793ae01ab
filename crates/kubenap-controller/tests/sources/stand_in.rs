//! Stand-ins: a Prometheus server, proxies with `/metrics`, and an API server that lists their pods.
#![expect(clippy::unwrap_used, reason = "a stand-in that breaks should stop its test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{datadog_server, influx_server, lines};

/// A moment, and the proxies as they were.
pub(crate) type Moment = (f64, BTreeMap<String, Proxy>);

/// What there is: proxies with counters, at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    /// The time, in seconds.
    pub(crate) now: f64,
    /// How far Prometheus' clock is ahead of it.
    pub(crate) skew: f64,
    /// How far the clock of whoever writes into a database is ahead of the database's own.
    pub(crate) data_skew: f64,
    /// The proxies' pods by name.
    pub(crate) proxies: BTreeMap<String, Proxy>,
    /// Earlier moments that Prometheus remembers.
    pub(crate) log: Vec<Arc<Moment>>,
    /// What every answer is instead.
    pub(crate) fault: Option<Fault>,
    /// Warnings in Prometheus' answers.
    pub(crate) warnings: Vec<String>,
    /// Whether the metrics' own labels were renamed by the scrape.
    pub(crate) exported: bool,
    /// The ConfigMap in which a source keeps what it knows.
    pub(crate) kept: Kept,
}

/// A ConfigMap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    pub(crate) data: serde_json::Map<String, Value>,
    /// How often it was written.
    pub(crate) writes: usize,
    /// What is answered instead.
    pub(crate) refused: Option<u16>,
}

/// One instance of a proxy, or a pod that counts its own requests.
#[derive(Clone, Debug)]
pub(crate) struct Proxy {
    pub(crate) kind: Kind,
    /// Whether it can be scraped.
    pub(crate) up: bool,
    pub(crate) ready: bool,
    pub(crate) deleting: bool,
    pub(crate) started: f64,
    /// How long ago Prometheus scraped it; a page of metrics that is older than now says so in its timestamps.
    pub(crate) age: f64,
    /// Requests through its doors to whichever service.
    pub(crate) entered: f64,
    /// Labels in the text format, without braces, and the count.
    pub(crate) counters: BTreeMap<String, f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Traefik,
    Nginx,
    Own,
}

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Status(u16),
    Html,
    Redirect,
    Garbage,
    ErrorIn200,
    Never,
    Huge,
    Nothing,
}

pub(crate) type Shared = Arc<Mutex<World>>;

/// Serves the world on a port of loopback.
pub(crate) async fn serve(world: Shared) -> u16 {
    let app = Router::new()
        .route("/api/v1/query", post(instant))
        .route("/api/v1/query_range", post(range))
        .route("/metrics/{proxy}", get(metrics))
        .route("/api/v2/query/timeseries", post(datadog_server::timeseries))
        .route("/api/v2/query", post(influx_server::flux))
        .route("/query", get(influx_server::influxql))
        .with_state(world);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

/// A client of an API server that lists the proxies' pods.
pub(crate) fn cluster(world: Shared, port: u16) -> kube::Client {
    let of_kept = Arc::clone(&world);
    let (of_logs, name) = (Arc::clone(&world), "/api/v1/namespaces/ingress/pods/{name}/log");
    let log = get(move |Path(name): Path<String>, Query(query): Query<BTreeMap<String, String>>| {
        let world = of_logs.lock().unwrap().clone();
        async move { log(&world, &name, &query).await }
    });
    let router: Router = Router::new().route(name, log).route(
        "/api/v1/pods",
        get(move |Query(query): Query<BTreeMap<String, String>>| {
            let selector = query.get("labelSelector").cloned().unwrap_or_default();
            let world = world.lock().unwrap().clone();
            async move { axum::Json(pods(&world, &selector, port)) }
        }),
    );
    let router = router.route(
        "/api/v1/namespaces/own/configmaps/kubenap-baseline",
        get(kept).patch(keep).with_state(of_kept),
    );
    let service = tower::ServiceBuilder::new()
        .map_request(|request: http::Request<kube::client::Body>| request.map(Body::new))
        .service(router);
    kube::Client::new(service, "default")
}

async fn kept(State(world): State<Shared>) -> Response {
    map(&world.lock().unwrap())
}

async fn keep(State(world): State<Shared>, axum::Json(patch): axum::Json<Value>) -> Response {
    let mut world = world.lock().unwrap();
    if patch["metadata"]["resourceVersion"].as_str() != Some(&*world.kept.writes.to_string()) {
        return StatusCode::CONFLICT.into_response();
    }
    if world.kept.refused.is_none() {
        world.kept.writes += 1;
        world.kept.data.extend(patch["binaryData"].as_object().unwrap().clone());
    }
    map(&world)
}

fn map(world: &World) -> Response {
    if let Some(code) = world.kept.refused {
        return StatusCode::from_u16(code).unwrap().into_response();
    }
    #[expect(clippy::cast_possible_truncation, reason = "the tests' times are whole seconds")]
    let now = Timestamp::from_second(world.now as i64).unwrap();
    let date = jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
    let metadata = json!({"name": "kubenap-baseline", "resourceVersion": world.kept.writes.to_string()});
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": world.kept.data});
    ([("date", date)], axum::Json(map)).into_response()
}

fn pods(world: &World, selector: &str, port: u16) -> Value {
    let of = |kind: Kind| match kind {
        Kind::Traefik => "traefik",
        Kind::Nginx => "ingress-nginx",
        Kind::Own => "",
    };
    let names = selector.strip_prefix("app.kubernetes.io/name in (").map(|rest| rest.trim_end_matches(')'));
    let listed = world
        .proxies
        .iter()
        .filter(|(_, proxy)| names.is_some_and(|names| names.split(',').any(|name| name == of(proxy.kind))));
    let items: Vec<_> = listed
        .map(|(name, proxy)| {
            let deleted = proxy.deleting.then_some("2026-11-22T00:00:00Z");
            json!({
                "metadata": {
                    "namespace": "ingress", "name": name, "uid": name, "deletionTimestamp": deleted,
                    "labels": {"app.kubernetes.io/name": of(proxy.kind)},
                    "annotations": {
                        "prometheus.io/port": port.to_string(), "prometheus.io/path": format!("/metrics/{name}"),
                    },
                },
                "spec": {"containers": [{"name": "proxy"}]},
                "status": {
                    "phase": "Running", "podIP": "127.0.0.1",
                    "containerStatuses": [{
                        "name": "proxy", "image": "", "imageID": "", "ready": true,
                        "restartCount": restarts(world, name),
                        "state": {"running": {"startedAt": started(proxy)}},
                    }],
                    "conditions": [{"type": "Ready", "status": if proxy.ready { "True" } else { "False" }}],
                },
            })
        })
        .collect();
    json!({"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": items})
}

/// What a proxy's container has printed. Nobody follows it: each poll reads it to its end.
async fn log(world: &World, name: &str, query: &BTreeMap<String, String>) -> Response {
    if query.get("follow").is_some_and(|follow| follow == "true") {
        return std::future::pending().await;
    }
    if world.fault.is_some() || !world.proxies.get(name).is_some_and(|proxy| proxy.up) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let since: Timestamp = query["sinceTime"].parse().unwrap();
    let lines = lines::of_process(world, name).into_iter().filter(|(at, _)| *at >= since);
    let mut text = String::new();
    for (at, line) in lines {
        writeln!(text, "{at} {line}").unwrap();
    }
    text.into_response()
}

async fn metrics(State(world): State<Shared>, Path(name): Path<String>) -> Response {
    let world = world.lock().unwrap().clone();
    if let Some(fault) = &world.fault {
        return faulty(fault).await;
    }
    let Some(proxy) = world.proxies.get(&name).filter(|proxy| proxy.up) else {
        return StatusCode::BAD_GATEWAY.into_response();
    };
    let mut text =
        format!("# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {}\n", proxy.started);
    let metric = match proxy.kind {
        Kind::Traefik => {
            text.push_str("traefik_config_last_reload_success 1\n");
            writeln!(
                text,
                "traefik_entrypoint_requests_total{{entrypoint=\"web\",code=\"200\"}} {}",
                proxy.entered
            )
            .unwrap();
            text.push_str("traefik_entrypoint_requests_total{entrypoint=\"traefik\",code=\"200\"} 99\n");
            "traefik_service_requests_total"
        }
        Kind::Nginx => {
            text.push_str("nginx_ingress_controller_config_last_reload_successful 1\n");
            "nginx_ingress_controller_requests"
        }
        Kind::Own => "http_requests_total",
    };
    let taken =
        if proxy.age > 0.0 { format!(" {:.0}", (world.now - proxy.age) * 1000.0) } else { String::new() };
    for (labels, value) in &proxy.counters {
        writeln!(text, "{metric}{{{labels}}} {value}{taken}").unwrap();
    }
    ([("content-type", "text/plain; version=0.0.4")], text).into_response()
}

pub(crate) async fn faulty(fault: &Fault) -> Response {
    match fault {
        Fault::Status(status) => StatusCode::from_u16(*status).unwrap().into_response(),
        Fault::Html => ([("content-type", "text/html; charset=utf-8")], "<h1>sign in</h1>").into_response(),
        Fault::Redirect => (StatusCode::FOUND, [("location", "http://127.0.0.1:1/")]).into_response(),
        Fault::Garbage => "\u{0}{]not what was asked for".into_response(),
        Fault::ErrorIn200 => {
            axum::Json(json!({"status": "error", "errorType": "internal", "error": "disk on fire"}))
                .into_response()
        }
        Fault::Never => std::future::pending().await,
        Fault::Huge => {
            let piece = Bytes::from(vec![b' '; 1 << 20]);
            let pieces = futures::stream::repeat_with(move || Ok::<_, std::io::Error>(piece.clone()));
            Body::from_stream(pieces).into_response()
        }
        Fault::Nothing => axum::Json(success("vector", &[], &[])).into_response(),
    }
}

/// How often the proxy's process has begun anew.
fn restarts(world: &World, name: &str) -> usize {
    let own = world.log.iter().filter_map(|moment| moment.1.get(name));
    let mut starts: Vec<_> = own.map(|proxy| proxy.started.to_bits()).collect();
    starts.dedup();
    starts.len().saturating_sub(1)
}

fn started(proxy: &Proxy) -> String {
    #[expect(clippy::cast_possible_truncation, reason = "the tests' times are whole seconds")]
    let started = Timestamp::from_second(proxy.started as i64).unwrap();
    started.to_string()
}

async fn instant(State(world): State<Shared>, body: String) -> Response {
    let world = world.lock().unwrap().clone();
    if let Some(fault) = &world.fault {
        return faulty(fault).await;
    }
    let query = form(&body).remove("query").unwrap();
    let at = world.now + world.skew;
    let rows = if query.contains("[1d]") {
        missing(&world.proxies, &world.log)
    } else {
        rows(&query, &world.proxies, at, world.exported)
    };
    let rows: Vec<_> =
        rows.into_iter().map(|(metric, value)| json!({"metric": metric, "value": [at, value]})).collect();
    axum::Json(success("vector", &rows, &world.warnings)).into_response()
}

async fn range(State(world): State<Shared>, body: String) -> Response {
    let world = world.lock().unwrap().clone();
    let mut form = form(&body);
    let query = form.remove("query").unwrap();
    let [start, end, step] = ["start", "end", "step"].map(|name| form[name].parse::<f64>().unwrap());
    let mut series: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    let mut at = start;
    while at <= end {
        let moment = at - world.skew;
        // Prometheus looks back five minutes for the newest sample, which goes stale when its target goes.
        let known = world.log.iter().rposition(|known| known.0 <= moment && known.0 > moment - 60.0);
        if let Some(known) = known {
            let (then, proxies) = &*world.log[known];
            let rows = if query.contains("[1d]") {
                missing(proxies, &world.log[..=known])
            } else {
                rows(&query, proxies, then + world.skew, world.exported)
            };
            for (metric, value) in rows {
                let (_, values) =
                    series.entry(metric.to_string()).or_insert_with(|| (metric.clone(), Vec::new()));
                values.push(json!([at, value]));
            }
        }
        at += step;
    }
    let rows: Vec<_> =
        series.into_values().map(|(metric, values)| json!({"metric": metric, "values": values})).collect();
    axum::Json(success("matrix", &rows, &world.warnings)).into_response()
}

fn success(kind: &str, rows: &[Value], warnings: &[String]) -> Value {
    let mut answer = json!({"status": "success", "data": {"resultType": kind, "result": rows}});
    if !warnings.is_empty() {
        answer["warnings"] = json!(warnings);
    }
    answer
}

fn rows(query: &str, proxies: &BTreeMap<String, Proxy>, at: f64, exported: bool) -> Vec<(Value, String)> {
    let mut rows = Vec::new();
    let beats = query.contains("timestamp(up)");
    for (name, proxy) in proxies {
        let (mark, metric) = match proxy.kind {
            Kind::Traefik => ("traefik", "traefik_service_requests_total"),
            Kind::Nginx => ("ingress-nginx", "nginx_ingress_controller_requests"),
            Kind::Own => ("own", "http_requests_total{namespace!=\"\",pod!=\"\",handler!=\"\""),
        };
        if beats {
            let (mark, value) = if proxy.up { (mark, at - proxy.age) } else { ("down", 0.0) };
            rows.push((json!({"instance": name, "kubenap": mark}), value.to_string()));
            if proxy.up && proxy.kind == Kind::Traefik {
                let started = json!({"instance": name, "kubenap": "traefik~started"});
                rows.push((started, proxy.started.to_string()));
                rows.push((json!({"instance": name, "kubenap": "entered"}), proxy.entered.to_string()));
            }
        } else if proxy.up && query.contains(metric) {
            for (labels, value) in &proxy.counters {
                let mut metric = json!({"instance": name, "kubenap": mark});
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (name, value) = label.split_once('=').unwrap();
                    let name = if exported { format!("exported_{name}") } else { name.to_owned() };
                    metric[name] = json!(value.trim_matches('"'));
                }
                if exported {
                    metric["namespace"] = json!("ingress");
                    metric["service"] = json!("proxy-metrics");
                }
                rows.push((metric, value.to_string()));
            }
        }
    }
    rows
}

/// Which of the proxies that are down were up before, and which are beside one that is up and were down two minutes ago, too.
fn missing(proxies: &BTreeMap<String, Proxy>, log: &[Arc<Moment>]) -> Vec<(Value, String)> {
    let mut rows = Vec::new();
    let newest = log.last().map_or(0.0, |moment| moment.0);
    let then = log.iter().rev().find(|moment| moment.0 <= newest - 120.0);
    for (name, proxy) in proxies.iter().filter(|(_, proxy)| !proxy.up && proxy.kind != Kind::Own) {
        let mark = if proxy.kind == Kind::Traefik { "traefik" } else { "ingress-nginx" };
        let was_up = log.iter().any(|moment| moment.1.get(name).is_some_and(|proxy| proxy.up));
        if was_up {
            rows.push((json!({"instance": name, "kubenap": format!("{mark}~fallen")}), "0".to_owned()));
        }
        let beside = proxies.values().any(|other| other.up && other.kind == proxy.kind);
        let was_down = then.is_some_and(|moment| moment.1.get(name).is_some_and(|proxy| !proxy.up));
        if beside && was_down {
            rows.push((json!({"instance": name, "kubenap": format!("{mark}~unread")}), "0".to_owned()));
        }
    }
    rows
}

fn form(body: &str) -> BTreeMap<String, String> {
    body.split('&')
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap();
            let mut bytes = Vec::new();
            let mut signs = value.bytes();
            while let Some(byte) = signs.next() {
                bytes.push(match byte {
                    b'%' => {
                        let hex = [signs.next().unwrap(), signs.next().unwrap()];
                        u8::from_str_radix(std::str::from_utf8(&hex).unwrap(), 16).unwrap()
                    }
                    byte => byte,
                });
            }
            (name.to_owned(), String::from_utf8(bytes).unwrap())
        })
        .collect()
}
