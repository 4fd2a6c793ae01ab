//! A stand-in for InfluxDB, into which Telegraf wrote what it saw of the world at each tick.
#![expect(clippy::unwrap_used, reason = "a stand-in that breaks should stop its test")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::{Query, State};
use axum::http::header::{CONTENT_TYPE, DATE};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::stand_in::{Fault, Kind, Proxy, Shared, World, faulty};

type Tags = BTreeMap<String, String>;
type Points = Vec<(f64, f64)>;

/// `/api/v2/query`
pub(crate) async fn flux(State(world): State<Shared>, query: String) -> Response {
    let world = world.lock().unwrap().clone();
    match &world.fault {
        Some(Fault::Nothing) => return dated(&world, "text/csv", "\r\n".to_owned()),
        Some(Fault::ErrorIn200) => {
            let text = "#datatype,string,long\r\n,error,reference\r\n,disk on fire,897\r\n";
            return dated(&world, "text/csv", text.to_owned());
        }
        Some(fault) => return faulty(fault).await,
        None => {}
    }
    let step = between(&query, "every: ", "s").map(|step| step.parse::<f64>().unwrap());
    let mut text = String::new();
    for part in query.split("r._measurement == \"").skip(1) {
        let measurement = part.split('"').next().unwrap();
        let field = between(part, "r._field == \"", "\"").unwrap();
        let mut tables: BTreeMap<Tags, Points> = BTreeMap::new();
        for (tags, points) in written(&world, measurement) {
            let points = match step {
                Some(step) => {
                    let until = between(&query, "stop: ", ")");
                    stepped(&points, step, [between(&query, "range(start: ", ","), until], 1.0)
                }
                None if query.contains("tail(n: 2)") => points,
                None => points.last().copied().into_iter().collect(),
            };
            let group = if query.contains("tail(n: 2)") {
                BTreeMap::from([("url".to_owned(), tags["url"].clone())])
            } else {
                tags
            };
            tables.entry(group).or_default().extend(points);
        }
        for (number, (tags, mut points)) in tables.into_iter().enumerate() {
            if query.contains("tail(n: 2)") {
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
                points = points.split_off(points.len().saturating_sub(2));
            }
            let names: String = tags.keys().fold(String::new(), |all, name| all + "," + name);
            // Two shapes in turn: a server may answer with either.
            let annotated = number % 2 == 1;
            if annotated {
                write!(text, "#default,_result,,,,,{}\r\n", ",".repeat(tags.len() - 1)).unwrap();
            }
            write!(text, ",result,table,_time,_value,_field,_measurement{names}\r\n").unwrap();
            for (at, value) in points {
                let result = if annotated { "" } else { "_result" };
                let values: String =
                    tags.values().fold(String::new(), |all, value| all + ",\"" + value + "\"");
                let (at, value) = (moment(at), shown(value));
                write!(text, ",{result},{number},{at},{value},{field},{measurement}{values}\r\n").unwrap();
            }
            text.push_str("\r\n");
        }
    }
    dated(&world, "text/csv; charset=utf-8", text)
}

