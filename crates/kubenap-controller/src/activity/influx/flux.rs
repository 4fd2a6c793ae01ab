//! Flux: the queries for `/api/v2/query`, and the annotated CSV that comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use jiff::Timestamp;

use super::{Row, Scope, Span, Table};

/// The last two points of each instance's sign of life.
pub(super) fn heartbeat(scope: &Scope, tables: &[Table], span: Span) -> String {
    let mut query = from(scope, span);
    let instance = quote(&scope.instance_tag);
    filter(&mut query, tables);
    add(&mut query, &format!("group(columns: [\"_measurement\", \"_field\", {instance}])"));
    add(&mut query, "sort(columns: [\"_time\"])");
    add(&mut query, "tail(n: 2)");
    keep(&mut query, scope, tables);
    query
}

/// The last value of every series, or of every series in each step.
pub(super) fn counters(scope: &Scope, tables: &[Table], span: Span, step: Option<u64>) -> String {
    let mut query = from(scope, span);
    filter(&mut query, tables);
    match step {
        None => add(&mut query, "last()"),
        // The time of a window is its end: what it shows was before that.
        Some(step) => {
            add(&mut query, &format!("aggregateWindow(every: {step}s, fn: last, createEmpty: false)"));
        }
    }
    keep(&mut query, scope, tables);
    query
}

fn from(scope: &Scope, span: Span) -> String {
    let mut query = format!("from(bucket: {})", quote(&scope.bucket));
    match span {
        Span::Last(seconds) => add(&mut query, &format!("range(start: -{seconds}s)")),
        Span::Between(start, stop) => {
            let whole = |at: Timestamp| at.round(jiff::Unit::Second).unwrap_or(at);
            add(&mut query, &format!("range(start: {}, stop: {})", whole(start), whole(stop)));
        }
    }
    query
}

fn filter(query: &mut String, tables: &[Table]) {
    let each = |table: &Table| {
        let (measurement, field) = (quote(&table.measurement), quote(&table.field));
        format!("(r._measurement == {measurement} and r._field == {field})")
    };
    let any: Vec<_> = tables.iter().map(each).collect();
    add(query, &format!("filter(fn: (r) => {})", any.join(" or ")));
}

fn keep(query: &mut String, scope: &Scope, tables: &[Table]) {
    let mut columns = vec!["_time", "_value", "_measurement", "_field", &scope.instance_tag];
    for tag in tables.iter().flat_map(|table| &table.tags) {
        if !columns.contains(&tag.as_str()) {
            columns.push(tag);
        }
    }
    let columns: Vec<_> = columns.into_iter().map(quote).collect();
    add(query, &format!("keep(columns: [{}])", columns.join(", ")));
}

fn add(query: &mut String, step: &str) {
    // Writing to a string cannot fail.
    write!(query, "\n  |> {step}").unwrap_or(());
}

/// A string literal; `${` would be computed.
fn quote(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
    format!("\"{text}\"")
}

/// The rows of an answer.
///
/// Annotations are there or not. A block begins with its own header, and its columns may stand in another order. An
/// error after the first byte is a table of its own, while the HTTP status stays 200.
///
/// # Errors
/// The server's own error, or what is not understood.
pub(super) fn decode(body: &[u8]) -> Result<Vec<Row>, Wrong> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(body);
    let mut block = Block::default();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| Wrong::Odd(format!("it is not CSV: {error}")))?;
        if let Some(annotation) = record.get(0).filter(|first| first.starts_with('#')) {
            if !block.columns.is_empty() {
                block = Block::default();
            }
            if annotation == "#default" {
                block.defaults = record.iter().map(str::to_owned).collect();
            }
            continue;
        }
        let names: Vec<_> = record.iter().skip_while(|name| name.is_empty()).collect();
        if names.starts_with(&["result", "table"]) || names == ["error", "reference"] {
            if !block.columns.is_empty() {
                block = Block::default();
            }
            block.columns = record.iter().map(str::to_owned).collect();
            continue;
        }
        if block.columns.is_empty() {
            return Err(Wrong::Odd("it has no header of a Flux result".to_owned()));
        }
        if record.len() != block.columns.len() {
            return Err(Wrong::Odd("a row has another length than its header".to_owned()));
        }
        rows.push(block.row(&record)?);
    }
    Ok(rows)
}

/// Why an answer has no rows.
#[derive(Debug, PartialEq)]
pub(super) enum Wrong {
    /// The server says so.
    Server(String),
    /// It is not what was asked for.
    Odd(String),
}

/// What holds for the rows that follow.
#[derive(Default)]
struct Block {
    columns: Vec<String>,
    defaults: Vec<String>,
}

