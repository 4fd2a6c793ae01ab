//! InfluxQL: the statements for `/query`, which every InfluxDB from 1.x on speaks, and the JSON that comes back.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::Value;

use super::flux::Wrong;
use super::{Row, Scope, Span, Table};

/// The last two points of each instance's sign of life, a statement for each table.
pub(super) fn heartbeat(scope: &Scope, tables: &[Table], span: Span) -> String {
    let each = |table: &Table| {
        let (field, from, since) = (quote(&table.field), quote(&table.measurement), during(span));
        let instance = quote(&scope.instance_tag);
        format!("SELECT {field} FROM {from} WHERE {since} GROUP BY {instance} ORDER BY time DESC LIMIT 2")
    };
    tables.iter().map(each).collect::<Vec<_>>().join("; ")
}

/// The last value of every series, or of every series in each step.
pub(super) fn counters(tables: &[Table], span: Span, step: Option<u64>) -> String {
    let each = |table: &Table| {
        let (field, from, since) = (quote(&table.field), quote(&table.measurement), during(span));
        // By all tags, because the last value of several series together is that of only one of them.
        let by = step.map_or_else(|| "*".to_owned(), |step| format!("time({step}s), * fill(none)"));
        format!("SELECT last({field}) FROM {from} WHERE {since} GROUP BY {by}")
    };
    tables.iter().map(each).collect::<Vec<_>>().join("; ")
}

