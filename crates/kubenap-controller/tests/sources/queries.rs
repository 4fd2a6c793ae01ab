//! A query that an app brings: its one value is compared, and whatever else comes back keeps the app awake and is named.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse as _, Redirect, Response};
use jiff::Timestamp;
use kubenap_controller::activity::{
    Ask, Credentials, Samples, SourceError, SourceSpec, Target, TrafficMetricsSource, build,
};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use serde_json::{Value, json};

/// What Prometheus knows.
struct Server {
    now: f64,
    /// The values of the app's own query, one a series.
    values: Vec<f64>,
    /// What its first one was at each tick.
    log: Vec<(f64, Option<f64>)>,
    manner: Manner,
    /// When the oldest last scrape was; none: it scrapes nothing.
    scraped: Option<f64>,
    /// When each target that is down was up last.
    fell: Vec<f64>,
    /// How often a day of all targets was asked for.
    days: usize,
    /// That is too much for it.
    overtaxed: bool,
    /// How often the own query was asked for its value now.
    asked: usize,
}

/// How the own query is answered.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Fine,
    /// Its history cannot be had.
    Forgetful,
    Refuses,
    Garbage,
    Huge,
    Redirects,
    Warns,
    /// As it was at this time, by a cache in front.
    Cached(f64),
    Hangs,
}

struct Stage {
    server: Arc<Mutex<Server>>,
    port: u16,
    source: Arc<dyn TrafficMetricsSource>,
    targets: Vec<Target>,
}

const START: f64 = 1_700_000_000.0;
const TICK: f64 = 15.0;
const QUERY: &str = "sum(queue_received_total)";

fn success(kind: &str, rows: &[Value]) -> Value {
    json!({"status": "success", "data": {"resultType": kind, "result": rows}})
}