impl Block {
    fn row(&self, record: &csv::StringRecord) -> Result<Row, Wrong> {
        let mut cells: BTreeMap<String, String> = BTreeMap::new();
        for (at, name) in self.columns.iter().enumerate() {
            let value = record.get(at).filter(|value| !value.is_empty());
            let value = value.or_else(|| self.defaults.get(at).map(String::as_str)).unwrap_or_default();
            if !value.is_empty() && !matches!(name.as_str(), "" | "result" | "table") {
                cells.insert(name.clone(), value.to_owned());
            }
        }
        if let Some(error) = cells.remove("error") {
            return Err(Wrong::Server(error));
        }
        let mut take =
            |name: &str| cells.remove(name).ok_or_else(|| Wrong::Odd(format!("a row has no {name}")));
        let (time, value) = (take("_time")?, take("_value"));
        let (measurement, field) = (take("_measurement")?, take("_field")?);
        let at = time.parse().map_err(|_| Wrong::Odd(format!("`{time}` is not a time")))?;
        // No value is no number, and no number is no proof of silence.
        let value = match value {
            Ok(text) => text.parse().map_err(|_| Wrong::Odd(format!("`{text}` is not a number")))?,
            Err(_) => f64::NAN,
        };
        Ok(Row { measurement, field, tags: cells, at, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn scope() -> Scope {
        Scope { bucket: "tra\"f${x}".to_owned(), instance_tag: "url".to_owned() }
    }

    fn table() -> Table {
        Table {
            measurement: "traefik_service_requests_total".to_owned(),
            field: "counter".to_owned(),
            tags: vec!["service".to_owned()],
        }
    }

    #[test]
    fn the_queries_are_these() {
        let (start, stop) = (Timestamp::UNIX_EPOCH, "1970-01-01T01:00:00.7Z".parse().unwrap());
        let all = [
            heartbeat(&scope(), &[table(), table()], Span::Last(3600)),
            counters(&scope(), &[table()], Span::Last(3600), None),
            counters(&scope(), &[table()], Span::Between(start, stop), Some(60)),
        ];
        expect![[r#"
            from(bucket: "tra\"f\${x}")
              |> range(start: -3600s)
              |> filter(fn: (r) => (r._measurement == "traefik_service_requests_total" and r._field == "counter") or (r._measurement == "traefik_service_requests_total" and r._field == "counter"))
              |> group(columns: ["_measurement", "_field", "url"])
              |> sort(columns: ["_time"])
              |> tail(n: 2)
              |> keep(columns: ["_time", "_value", "_measurement", "_field", "url", "service"])
            from(bucket: "tra\"f\${x}")
              |> range(start: -3600s)
              |> filter(fn: (r) => (r._measurement == "traefik_service_requests_total" and r._field == "counter"))
              |> last()
              |> keep(columns: ["_time", "_value", "_measurement", "_field", "url", "service"])
            from(bucket: "tra\"f\${x}")
              |> range(start: 1970-01-01T00:00:00Z, stop: 1970-01-01T01:00:01Z)
              |> filter(fn: (r) => (r._measurement == "traefik_service_requests_total" and r._field == "counter"))
              |> aggregateWindow(every: 60s, fn: last, createEmpty: false)
              |> keep(columns: ["_time", "_value", "_measurement", "_field", "url", "service"])"#]]
        .assert_eq(&all.join("\n"));
    }

    #[test]
    fn both_shapes_of_one_table_are_the_same() {
        let plain = ",result,table,_time,_value,_field,_measurement,service\r\n\
            ,_result,0,2026-11-23T06:24:49Z,7,counter,m,\"a,\"\"b\"\"\nc\"\r\n\r\n";
        let annotated = "#group,false,false,false,false,true,true,true\r\n\
            #datatype,string,long,dateTime:RFC3339,double,string,string,string\r\n\
            #default,_result,,,,,m,\r\n\
            ,result,table,_time,_value,_field,_measurement,service\r\n\
            ,,0,2026-11-23T06:24:49Z,7,counter,,\"a,\"\"b\"\"\nc\"\r\n\r\n";
        let rows = decode(plain.as_bytes()).unwrap();
        assert_eq!(rows, decode(annotated.as_bytes()).unwrap());
        assert_eq!((rows[0].value, rows[0].tags["service"].as_str()), (7.0, "a,\"b\"\nc"));
    }

    #[test]
    fn a_block_may_have_other_columns_in_another_order() {
        let body = ",result,table,_time,_value,_field,_measurement,a\r\n\
            ,_result,0,2026-11-23T06:24:49Z,7,counter,m,x\r\n\r\n\
            ,result,table,_field,_measurement,b,_value,_time\r\n\
            ,_result,1,gauge,n,y,,2026-11-23T06:24:50Z\r\n";
        let rows = decode(body.as_bytes()).unwrap();
        assert_eq!((rows[0].tags["a"].as_str(), rows[1].tags["b"].as_str()), ("x", "y"));
        assert!(rows[1].value.is_nan(), "no value is no silence");
    }

    #[test]
    fn an_error_within_the_rows_is_the_server_s() {
        let body = ",result,table,_time,_value,_field,_measurement\n\
            ,_result,0,2026-11-23T06:24:49Z,7,counter,m\n\n\
            #datatype,string,long\n#group,true,true\n#default,,\n,error,reference\n,disk on fire,897\n";
        assert_eq!(decode(body.as_bytes()), Err(Wrong::Server("disk on fire".to_owned())));
    }

    #[test]
    fn what_is_not_an_answer_is_refused_and_nothing_is_no_rows() {
        assert_eq!(decode(b"").unwrap(), []);
        assert_eq!(decode(b"\r\n\r\n").unwrap(), []);
        for odd in [
            "x",
            "{\"a\":1}",
            ",result,table,_time\n,_result,0\n",
            ",result,table,_time,_value,_field,_measurement\n,_result,0,soon,7,counter,m\n",
            ",result,table,_time,_value,_field,_measurement\n,_result,0,2026-11-23T06:24:49Z,many,counter,m\n",
        ] {
            assert!(matches!(decode(odd.as_bytes()), Err(Wrong::Odd(_))), "{odd}");
        }
    }
}
