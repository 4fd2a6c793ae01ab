//! The timeseries query of Datadog's API v2: the question, the answer, and what it says about its limits.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;
use serde::Deserialize;
use serde_json::{Value, json};

/// What is asked for: requests by app, and a sign of life by instance.
#[derive(Clone, Debug)]
pub(super) struct Queries {
    pub(super) requests: String,
    pub(super) alive: String,
}

impl Queries {
    /// `as_count` and `sum` matter: without them Datadog averages, and a single request vanishes.
    pub(super) fn new(metric: &str, scope: &str, tags: [&str; 2], heartbeat: &str, instance: &str) -> Self {
        let seconds = BUCKET.as_secs();
        let tags = tags.join(",");
        Self {
            requests: format!("sum:{metric}{{{scope}}} by {{{tags}}}.as_count().rollup(sum, {seconds})"),
            alive: format!("max:{heartbeat}{{{scope}}} by {{{instance}}}.rollup(max, {seconds})"),
        }
    }

    /// The question's body; times in milliseconds.
    pub(super) fn body(&self, from: i64, to: i64) -> Value {
        let query = |name: &str, query: &str| json!({"data_source": "metrics", "name": name, "query": query});
        json!({"data": {"type": "timeseries_request", "attributes": {
            "from": from,
            "to": to,
            "interval": BUCKET.as_millis(),
            "queries": [query("requests", &self.requests), query("alive", &self.alive)],
            "formulas": [{"formula": "requests"}, {"formula": "alive"}],
        }}})
    }
}

/// The width of one point; its time is its beginning.
pub(super) const BUCKET: Duration = Duration::from_secs(60);

/// One series: its tags, and the points that are not null with the milliseconds at which their buckets begin.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    pub(super) tags: BTreeMap<String, String>,
    pub(super) points: Vec<(i64, f64)>,
}

/// The two queries' series.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Answer {
    pub(super) requests: Vec<Series>,
    pub(super) alive: Vec<Series>,
}

#[derive(Deserialize)]
struct Wire {
    data: Option<WireData>,
    errors: Option<Value>,
}

#[derive(Deserialize)]
struct WireData {
    attributes: Option<Attributes>,
}

#[derive(Deserialize)]
struct Attributes {
    #[serde(default)]
    series: Vec<WireSeries>,
    #[serde(default)]
    times: Vec<i64>,
    #[serde(default)]
    values: Vec<Vec<Option<f64>>>,
}

#[derive(Deserialize)]
struct WireSeries {
    #[serde(default)]
    group_tags: Vec<String>,
    #[serde(default)]
    query_index: usize,
}

/// Why there is no answer.
#[derive(Debug, PartialEq)]
pub(super) enum Wrong {
    /// The server says so.
    Server(String),
    /// It is not what was asked for.
    Odd(String),
}

/// The answer's series. What their unit is does not matter: more than none is more than none in each.
pub(super) fn decode(body: &[u8]) -> Result<Answer, Wrong> {
    let odd = |why: &str| Wrong::Odd(why.to_owned());
    let wire: Wire = serde_json::from_slice(body)
        .map_err(|error| Wrong::Odd(format!("it is not Datadog's JSON: {error}")))?;
    if let Some(errors) = wire.errors.filter(|errors| !errors.is_null()) {
        return Err(Wrong::Server(said(&errors)));
    }
    let attributes = wire.data.and_then(|data| data.attributes).ok_or_else(|| odd("it has no attributes"))?;
    if attributes.series.len() != attributes.values.len() {
        return Err(odd("it has not as many series as values"));
    }
    let mut answer = Answer::default();
    for (series, values) in attributes.series.into_iter().zip(attributes.values) {
        if values.len() != attributes.times.len() {
            return Err(odd("a series has not as many values as there are times"));
        }
        let tags = series.group_tags.iter().filter_map(|tag| tag.split_once(':'));
        let tags = tags.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let points = attributes.times.iter().zip(values);
        let points = points.filter_map(|(at, value)| Some((*at, value?))).collect();
        let read = Series { tags, points };
        match series.query_index {
            0 => answer.requests.push(read),
            1 => answer.alive.push(read),
            _ => return Err(odd("it answers a query that was not asked")),
        }
    }
    Ok(answer)
}

/// The server's own words: a list of texts, or of objects with a detail.
pub(super) fn said(errors: &Value) -> String {
    let one = |error: &Value| {
        let text = error.as_str().or_else(|| error["detail"].as_str()).or_else(|| error["title"].as_str());
        text.map_or_else(|| error.to_string(), str::to_owned)
    };
    let all = match errors {
        Value::Array(errors) => errors.iter().map(one).collect::<Vec<_>>().join("; "),
        other => one(other),
    };
    all.chars().filter(|sign| !sign.is_control()).take(300).collect()
}

