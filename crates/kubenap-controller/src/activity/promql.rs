//! The queries that are put to Prometheus, and its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::preset::{OPEN, Preset, UNSURE};
use super::{Endpoint, SourceError};

/// The label that says which part of the heartbeat a row is.
pub(super) const MARK: &str = "kubenap";
/// The mark of targets that could not be scraped.
pub(super) const DOWN: &str = "down";
/// Behind a preset's mark: when the processes of its instances began. A restart between two looks is told by this alone,
/// where a count has come to the very same again.
pub(super) const STARTED: &str = "~started";
/// The mark of how many requests came in through Traefik's doors, to whichever service.
const ENTERED: &str = "entered";

/// For each preset the instances that are up and show it, with the time of their last scrape; and all targets
/// that are down. An instance is alive only as long as it shows what every instance of its kind shows.
pub(super) fn heartbeat() -> String {
    let mut query = String::new();
    for preset in Preset::ALL {
        let presence = format!("group by (job, instance) ({})", presence(preset));
        let beat = format!("max by (instance) (timestamp(up) * up and on (job, instance) {presence})");
        marked(&mut query, &beat, preset.label());
        if Preset::PROXIES.contains(&preset) {
            let start =
                format!("max by (instance) (process_start_time_seconds and on (job, instance) {presence})");
            marked(&mut query, &start, &format!("{}{STARTED}", preset.label()));
        }
    }
    marked(&mut query, "max by (instance) (up == 0)", DOWN);
    let entered =
        r#"sum by (instance) (traefik_entrypoint_requests_total{entrypoint!~"traefik|metrics",code=~"2.."})"#;
    marked(&mut query, entered, ENTERED);
    query
}

/// The counters of these presets, never summed over instances: for each preset what is sure, what is unsure, and
/// what is open.
pub(super) fn counters(presets: &BTreeSet<Preset>) -> String {
    let mut query = String::new();
    for preset in presets {
        let (label, by) = (preset.label(), preset.labels());
        let mut part = |selector: &str, mark: &str| {
            marked(&mut query, &format!("sum by ({by}, instance) ({selector})"), mark);
        };
        part(&preset.selector(false), label);
        if preset.code().is_some() {
            part(&preset.selector(true), &format!("{label}{UNSURE}"));
        }
        if let Some(open) = preset.open() {
            part(open, &format!("{label}{OPEN}"));
        }
        if let Some(begun) = preset.begun() {
            let [begun, ended] =
                [begun, preset.metric()].map(|metric| format!("sum by ({by}, instance) ({metric})"));
            let open = format!("clamp_min({begun} - {ended}, 0) or ({begun} unless {ended})");
            marked(&mut query, &open, &format!("{label}{OPEN}"));
        }
    }
    query
}