fn during(span: Span) -> String {
    match span {
        Span::Last(seconds) => format!("time > now() - {seconds}s"),
        Span::Between(start, stop) => {
            let whole = |at: Timestamp| at.round(jiff::Unit::Second).unwrap_or(at);
            format!("time >= '{}' AND time < '{}'", whole(start), whole(stop))
        }
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

#[derive(Deserialize)]
struct Wire {
    results: Option<Vec<WireResult>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct WireResult {
    #[serde(default)]
    series: Vec<WireSeries>,
    error: Option<String>,
    #[serde(default)]
    partial: bool,
}

#[derive(Deserialize)]
struct WireSeries {
    name: String,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    columns: Vec<String>,
    values: Vec<Vec<Value>>,
    #[serde(default)]
    partial: bool,
}

/// The rows of an answer with times in milliseconds. A time stands for its window's beginning: `later` seconds are
/// added. Says also whether something may be missing.
///
/// # Errors
/// The server's own error, which may stand within any statement's result, or what is not understood.
pub(super) fn decode(body: &[u8], tables: &[Table], later: u64) -> Result<(Vec<Row>, bool), Wrong> {
    let odd = |why: &str| Wrong::Odd(why.to_owned());
    let wire: Wire = serde_json::from_slice(body)
        .map_err(|error| Wrong::Odd(format!("it is not InfluxDB's JSON: {error}")))?;
    if let Some(error) = wire.error {
        return Err(Wrong::Server(error));
    }
    let results = wire.results.ok_or_else(|| odd("it has no results"))?;
    if results.len() != tables.len() {
        return match results.into_iter().find_map(|result| result.error) {
            Some(error) => Err(Wrong::Server(error)),
            None => Err(odd("it has another number of results than was asked for")),
        };
    }
    let mut rows = Vec::new();
    let mut partial = false;
    for (result, table) in results.into_iter().zip(tables) {
        if let Some(error) = result.error {
            return Err(Wrong::Server(error));
        }
        partial |= result.partial;
        for series in result.series {
            partial |= series.partial;
            let time = series.columns.iter().position(|column| column == "time");
            let time = time.ok_or_else(|| odd("a series has no time"))?;
            let value = series.columns.iter().position(|column| column != "time");
            let value = value.ok_or_else(|| odd("a series has no values"))?;
            for cells in &series.values {
                let at = cells.get(time).and_then(moment).ok_or_else(|| odd("a time is not understood"))?;
                let later = SignedDuration::from_secs(i64::try_from(later).unwrap_or(i64::MAX));
                let at = at.checked_add(later).map_err(|_| odd("a time is out of range"))?;
                let value = match cells.get(value) {
                    Some(Value::Null) => f64::NAN,
                    Some(value) => value.as_f64().ok_or_else(|| odd("a value is not a number"))?,
                    None => return Err(odd("a row has no value")),
                };
                let tags = series.tags.iter().filter(|(_, value)| !value.is_empty());
                let tags = tags.map(|(name, value)| (name.clone(), value.clone())).collect();
                rows.push(Row {
                    measurement: series.name.clone(),
                    field: table.field.clone(),
                    tags,
                    at,
                    value,
                });
            }
        }
    }
    Ok((rows, partial))
}

/// Milliseconds, as they are asked for, or the text that servers give which do not know `epoch`.
fn moment(value: &Value) -> Option<Timestamp> {
    match value {
        Value::Number(millis) => Timestamp::from_millisecond(millis.as_i64()?).ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn table() -> Table {
        Table {
            measurement: "traefik_service_requests_total".to_owned(),
            field: "counter".to_owned(),
            tags: vec!["service".to_owned()],
        }
    }

    #[test]
    fn the_statements_are_these() {
        let scope = Scope { bucket: "traffic".to_owned(), instance_tag: "url".to_owned() };
        let (start, stop) = (Timestamp::UNIX_EPOCH, "1970-01-01T01:00:00Z".parse().unwrap());
        let all = [
            heartbeat(&scope, &[table(), table()], Span::Last(3600)),
            counters(&[table()], Span::Last(3600), None),
            counters(&[table()], Span::Between(start, stop), Some(60)),
        ];
        expect![[r#"
            SELECT "counter" FROM "traefik_service_requests_total" WHERE time > now() - 3600s GROUP BY "url" ORDER BY time DESC LIMIT 2; SELECT "counter" FROM "traefik_service_requests_total" WHERE time > now() - 3600s GROUP BY "url" ORDER BY time DESC LIMIT 2
            SELECT last("counter") FROM "traefik_service_requests_total" WHERE time > now() - 3600s GROUP BY *
            SELECT last("counter") FROM "traefik_service_requests_total" WHERE time >= '1970-01-01T00:00:00Z' AND time < '1970-01-01T01:00:00Z' GROUP BY time(60s), * fill(none)"#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn series_are_read_with_their_tags_and_a_window_s_end() {
        let body = r#"{"results":[{"statement_id":0,"series":[{"name":"traefik_service_requests_total",
            "tags":{"code":"200","service":"default-web-80@kubernetes","empty":""},"columns":["time","last"],
            "values":[[1795415197000,42],[1795415257000,null]]}]}]}"#;
        let (rows, partial) = decode(body.as_bytes(), &[table()], 60).unwrap();
        assert_eq!((rows.len(), partial, rows[0].value), (2, false, 42.0));
        assert_eq!(rows[0].at.as_second(), 1_795_415_257);
        assert_eq!(rows[0].tags.len(), 2);
        assert!(rows[1].value.is_nan());
    }

    #[test]
    fn a_recorded_answer_is_understood() {
        let body = include_bytes!("../../../tests/fixtures/influxdb/influxql.json");
        let (rows, partial) = decode(body, &[table()], 0).unwrap();
        assert_eq!((rows.len(), partial, rows[0].value), (1, false, 42.0));
        assert_eq!(rows[0].tags["service"], "default-web-80@kubernetes");
        assert_eq!(rows[0].at.to_string(), "2026-11-23T06:26:37Z");
    }

    #[test]
    fn errors_stand_anywhere_and_an_unknown_measurement_is_nothing() {
        let server = |text: &str| decode(text.as_bytes(), &[table()], 0);
        let fire = Err(Wrong::Server("disk on fire".to_owned()));
        assert_eq!(server(r#"{"error":"disk on fire"}"#), fire);
        assert_eq!(server(r#"{"results":[{"statement_id":0,"error":"disk on fire"}]}"#), fire);
        assert_eq!(server(r#"{"results":[{"statement_id":0}]}"#), Ok((vec![], false)));
        assert_eq!(server(r#"{"results":[{"statement_id":0,"partial":true}]}"#), Ok((vec![], true)));
        for odd in ["{}", "[]", r#"{"results":[]}"#, "<html>"] {
            assert!(matches!(server(odd), Err(Wrong::Odd(_))), "{odd}");
        }
    }
}