fn answer(server: &Mutex<Server>, uri: &Uri, body: &str) -> Response {
    let mut server = server.lock().unwrap();
    let now = server.now;
    let row =
        |mark: &str, value: f64| json!({"metric": {"kubenap": mark}, "value": [now, value.to_string()]});
    // `count` of nothing is no series.
    let fell = |mark: &str, within: f64| {
        let count = server.fell.iter().filter(|at| now - **at < within).count();
        (count > 0).then(|| json!({"metric": {"kubenap": mark}, "value": [now, count.to_string()]}))
    };
    if body.contains("offset%2075s") {
        let scraped = server.scraped.map(|at| row("scraped", at));
        let down = [("down", f64::INFINITY), ("lately", 600.0)].map(|(mark, within)| fell(mark, within));
        let rows: Vec<_> = scraped.into_iter().chain(down.into_iter().flatten()).collect();
        return axum::Json(success("vector", &rows)).into_response();
    }
    if body.contains("1d%5D") {
        let rows: Vec<_> = fell("fallen", 86_400.0).into_iter().collect();
        server.days += 1;
        if server.overtaxed {
            return StatusCode::UNPROCESSABLE_ENTITY.into_response();
        }
        return axum::Json(success("vector", &rows)).into_response();
    }
    if !body.contains("queue_received_total") {
        // It scrapes no proxy at all.
        return axum::Json(success("vector", &[])).into_response();
    }
    if uri.path().ends_with("query_range") {
        if server.manner == Manner::Forgetful {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let values = server.log.iter().filter_map(|(at, value)| Some(json!([at, (*value)?.to_string()])));
        let values: Vec<_> = values.collect();
        let rows = if values.is_empty() { vec![] } else { vec![json!({"metric": {}, "values": values})] };
        return axum::Json(success("matrix", &rows)).into_response();
    }
    server.asked += 1;
    let row = |(at, value): (usize, &f64)| json!({"metric": {"number": at.to_string()}, "value": [now, value.to_string()]});
    let rows: Vec<_> = server.values.iter().enumerate().map(row).collect();
    match server.manner {
        Manner::Fine | Manner::Forgetful | Manner::Hangs => {
            axum::Json(success("vector", &rows)).into_response()
        }
        Manner::Refuses => {
            let refusal =
                json!({"status": "error", "errorType": "bad_data", "error": "unexpected end of input"});
            (StatusCode::BAD_REQUEST, axum::Json(refusal)).into_response()
        }
        Manner::Garbage => "upstream connect error".into_response(),
        Manner::Huge => " ".repeat(65 << 10).into_response(),
        Manner::Redirects => Redirect::temporary("http://127.0.0.1:1/").into_response(),
        Manner::Warns => {
            let mut partial = success("vector", &rows);
            partial["warnings"] = json!(["a store is not there"]);
            axum::Json(partial).into_response()
        }
        Manner::Cached(at) => {
            let then = server.log.iter().find(|known| known.0 >= at).unwrap();
            let row = json!({"metric": {}, "value": [then.0, then.1.unwrap().to_string()]});
            axum::Json(success("vector", &[row])).into_response()
        }
    }
}

fn source(port: u16, allows: bool) -> Arc<dyn TrafficMetricsSource> {
    let settings =
        json!({"kind": "prometheus", "url": format!("http://127.0.0.1:{port}"), "allowQuery": allows});
    let spec = SourceSpec::read("main", settings).unwrap();
    let client = crate::stand_in::cluster(Arc::default(), port);
    build(&[spec], &Credentials::default(), &client).unwrap().remove(0)
}

impl Stage {
    /// The value has been 7 for ten minutes.
    async fn new() -> Self {
        let log = (0..=40).map(|tick| (START - 600.0 + TICK * f64::from(tick), Some(7.0))).collect();
        let server = Server {
            now: START,
            values: vec![7.0],
            log,
            manner: Manner::Fine,
            scraped: Some(START - 90.0),
            fell: Vec::new(),
            days: 0,
            overtaxed: false,
            asked: 0,
        };
        let server = Arc::new(Mutex::new(server));
        let shared = Arc::clone(&server);
        let reply = move |uri: Uri, body: String| {
            let hangs = shared.lock().unwrap().manner == Manner::Hangs && body.contains("hangs");
            let answer = answer(&shared, &uri, &body);
            async move {
                if hangs {
                    std::future::pending::<()>().await;
                }
                answer
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(reply);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { server, port, source: source(port, true), targets: vec![target("web")] }
    }

    fn with(&self, change: impl FnOnce(&mut Server)) {
        change(&mut self.server.lock().unwrap());
    }

    fn says(&self, values: &[f64]) {
        self.with(|server| server.values = values.to_vec());
    }

    fn mannered(&self, manner: Manner) {
        self.with(|server| server.manner = manner);
    }

    /// Time passes, and nobody asks.
    fn pass(&self, ticks: usize) {
        for _ in 0..ticks {
            self.with(|server| {
                server.now += TICK;
                server.scraped = server.scraped.map(|at| at + TICK);
                server.log.push((server.now, server.values.first().copied()));
            });
        }
    }

    async fn ask(&self) -> Samples {
        self.pass(1);
        let now = self.server.lock().unwrap().now;
        self.source.queries(&self.question(now)).await.unwrap()
    }

    fn question(&self, now: f64) -> Ask {
        let now = Timestamp::from_duration(jiff::SignedDuration::from_secs_f64(now)).unwrap();
        Ask { now, targets: self.targets.clone().into(), history: Duration::from_mins(10) }
    }

    async fn ticks(&self, count: usize) -> Activity {
        let mut last = None;
        for _ in 0..count {
            last = Some(self.ask().await);
        }
        last.unwrap().of(&web())
    }

    async fn quiet(&self, ticks: usize) -> u64 {
        let activity = self.ticks(ticks).await;
        assert!(activity.blind.is_empty(), "{activity:?}");
        // An answer comes some milliseconds after its question.
        (activity.quiet_since(Timestamp::MIN) + Duration::from_millis(500)).as_secs()
    }
}

fn web() -> AppId {
    AppId::new("shop", "web")
}

fn target(name: &str) -> Target {
    Target { query: Some(QUERY.into()), ..Target::of(AppId::new("shop", name)) }
}

#[tokio::test]
async fn a_value_that_stands_still_is_quiet_up_to_the_oldest_scrape_and_one_that_changed_is_use() {
    let stage = Stage::new().await;
    // The history begins ten minutes ago, and a minute and a half of them are not seen yet.
    assert_eq!(stage.quiet(1).await, 615 - 90);
    assert_eq!(stage.quiet(40).await, 1215 - 90);
    stage.says(&[8.0]);
    assert_eq!(stage.quiet(1).await, 0);
    assert!((200..=210).contains(&stage.quiet(20).await), "five minutes, less a minute and a half");
    for reset in [2.0, 90.0, 0.0] {
        stage.says(&[reset]);
        assert_eq!(stage.quiet(1).await, 0, "it began anew, and what it had counted before is gone");
        assert!(stage.quiet(20).await > 190);
    }
}

#[tokio::test]
async fn whatever_is_no_single_value_keeps_the_app_awake_and_is_named() {
    let stage = Stage::new().await;
    assert!(stage.ticks(2).await.blind.is_empty());
    let cases: [(&[f64], Manner, Blind, &str); 9] = [
        (&[1.0, 2.0], Manner::Fine, Blind::NotMapped, "2 series; accepted: one"),
        (&[], Manner::Fine, Blind::NoSeries, "no series"),
        (&[f64::NAN], Manner::Fine, Blind::NotMapped, "NaN is no number"),
        (&[f64::INFINITY], Manner::Fine, Blind::NotMapped, "inf is no number"),
        (&[1.0], Manner::Refuses, Blind::SourceDown, "unexpected end of input"),
        (&[1.0], Manner::Garbage, Blind::SourceDown, "it is not Prometheus' JSON"),
        (&[1.0], Manner::Huge, Blind::SourceDown, "is larger than 65536 bytes"),
        (&[1.0], Manner::Redirects, Blind::SourceDown, "redirect"),
        (&[1.0], Manner::Warns, Blind::Partial, "partial"),
    ];
    for (values, manner, why, said) in cases {
        stage.says(values);
        stage.mannered(manner);
        let samples = stage.ask().await;
        let sample = samples.detail(&web()).unwrap();
        assert_eq!(sample.activity.blind.iter().copied().collect::<Vec<_>>(), [why], "{said}");
        let told = samples.looked_for(&web()).join("; ");
        assert!(told.contains(QUERY) && told.contains(said), "{told}");
        stage.mannered(Manner::Fine);
        stage.says(&[1.0]);
        assert!(stage.ticks(1).await.blind.is_empty(), "it heals");
    }
}

#[tokio::test]
async fn before_the_first_use_ever_there_is_no_series_and_nothing_is_known() {
    let stage = Stage::new().await;
    stage.says(&[]);
    stage.with(|server| server.log.clear());
    assert!(stage.ticks(60).await.blind.contains(&Blind::NoSeries));
    stage.says(&[1.0]);
    assert_eq!(stage.quiet(1).await, 0);
    assert!(stage.quiet(20).await <= 210);
}

#[tokio::test]
async fn a_series_that_comes_back_with_the_very_same_value_may_have_begun_anew() {
    let stage = Stage::new().await;
    assert!(stage.quiet(10).await > 600);
    stage.says(&[]);
    assert!(stage.ticks(4).await.blind.contains(&Blind::NoSeries));
    stage.says(&[7.0]);
    assert_eq!(stage.quiet(1).await, 0);
    assert!(stage.quiet(20).await <= 210);
}

#[tokio::test]
async fn a_gap_that_was_seen_is_no_silence_though_history_in_steps_does_not_show_it() {
    let stage = Stage::new().await;
    assert!(stage.quiet(10).await > 600);
    for gone in [&[][..], &[f64::NAN], &[1.0, 2.0]] {
        stage.says(gone);
        assert!(!stage.ticks(1).await.blind.is_empty());
        // Both steps beside the gap show the very number to which it rose again.
        let bridge = |server: &mut Server| {
            for (_, value) in &mut server.log {
                *value = Some(7.0);
            }
        };
        stage.with(bridge);
        // Between the gap and its end nobody can ask.
        stage.mannered(Manner::Refuses);
        assert!(stage.ticks(2).await.blind.contains(&Blind::SourceDown));
        stage.with(bridge);
        stage.mannered(Manner::Fine);
        stage.says(&[7.0]);
        assert_eq!(stage.quiet(1).await, 0, "it may have been used until it came back");
        assert!((200..=210).contains(&stage.quiet(20).await), "and is known from then on");
    }
}

#[tokio::test]
async fn after_a_gap_history_says_what_was_or_knowledge_begins_again() {
    let stage = Stage::new().await;
    assert!(stage.quiet(10).await > 600);
    stage.mannered(Manner::Refuses);
    assert!(stage.ticks(20).await.blind.contains(&Blind::SourceDown));
    stage.mannered(Manner::Fine);
    assert!(stage.quiet(1).await >= 500, "it stood still all the time");
    // Nobody asked for five minutes, and for a moment of them it was another one.
    stage.pass(10);
    stage.says(&[8.0]);
    stage.pass(1);
    stage.says(&[7.0]);
    stage.pass(9);
    assert!(stage.quiet(1).await <= 75, "it was used between");
    stage.pass(20);
    stage.mannered(Manner::Forgetful);
    assert_eq!(stage.quiet(1).await, 0);
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_quiet_period_forgets_nothing_and_makes_nothing_up() {
    let mut stage = Stage::new().await;
    stage.says(&[8.0]);
    assert_eq!(stage.quiet(1).await, 0);
    let before = stage.quiet(20).await;
    stage.source = source(stage.port, true);
    let after = stage.quiet(1).await;
    assert!((before..=before + 16).contains(&after), "{before} {after}");
    // A scrape of it was missed: nobody knows what it was meanwhile.
    stage.with(|server| {
        let gap = server.log.len() - 8;
        server.log[gap].1 = None;
    });
    stage.source = source(stage.port, true);
    assert!(stage.quiet(1).await < 45);
}

#[tokio::test]
async fn an_older_answer_out_of_a_cache_makes_nobody_idle() {
    let stage = Stage::new().await;
    let known = stage.quiet(10).await;
    let then = stage.server.lock().unwrap().now;
    stage.mannered(Manner::Cached(then));
    stage.says(&[8.0]);
    assert_eq!(stage.quiet(7).await, known, "nothing new is known");
    assert!(stage.ticks(4).await.blind.contains(&Blind::Stale));
    stage.mannered(Manner::Fine);
    assert!(stage.quiet(1).await <= 90, "the change is in the history");
}

#[tokio::test]
async fn what_the_server_has_not_scraped_is_not_seen() {
    let stage = Stage::new().await;
    let known = stage.quiet(1).await;
    stage.with(|server| server.scraped = None);
    assert_eq!(stage.quiet(1).await, known + 15 - 30, "without a word of scrapes it is two minutes behind");
    stage.with(|server| server.scraped = Some(server.now + 3600.0));
    assert_eq!(stage.quiet(1).await, known + 30 - 30, "so it is with a word that cannot be");
    stage.with(|server| server.scraped = Some(server.now - 400.0));
    assert_eq!(stage.quiet(1).await, known + 45 - (400 - 90));
}

#[tokio::test]
async fn while_a_target_is_down_that_was_up_lately_nothing_new_is_known() {
    let stage = Stage::new().await;
    stage.with(|server| server.fell = vec![server.now]);
    let samples = stage.ask().await;
    assert!(samples.of(&web()).blind.contains(&Blind::Partial));
    assert!(samples.looked_for(&web())[0].contains("1 targets that were up within the last day are down"));
    stage.with(|server| server.fell.clear());
    let known = stage.quiet(2).await;
    stage.with(|server| server.fell = vec![server.now; 2]);
    assert_eq!(stage.quiet(10).await, known);
    stage.with(|server| server.fell.clear());
    assert_eq!(stage.quiet(1).await, known + 165);
}

#[tokio::test]
async fn a_target_that_stays_down_for_hours_lets_nobody_nap_and_one_that_was_down_all_day_is_none_to_wait_for()
 {
    let stage = Stage::new().await;
    let known = stage.quiet(1).await;
    stage.with(|server| server.fell = vec![server.now]);
    for hour in 1_u32..=3 {
        assert_eq!(stage.quiet(240).await, known, "{hour} hours");
    }
    let days = stage.server.lock().unwrap().days;
    assert!((30..=40).contains(&days), "a day was read {days} times, not with every poll");
    stage.with(|server| server.fell.clear());
    assert_eq!(stage.quiet(1).await, known + 10_800 + 15, "as soon as it is back");

    stage.with(|server| server.fell = vec![server.now - 90_000.0]);
    // What was heard of the other one holds for five minutes.
    let known = stage.quiet(21).await;
    assert_eq!(stage.quiet(40).await, known + 600);
    // Another one beside it.
    stage.with(|server| server.fell.push(server.now));
    let known = stage.quiet(1).await;
    assert_eq!(stage.quiet(60).await, known, "it is told from the first, also where that was asked before");
}

#[tokio::test]
async fn a_server_for_which_a_day_of_targets_is_too_much_does_not_go_up_and_down_and_is_not_asked_for_it_with_every_poll()
 {
    let stage = Stage::new().await;
    stage.with(|server| (server.fell, server.overtaxed) = (vec![server.now - 7200.0], true));
    for _ in 0..40 {
        stage.pass(1);
        let now = stage.server.lock().unwrap().now;
        // It answers all but that, and is told up all the time.
        let samples = stage.source.queries(&stage.question(now)).await.unwrap();
        assert!(samples.of(&web()).blind.contains(&Blind::SourceDown));
        assert!(samples.looked_for(&web())[0].contains("have been down for long"));
    }
    let days = stage.server.lock().unwrap().days;
    assert!((9..=11).contains(&days), "a day was asked for {days} times in ten minutes");
}

#[tokio::test(start_paused = true)]
async fn a_query_that_hangs_holds_up_no_other_one() {
    let mut stage = Stage::new().await;
    // More of them than are asked at once.
    stage.targets = (0..30).map(|number| target(&format!("app-{number}"))).collect();
    for (number, target) in stage.targets.iter_mut().enumerate().skip(1) {
        target.query = Some(format!("hangs{number:02} or {QUERY}").into());
    }
    stage.mannered(Manner::Hangs);
    for round in 0..3 {
        let begun = tokio::time::Instant::now();
        let samples = stage.ask().await;
        assert!(begun.elapsed() <= Duration::from_secs(11), "{:?}", begun.elapsed());
        // At first nobody knows which ones hang.
        for (number, target) in stage.targets.iter().enumerate().filter(|_| round > 0) {
            let blind = samples.of(&target.app).blind;
            assert_eq!(blind.contains(&Blind::SourceDown), number > 0, "{number}: {blind:?}");
        }
    }
}

#[tokio::test]
async fn a_source_that_does_not_allow_queries_asks_none() {
    let mut stage = Stage::new().await;
    assert!(stage.source.asks_queries());
    stage.source = source(stage.port, false);
    assert!(!stage.source.asks_queries());
    assert!(stage.ticks(1).await.blind.contains(&Blind::NotMapped));
    assert_eq!(stage.server.lock().unwrap().asked, 0);
}

#[tokio::test]
async fn who_brings_a_query_needs_no_proxy() {
    let mut stage = Stage::new().await;
    let ask = stage.question(START);
    assert!(stage.source.poll(&ask).await.unwrap().of(&web()).blind.contains(&Blind::NoSeries));
    stage.targets[0].query = None;
    let error = stage.source.poll(&stage.question(START)).await.unwrap_err();
    assert!(matches!(error, SourceError::NothingScraped { .. }), "{error}");
}

#[tokio::test]
async fn a_query_of_many_apps_is_asked_once_and_of_different_ones_only_so_many() {
    let mut stage = Stage::new().await;
    stage.targets = (0..100).map(|number| target(&format!("app-{number}"))).collect();
    let samples = stage.ask().await;
    assert!(stage.targets.iter().all(|target| samples.of(&target.app).blind.is_empty()));
    assert_eq!(stage.server.lock().unwrap().asked, 1);
    for (number, target) in stage.targets.iter_mut().enumerate() {
        target.query = Some(format!("{QUERY} * {number}").into());
    }
    let samples = stage.ask().await;
    let known = stage.targets.iter().filter(|target| samples.of(&target.app).blind.is_empty()).count();
    assert_eq!((known, stage.server.lock().unwrap().asked), (50, 51));
}