/// `/query`
pub(crate) async fn influxql(
    State(world): State<Shared>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Response {
    let world = world.lock().unwrap().clone();
    let statements: Vec<_> = query["q"].split("; ").collect();
    match &world.fault {
        Some(Fault::Nothing) => {
            let results: Vec<_> = statements.iter().map(|_| json!({"statement_id": 0})).collect();
            return dated(&world, "application/json", json!({"results": results}).to_string());
        }
        Some(Fault::ErrorIn200) => {
            let text = json!({"results": [{"statement_id": 0, "error": "disk on fire"}]});
            return dated(&world, "application/json", text.to_string());
        }
        Some(fault) => return faulty(fault).await,
        None => {}
    }
    let mut results = Vec::new();
    for statement in statements {
        let measurement = between(statement, "FROM \"", "\"").unwrap();
        let step = between(statement, "time(", "s").map(|step| step.parse::<f64>().unwrap());
        let last_two = statement.contains("LIMIT 2");
        let series: Vec<_> = written(&world, measurement)
            .into_iter()
            .map(|(tags, mut points)| {
                if let Some(step) = step {
                    let until = between(statement, "time < '", "'");
                    points = stepped(&points, step, [between(statement, "time >= '", "'"), until], 0.0);
                } else if last_two {
                    points.reverse();
                    points.truncate(2);
                } else {
                    points = points.last().copied().into_iter().collect();
                }
                let values: Vec<Value> =
                    points.iter().map(|(at, value)| json!([at * 1000.0, value])).collect();
                #[expect(clippy::cast_possible_truncation, reason = "times of a test")]
                let values: Vec<Value> = values
                    .into_iter()
                    .map(|pair| json!([pair[0].as_f64().unwrap() as i64, pair[1]]))
                    .collect();
                json!({"name": measurement, "tags": tags, "columns": ["time", "last"], "values": values})
            })
            .collect();
        results.push(if series.is_empty() { json!({"statement_id": 0}) } else { json!({"series": series}) });
    }
    dated(&world, "application/json", json!({"results": results}).to_string())
}

/// The last point of each step, at the step's beginning or, `end` steps later, its end.
fn stepped(points: &Points, step: f64, span: [Option<&str>; 2], end: f64) -> Points {
    let [start, until] = span.map(|moment| moment.unwrap().parse::<Timestamp>().unwrap());
    let mut steps: BTreeMap<i64, f64> = BTreeMap::new();
    for (at, value) in points {
        #[expect(clippy::cast_possible_truncation, reason = "times of a test")]
        let window = (at / step).floor() as i64;
        #[expect(clippy::cast_precision_loss, reason = "times of a test")]
        if *at >= start.as_second() as f64 && *at < until.as_second() as f64 {
            steps.insert(window, *value);
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "times of a test")]
    steps.into_iter().map(|(window, value)| ((window as f64 + end) * step, value)).collect()
}

/// Every series of the measurement, with its points in order of time.
fn written(world: &World, measurement: &str) -> Vec<(Tags, Points)> {
    let mut series: BTreeMap<Tags, Points> = BTreeMap::new();
    for moment in &world.log {
        let (then, proxies) = &**moment;
        for (name, proxy) in proxies.iter().filter(|(_, proxy)| proxy.up) {
            let at = then - proxy.age + world.skew + world.data_skew;
            for (labels, value) in values(proxy, measurement) {
                let mut tags = Tags::from([("url".to_owned(), format!("http://{name}:9100/metrics"))]);
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (name, value) = label.split_once('=').unwrap();
                    if value != "\"\"" {
                        tags.insert(name.to_owned(), value.trim_matches('"').to_owned());
                    }
                }
                series.entry(tags).or_default().push((at, value));
            }
        }
    }
    series.into_iter().collect()
}

fn values(proxy: &Proxy, measurement: &str) -> Vec<(String, f64)> {
    let (presence, counter) = match proxy.kind {
        Kind::Traefik => ("traefik_config_last_reload_success", "traefik_service_requests_total"),
        Kind::Nginx => {
            ("nginx_ingress_controller_config_last_reload_successful", "nginx_ingress_controller_requests")
        }
        Kind::Own => ("", ""),
    };
    if measurement == presence {
        vec![(String::new(), 1.0)]
    } else if measurement == counter {
        proxy.counters.iter().map(|(labels, value)| (labels.clone(), *value)).collect()
    } else if measurement == "process_start_time_seconds" {
        vec![(String::new(), proxy.started)]
    } else {
        Vec::new()
    }
}

fn moment(at: f64) -> Timestamp {
    #[expect(clippy::cast_possible_truncation, reason = "times of a test")]
    Timestamp::from_millisecond((at * 1000.0) as i64).unwrap()
}

/// No value where it is no number: InfluxDB does not keep NaN.
fn shown(value: f64) -> String {
    if value.is_finite() { value.to_string() } else { String::new() }
}

fn dated(world: &World, kind: &'static str, text: String) -> Response {
    let date = moment(world.now + world.skew).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    ([(CONTENT_TYPE, kind.to_owned()), (DATE, date)], text).into_response()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(inside, _)| inside)
}