/// What a refused answer's body says.
pub(super) fn refusal(body: &[u8]) -> Option<String> {
    let wire: Value = serde_json::from_slice(body).ok()?;
    wire.get("errors").filter(|errors| !errors.is_null()).map(said)
}

/// How long the server wants to be left alone: `refused`, or when this was the last question of its period.
pub(super) fn wait(headers: &HeaderMap, refused: bool) -> Option<Duration> {
    let number = |name: &str| -> Option<u64> { headers.get(name)?.to_str().ok()?.trim().parse().ok() };
    let spent = number("x-ratelimit-remaining").is_some_and(|remaining| remaining == 0);
    if !refused && !spent {
        return None;
    }
    let reset = number("x-ratelimit-reset").or_else(|| number("retry-after"));
    let wait = reset.map_or(UNSAID, Duration::from_secs);
    Some(wait.clamp(Duration::from_secs(1), LONGEST))
}

/// How long is waited where the server does not say.
const UNSAID: Duration = Duration::from_secs(60);
/// How long is waited at most; its periods are an hour.
const LONGEST: Duration = Duration::from_hours(1);

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn the_question_is_this() {
        let queries = Queries::new("m", "env:prod", ["namespace", "service"], "h", "host");
        expect![[r#"{"data":{"attributes":{"formulas":[{"formula":"requests"},{"formula":"alive"}],"from":1,"interval":60000,"queries":[{"data_source":"metrics","name":"requests","query":"sum:m{env:prod} by {namespace,service}.as_count().rollup(sum, 60)"},{"data_source":"metrics","name":"alive","query":"max:h{env:prod} by {host}.rollup(max, 60)"}],"to":2},"type":"timeseries_request"}}"#]]
            .assert_eq(&queries.body(1, 2).to_string());
    }

    #[test]
    fn null_points_are_left_out_and_series_go_to_their_query() {
        let body = r#"{"data":{"id":"0","type":"timeseries_response","attributes":{
            "series":[{"group_tags":["namespace:shop","service:web"],"query_index":0,"unit":[{"name":"request"},null]},
                      {"group_tags":["host:a:1"],"query_index":1,"unit":null}],
            "times":[60000,120000,180000],"values":[[null,3,0],[1.0,null,1]]}}}"#;
        let answer = decode(body.as_bytes()).unwrap();
        assert_eq!(answer.requests[0].points, [(120_000, 3.0), (180_000, 0.0)]);
        assert_eq!(answer.requests[0].tags["service"], "web");
        assert_eq!((answer.alive[0].tags["host"].as_str(), answer.alive[0].points.len()), ("a:1", 2));
    }

    #[test]
    fn errors_and_oddities_are_no_answer() {
        let fire = Err(Wrong::Server("disk on fire; smoke".to_owned()));
        assert_eq!(decode(br#"{"errors":["disk on fire",{"title":"x","detail":"smoke"}]}"#), fire);
        assert_eq!(refusal(br#"{"errors":["Forbidden"]}"#).as_deref(), Some("Forbidden"));
        for odd in [
            "{}",
            "[]",
            "<html>",
            r#"{"data":{"attributes":{"series":[{}],"times":[],"values":[]}}}"#,
            r#"{"data":{"attributes":{"series":[{}],"times":[1],"values":[[]]}}}"#,
            r#"{"data":{"attributes":{"series":[{"query_index":7}],"times":[],"values":[[]]}}}"#,
        ] {
            assert!(matches!(decode(odd.as_bytes()), Err(Wrong::Odd(_))), "{odd}");
        }
    }

    #[test]
    fn the_limits_that_the_server_tells_are_kept() {
        let with = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            let pairs = pairs.iter().map(|(name, value)| {
                (http::HeaderName::from_static(name), http::HeaderValue::from_str(value).unwrap())
            });
            pairs.collect()
        };
        let spent = with(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "17")]);
        assert_eq!(wait(&spent, false), Some(Duration::from_secs(17)));
        let left = with(&[("x-ratelimit-remaining", "5"), ("x-ratelimit-reset", "17")]);
        assert_eq!((wait(&left, false), wait(&left, true)), (None, Some(Duration::from_secs(17))));
        assert_eq!(wait(&HeaderMap::new(), true), Some(UNSAID));
        assert_eq!(wait(&with(&[("x-ratelimit-reset", "999999")]), true), Some(LONGEST));
    }
}