/// What every instance of the preset shows, and nobody else.
pub(super) fn presence(preset: Preset) -> String {
    match preset {
        Preset::Own | Preset::Linkerd | Preset::OwnPlain => preset.selector(false),
        // The pilot shows it too, and no request passes it.
        Preset::Istio => format!(r#"{}{{component="proxy"}}"#, preset.presence()),
        _ => preset.presence().to_owned(),
    }
}

/// Puts one more part into the query, and on its rows a mark.
pub(super) fn marked(query: &mut String, part: &str, mark: &str) {
    if !query.is_empty() {
        query.push_str(" or ");
    }
    // Writing to a string cannot fail.
    write!(query, r#"label_replace({part}, "{MARK}", "{mark}", "", "")"#).unwrap_or(());
}

/// The times of a range query, in seconds on the server's clock.
#[derive(Debug)]
pub(super) struct Range {
    pub(super) start: f64,
    pub(super) end: f64,
    pub(super) step: f64,
}

impl Range {
    /// The last `history` before `end`, at most a day, in about sixty steps of at least a minute.
    pub(super) fn until(end: f64, history: Duration) -> Self {
        let history = history.min(super::prometheus::LONGEST).as_secs_f64().max(60.0);
        Self { start: end - history, end, step: (history / 60.0).max(60.0).ceil() }
    }

    /// The same in so short steps that hardly anything lives between two of them.
    pub(super) fn finer(&self) -> Self {
        Self { step: self.step / (self.step / SHORT).ceil(), ..*self }
    }
}

/// A day of these is fewer than the 11,000 points that Prometheus gives.
const SHORT: f64 = 15.0;

/// Up to when a process lived that neither the step before nor the one after shows: what it served is not known. `beats` are
/// those of the finer range.
pub(super) fn hidden(beats: &[Row], preset: Preset, range: &Range) -> Option<f64> {
    let short = range.finer().step;
    #[expect(clippy::cast_possible_truncation, reason = "a day has few steps")]
    let number = |steps: f64| steps as i64;
    let steps = |at: f64| (at - range.start) / range.step;
    let on_step = |at: &f64| (steps(*at) - steps(*at).round()).abs() * range.step <= short / 2.0;
    let started = format!("{}{STARTED}", preset.label());
    let mut newest: Option<f64> = None;
    for row in beats {
        // A process is told from the one before it by when it began, where that is shown.
        let process = match row.label(MARK) {
            mark if mark == preset.label() => |_: f64| 0,
            mark if mark == started => f64::to_bits,
            _ => continue,
        };
        let alive = || row.values.iter().copied().filter(|(_, value)| *value > 0.0);
        let shown = alive().filter(|(at, _)| on_step(at));
        let shown: BTreeSet<(i64, u64)> =
            shown.map(|(at, value)| (number(steps(at).round()), process(value))).collect();
        let is_hidden = |(at, value): &(f64, f64)| {
            let (before, process) = (number(steps(*at).floor()), process(*value));
            !on_step(at) && !shown.contains(&(before, process)) && !shown.contains(&(before + 1, process))
        };
        newest = alive().filter(is_hidden).map(|(at, _)| at).chain(newest).max_by(f64::total_cmp);
    }
    newest.map(|at| at + short)
}

/// What the server answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) rows: Vec<Row>,
    /// Whether the server says that something may be missing.
    pub(super) is_partial: bool,
}

/// One series of an answer, with at least one value.
#[derive(Debug)]
pub(super) struct Row {
    metric: BTreeMap<String, String>,
    values: Vec<(f64, f64)>,
    keys: OnceLock<Vec<Arc<str>>>,
}

/// One value of a series.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point<'a> {
    pub(super) row: &'a Row,
    pub(super) at: f64,
    pub(super) value: f64,
}

impl Row {
    /// The label's value; empty when it is not there.
    pub(super) fn label(&self, name: &str) -> &str {
        self.metric.get(name).map_or("", String::as_str)
    }

    /// What this series counts for with this preset: nothing, if it is another one's.
    pub(super) fn keys(&self, preset: Preset) -> impl Iterator<Item = Arc<str>> {
        let detail = self.label(MARK).strip_prefix(preset.label());
        let detail = detail.filter(|detail| matches!(*detail, "" | OPEN | UNSURE));
        let keys = || {
            let detail = detail.filter(|detail| !detail.is_empty());
            preset.keys_of(detail, |name| self.label(name)).into_iter().map(Arc::from).collect()
        };
        detail.map(|_| self.keys.get_or_init(keys).iter().cloned()).into_iter().flatten()
    }

    /// The newest value.
    pub(super) fn last(&self) -> Point<'_> {
        let (at, value) = self.values.last().copied().unwrap_or((0.0, f64::NAN));
        Point { row: self, at, value }
    }
}

/// Two answers over a range, moment by moment.
pub(super) fn steps<'a>(
    beats: &'a [Row],
    rows: &'a [Row],
) -> impl Iterator<Item = (f64, Vec<Point<'a>>, Vec<Point<'a>>)> {
    let millis = |at: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "a time in milliseconds, saturating")]
        let millis = (at * 1000.0) as i64;
        millis
    };
    let moments: BTreeMap<i64, f64> =
        beats.iter().flat_map(|row| &row.values).map(|(at, _)| (millis(*at), *at)).collect();
    let mut cursors = [vec![0_usize; beats.len()], vec![0_usize; rows.len()]];
    moments.into_iter().map(move |(moment, at)| {
        let mut take = |which: usize, rows: &'a [Row]| {
            let cursors = cursors.get_mut(which).map(Vec::as_mut_slice).unwrap_or_default();
            let mut points = Vec::new();
            for (row, cursor) in rows.iter().zip(cursors) {
                while row.values.get(*cursor).is_some_and(|(at, _)| millis(*at) < moment) {
                    *cursor += 1;
                }
                if let Some((at, value)) = row.values.get(*cursor).filter(|(at, _)| millis(*at) == moment) {
                    points.push(Point { row, at: *at, value: *value });
                }
            }
            points
        };
        let beats = take(0, beats);
        (at, beats, take(1, rows))
    })
}

