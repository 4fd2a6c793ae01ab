//! A stand-in for Datadog, to which an agent beside each proxy has sent what it saw of the world at each tick.
#![expect(clippy::unwrap_used, reason = "a stand-in that breaks should stop its test")]

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::header::DATE;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::stand_in::{Fault, Proxy, Shared, World, faulty};

const MINUTE: i64 = 60_000;

/// A series: its tags, the query that it answers, and its buckets by their minute.
type Series = (Vec<String>, u8, BTreeMap<i64, f64>);

/// `/api/v2/query/timeseries`
pub(crate) async fn timeseries(State(world): State<Shared>, question: String) -> Response {
    let world = world.lock().unwrap().clone();
    match &world.fault {
        Some(Fault::Nothing) => return dated(&world, &answer(&[], &[])),
        Some(Fault::ErrorIn200) => return dated(&world, &json!({"errors": ["disk on fire"]})),
        Some(fault) => return faulty(fault).await,
        None => {}
    }
    let question: Value = serde_json::from_str(&question).unwrap();
    let bound = |name: &str| question["data"]["attributes"][name].as_i64().unwrap().div_euclid(MINUTE);
    let minutes: Vec<i64> = (bound("from")..=bound("to")).collect();
    dated(&world, &answer(&minutes, &written(&world)))
}

/// What agents sent: by how much each counter grew from one look to the next, and that they looked.
fn written(world: &World) -> Vec<Series> {
    let mut requests: BTreeMap<String, BTreeMap<i64, f64>> = BTreeMap::new();
    let mut alive: BTreeMap<&str, BTreeMap<i64, f64>> = BTreeMap::new();
    let mut looked: BTreeMap<&str, &Proxy> = BTreeMap::new();
    for moment in &world.log {
        let (then, proxies) = &**moment;
        for (name, proxy) in proxies.iter().filter(|(_, proxy)| proxy.up) {
            let minute = millis(then - proxy.age + world.skew + world.data_skew).div_euclid(MINUTE);
            let before = looked.insert(name, proxy);
            // A process that begins anew counts from zero, and so does one that the agent has not seen before.
            let before = before.filter(|before| before.started.to_bits() == proxy.started.to_bits());
            for (labels, value) in &proxy.counters {
                let known = before.and_then(|before| before.counters.get(labels)).copied().unwrap_or(0.0);
                *requests.entry(labels.clone()).or_default().entry(minute).or_default() += value - known;
            }
            alive.entry(name).or_default().insert(minute, 1.0);
        }
    }
    let requests = requests.into_iter().map(|(labels, buckets)| (tags(&labels), 0, buckets));
    let alive = alive.into_iter().map(|(name, buckets)| (vec![format!("host:{name}")], 1, buckets));
    requests.chain(alive).collect()
}

/// `service="shop-web-80@kubernetes"` as ingress-nginx would have it.
fn tags(labels: &str) -> Vec<String> {
    let service = labels.split('"').nth(1).unwrap();
    let (namespace, rest) = service.split_once('-').unwrap();
    let (name, _) = rest.rsplit_once('-').unwrap();
    vec![format!("namespace:{namespace}"), format!("service:{name}")]
}

fn answer(minutes: &[i64], series: &[Series]) -> Value {
    let heads: Vec<_> = series
        .iter()
        .map(|(tags, query, _)| json!({"group_tags": tags, "query_index": query, "unit": null}))
        .collect();
    let values: Vec<Vec<Option<f64>>> = series
        .iter()
        .map(|(_, _, buckets)| minutes.iter().map(|minute| buckets.get(minute).copied()).collect())
        .collect();
    let times: Vec<_> = minutes.iter().map(|minute| minute * MINUTE).collect();
    json!({"data": {"id": "0", "type": "timeseries_response",
        "attributes": {"series": heads, "times": times, "values": values}}})
}

fn dated(world: &World, body: &Value) -> Response {
    let now = Timestamp::from_millisecond(millis(world.now + world.skew)).unwrap();
    let date = now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    ([(DATE, date)], axum::Json(body)).into_response()
}

fn millis(seconds: f64) -> i64 {
    #[expect(clippy::cast_possible_truncation, reason = "times of a test")]
    let millis = (seconds * 1000.0) as i64;
    millis
}