/// The presets with an instance that is alive.
pub(super) fn live(beats: &[Point<'_>]) -> BTreeSet<Preset> {
    let alive =
        |preset: &Preset| beats.iter().any(|beat| beat.row.label(MARK) == preset.label() && beat.value > 0.0);
    Preset::ALL.into_iter().filter(alive).collect()
}

/// The presets with an instance that was alive at any time.
pub(super) fn shown(beats: &[Row]) -> BTreeSet<Preset> {
    let shows = |preset: &Preset| beats.iter().any(|row| row.label(MARK) == preset.label());
    Preset::ALL.into_iter().filter(shows).collect()
}

/// Whether requests come in through Traefik but no service of it is ever counted: its per-service metrics are
/// switched off or dropped, and then a missing series does not mean that nothing came.
pub(super) fn services_are_not_counted(beats: &[Point<'_>], counters: &Answer) -> bool {
    !counters.rows.iter().any(|row| row.label(MARK).starts_with(Preset::Traefik.label()))
        && beats.iter().any(|beat| beat.row.label(MARK) == ENTERED && beat.value > 0.0)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    status: String,
    data: Option<WireData>,
    error_type: Option<String>,
    error: Option<String>,
    warnings: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireData {
    result_type: String,
    result: Vec<WireRow>,
}

#[derive(Deserialize)]
struct WireRow {
    #[serde(default)]
    metric: BTreeMap<String, String>,
    value: Option<(f64, String)>,
    values: Option<Vec<(f64, String)>>,
}

/// The answer's rows, or why there are none.
pub(super) fn decode(body: &[u8], status: StatusCode, from: &Endpoint) -> Result<Answer, SourceError> {
    let odd = |why: String| match status {
        StatusCode::OK => SourceError::NotUnderstood { at: from.to_string(), why },
        _ => SourceError::Status { at: from.to_string(), status: status.as_u16() },
    };
    let wire: Wire =
        serde_json::from_slice(body).map_err(|error| odd(format!("it is not Prometheus' JSON: {error}")))?;
    if wire.status != "success" || status != StatusCode::OK {
        // On one line, as all errors are.
        let plain =
            |words: String, most| words.chars().filter(|sign| !sign.is_control()).take(most).collect();
        let text = plain(wire.error.unwrap_or_default(), 300);
        let kind = plain(wire.error_type.unwrap_or(wire.status), 40);
        return Err(SourceError::Api { at: from.to_string(), kind, text });
    }
    let data = wire.data.ok_or_else(|| odd("it has no data".to_owned()))?;
    if !matches!(data.result_type.as_str(), "vector" | "matrix") {
        return Err(odd("its result is neither a vector nor a matrix".to_owned()));
    }
    let mut rows = Vec::with_capacity(data.result.len());
    for row in data.result {
        let mut values = Vec::new();
        for (at, value) in row.values.unwrap_or_default().into_iter().chain(row.value) {
            let value = value.parse().map_err(|_| odd("a value is not a number".to_owned()))?;
            values.push((at, value));
        }
        if values.is_empty() {
            return Err(odd("a series has no value".to_owned()));
        }
        rows.push(Row { metric: row.metric, values, keys: OnceLock::new() });
    }
    Ok(Answer { rows, is_partial: wire.warnings.is_some_and(|warnings| !warnings.is_empty()) })
}

/// Reads an answer and all that is read out of one: how many values and keys there are.
pub(crate) fn read_answer(body: &[u8], status: StatusCode, from: &Endpoint) -> Result<usize, SourceError> {
    let answer = decode(body, status, from)?;
    let newest: Vec<_> = answer.rows.iter().map(Row::last).collect();
    live(&newest);
    services_are_not_counted(&newest, &answer);
    let keys =
        Preset::ALL.map(|preset| answer.rows.iter().map(|row| row.keys(preset).count()).sum::<usize>());
    let points = steps(&answer.rows, &answer.rows).map(|(_, beats, _)| beats.len());
    Ok(points.chain(keys).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    #[test]
    fn who_lives_between_two_steps_only_is_hidden_by_them() {
        let range = Range { start: 0.0, end: 600.0, step: 60.0 };
        assert!((range.finer().step - 15.0).abs() < 1e-9);
        let row = |mark: &str, points: &[(u32, u32)]| {
            let values: Vec<_> = points.iter().map(|(at, value)| format!(r#"[{at},"{value}"]"#)).collect();
            let metric = format!(r#"{{"instance":"a","kubenap":"{mark}"}}"#);
            format!(r#"{{"metric":{metric},"values":[{}]}}"#, values.join(","))
        };
        let found = |row: String| {
            let text = format!(r#"{{"status":"success","data":{{"resultType":"matrix","result":[{row}]}}}}"#);
            let answer = decode(text.as_bytes(), StatusCode::OK, &Endpoint::default()).unwrap();
            hidden(&answer.rows, Preset::Traefik, &range)
        };
        let alive = |moments: &[u32]| {
            found(row("traefik", &moments.iter().map(|at| (*at, 1_700_000_000 + at)).collect::<Vec<_>>()))
        };
        assert_eq!(alive(&[0, 15, 30]), None, "the step before shows it");
        assert_eq!(alive(&[105, 120, 135]), None, "a step shows it");
        assert_eq!(alive(&[120, 195, 210]), Some(225.0));
        // Each time with when its process began.
        let began = |points: &[(u32, u32)]| found(row("traefik~started", points));
        assert_eq!(began(&[(15, 10), (30, 10), (60, 10), (75, 70), (120, 70)]), None);
        assert_eq!(
            began(&[(15, 10), (30, 10), (45, 40), (60, 40)]),
            Some(45.0),
            "another one was there before"
        );
    }

    #[test]
    fn the_queries_are_these() {
        let parts = heartbeat().replace(" or label_replace", "\nor label_replace");
        expect![[r#"
            label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (traefik_config_last_reload_success)), "kubenap", "traefik", "", "")
            or label_replace(max by (instance) (process_start_time_seconds and on (job, instance) group by (job, instance) (traefik_config_last_reload_success)), "kubenap", "traefik~started", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (nginx_ingress_controller_config_last_reload_successful)), "kubenap", "ingress-nginx", "", "")
            or label_replace(max by (instance) (process_start_time_seconds and on (job, instance) group by (job, instance) (nginx_ingress_controller_config_last_reload_successful)), "kubenap", "ingress-nginx~started", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (nginx_ingress_nginx_http_requests_total)), "kubenap", "f5-nginx", "", "")
            or label_replace(max by (instance) (process_start_time_seconds and on (job, instance) group by (job, instance) (nginx_ingress_nginx_http_requests_total)), "kubenap", "f5-nginx~started", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (envoy_server_live)), "kubenap", "envoy", "", "")
            or label_replace(max by (instance) (process_start_time_seconds and on (job, instance) group by (job, instance) (envoy_server_live)), "kubenap", "envoy~started", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (istio_build{component="proxy"})), "kubenap", "istio", "", "")
            or label_replace(max by (instance) (process_start_time_seconds and on (job, instance) group by (job, instance) (istio_build{component="proxy"})), "kubenap", "istio~started", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (haproxy_process_start_time_seconds)), "kubenap", "haproxy", "", "")
            or label_replace(max by (instance) (process_start_time_seconds and on (job, instance) group by (job, instance) (haproxy_process_start_time_seconds)), "kubenap", "haproxy~started", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (kong_datastore_reachable)), "kubenap", "kong", "", "")
            or label_replace(max by (instance) (process_start_time_seconds and on (job, instance) group by (job, instance) (kong_datastore_reachable)), "kubenap", "kong~started", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (http_requests_total{namespace!="",pod!="",handler!="",handler!~"/(metrics|healthz|readyz|livez|ping)"})), "kubenap", "own", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (request_total{direction="inbound",namespace!="",pod!="",route_name!="probe"})), "kubenap", "linkerd", "", "")
            or label_replace(max by (instance) (timestamp(up) * up and on (job, instance) group by (job, instance) (http_requests_total{namespace!="",pod!="",handler=""})), "kubenap", "own-plain", "", "")
            or label_replace(max by (instance) (up == 0), "kubenap", "down", "", "")
            or label_replace(sum by (instance) (traefik_entrypoint_requests_total{entrypoint!~"traefik|metrics",code=~"2.."}), "kubenap", "entered", "", "")"#]].assert_eq(&parts);
        let all = counters(&Preset::ALL.into()).replace(" or label_replace", "\nor label_replace");
        expect![[r#"
            label_replace(sum by (exported_service, service, instance) (traefik_service_requests_total{code!~"307|502|503"}), "kubenap", "traefik", "", "")
            or label_replace(sum by (exported_service, service, instance) (traefik_service_requests_total{code=~"307|502|503"}), "kubenap", "traefik~unsure", "", "")
            or label_replace(clamp_min(sum by (exported_service, service, instance) (traefik_service_requests_tls_total) - sum by (exported_service, service, instance) (traefik_service_requests_total), 0) or (sum by (exported_service, service, instance) (traefik_service_requests_tls_total) unless sum by (exported_service, service, instance) (traefik_service_requests_total)), "kubenap", "traefik~open", "", "")
            or label_replace(sum by (exported_namespace, exported_service, namespace, service, canary, instance) (nginx_ingress_controller_requests{status!~"307|502|503"}), "kubenap", "ingress-nginx", "", "")
            or label_replace(sum by (exported_namespace, exported_service, namespace, service, canary, instance) (nginx_ingress_controller_requests{status=~"307|502|503"}), "kubenap", "ingress-nginx~unsure", "", "")
            or label_replace(sum by (exported_service, service, resource_namespace, server, instance) (nginx_ingress_controller_upstream_server_response_latency_ms_count{code!~"307|502|503"}), "kubenap", "f5-nginx", "", "")
            or label_replace(sum by (exported_service, service, resource_namespace, server, instance) (nginx_ingress_controller_upstream_server_response_latency_ms_count{code=~"307|502|503"}), "kubenap", "f5-nginx~unsure", "", "")
            or label_replace(sum by (envoy_cluster_name, cluster_name, instance) (envoy_cluster_upstream_rq_total), "kubenap", "envoy", "", "")
            or label_replace(sum by (envoy_cluster_name, cluster_name, instance) (envoy_cluster_upstream_rq_active), "kubenap", "envoy~open", "", "")
            or label_replace(sum by (destination_service, instance) (istio_requests_total{reporter=~"source|waypoint",response_code!~"307|502|503"}), "kubenap", "istio", "", "")
            or label_replace(sum by (destination_service, instance) (istio_requests_total{reporter=~"source|waypoint",response_code=~"307|502|503"}), "kubenap", "istio~unsure", "", "")
            or label_replace(sum by (proxy, instance) (haproxy_backend_sessions_total), "kubenap", "haproxy", "", "")
            or label_replace(sum by (proxy, instance) (haproxy_backend_current_sessions), "kubenap", "haproxy~open", "", "")
            or label_replace(sum by (exported_service, service, instance) (kong_http_requests_total{code!~"307|502|503"}), "kubenap", "kong", "", "")
            or label_replace(sum by (exported_service, service, instance) (kong_http_requests_total{code=~"307|502|503"}), "kubenap", "kong~unsure", "", "")
            or label_replace(sum by (namespace, pod, instance) (http_requests_total{namespace!="",pod!="",handler!="",handler!~"/(metrics|healthz|readyz|livez|ping)"}), "kubenap", "own", "", "")
            or label_replace(sum by (namespace, pod, instance) (request_total{direction="inbound",namespace!="",pod!="",route_name!="probe"}), "kubenap", "linkerd", "", "")
            or label_replace(sum by (namespace, pod, instance) (http_requests_total{namespace!="",pod!="",handler=""}), "kubenap", "own-plain", "", "")"#]].assert_eq(&all);
    }
}
