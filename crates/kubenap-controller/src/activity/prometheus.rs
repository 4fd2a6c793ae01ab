//! Prometheus: one query for all apps, and a heartbeat that says which proxies were scraped, and when.
//!
//! The server takes no differences: `increase` misses births and restarts. It sums each counter per app and
//! instance, and the [ledger](super::ledger) compares what it says from poll to poll. At the start, and after a
//! gap, the same expressions are asked over a range and replayed, so that history survives a restart.
//!
//! Ages are taken on the server's clock and put on the controller's, so the two need not agree. Traffic that
//! does not pass the proxy is not seen, nor is a request that is still open: proxies count at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;
use kubenap_core::app::AppId;
use kubenap_core::duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::fetch::{Fetch, Post, Question, form};
use super::ledger::{BLINK, Ledger, Look, Sight};
use super::missing::{Absent, Missing, host, missing};
use super::past::{Pieces, Recorder};
use super::preset::Preset;
use super::promql::{self, Answer, DOWN, Row};
use super::queries;
use super::spec::{Kind, Setup, With, address};
use super::verdict::{FRESH, View, samples};
use super::{
    AppPast, Ask, AskPast, Credentials, Endpoint, Samples, SourceError, SpecError, TrafficMetricsSource,
};

/// `prometheus=URL`, or with more settings in the config file.
pub(super) const KIND: Kind = Kind {
    name: "prometheus",
    forms: "prometheus=URL",
    short: |url| {
        let mut endpoint = address("prometheus", url)?;
        let allows_query = match endpoint.take("allowQuery").as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                let what = format!("has allowQuery={other}; accepted: true or false");
                return Err(SpecError::Incomplete { name: "prometheus".to_owned(), what });
            }
        };
        let rule_interval = rule_interval(endpoint.take("ruleInterval")).map_err(|WrongInterval(text)| {
            let what = format!("has ruleInterval={text}; accepted: {}", WrongInterval::accepted());
            SpecError::Incomplete { name: "prometheus".to_owned(), what }
        })?;
        // Whatever else there is goes to the server, which may want it.
        if let Some((given, meant)) = endpoint.mistyped(&["allowQuery", "ruleInterval"]) {
            let what = format!("has {given}; accepted: {meant}, or a parameter of the server's own");
            return Err(SpecError::Incomplete { name: "prometheus".to_owned(), what });
        }
        Ok(Arc::new(PrometheusSetup { endpoint, credentials: None, allows_query, rule_interval }))
    },
    read: |fields| {
        let endpoint = fields.endpoint("url").unwrap_or_default();
        let allows_query = fields.flag("allowQuery");
        let rule_interval =
            rule_interval(fields.text("ruleInterval")).unwrap_or_else(|WrongInterval(text)| {
                let problem = format!("`{text}` is not understood; accepted: {}", WrongInterval::accepted());
                fields.mistake("ruleInterval", &problem);
                RULE_INTERVAL
            });
        let credentials = Some(fields.credentials());
        Arc::new(PrometheusSetup { endpoint, credentials, allows_query, rule_interval })
    },
};

/// How often the server evaluates recording rules, where nobody says.
const RULE_INTERVAL: Duration = Duration::from_mins(1);
/// What rests on rules that are evaluated more seldom is too old for a nap.
const RAREST: Duration = Duration::from_mins(2);

/// What somebody wrote for it.
#[derive(Debug)]
struct WrongInterval(String);

impl WrongInterval {
    fn accepted() -> String {
        format!("{} of at most {}", duration::ACCEPTED, duration::show(RAREST))
    }
}

fn rule_interval(text: Option<String>) -> Result<Duration, WrongInterval> {
    let Some(text) = text else { return Ok(RULE_INTERVAL) };
    duration::parse(&text).ok().filter(|every| *every <= RAREST).ok_or(WrongInterval(text))
}

#[derive(Debug)]
struct PrometheusSetup {
    endpoint: Endpoint,
    /// None: what all servers get that a flag names.
    credentials: Option<Credentials>,
    /// Whether apps may bring a query of their own.
    allows_query: bool,
    /// How often the server evaluates recording rules.
    rule_interval: Duration,
}

impl Setup for PrometheusSetup {
    fn build(&self, name: String, with: &With<'_>) -> Result<Arc<dyn TrafficMetricsSource>, SourceError> {
        let credentials = self.credentials.as_ref().unwrap_or(with.credentials);
        let source = PrometheusSource::new(name, self.endpoint.clone(), credentials.clone())?;
        let (allows_query, rule_interval) = (self.allows_query, self.rule_interval);
        Ok(Arc::new(PrometheusSource { allows_query, rule_interval, ..source }))
    }
}

/// A Prometheus server, or anything that speaks its query API.
#[derive(Debug)]
pub struct PrometheusSource {
    name: String,
    endpoint: Endpoint,
    credentials: Credentials,
    allows_query: bool,
    pub(super) rule_interval: Duration,
    fetch: Fetch,
    memory: Mutex<Memory>,
    pub(super) queries: Mutex<queries::Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    ledgers: BTreeMap<Preset, Ledger>,
    /// When each preset was looked at last.
    looked: BTreeMap<Preset, Instant>,
    /// Replicas that cannot be scraped and that no ledger knows.
    missing: Missing,
    /// The newest of the server's times of evaluation, and when it came first.
    newest: Option<Clocks>,
}

/// The limits of one kind of question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) deadline: Duration,
    pub(super) bytes: usize,
}

// 10,000 apps on three instances make 4 MB at one moment, and 40 MB over sixty.
const INSTANT: Limits = Limits { deadline: Duration::from_secs(10), bytes: 32 << 20 };
const RANGE: Limits = Limits { deadline: Duration::from_secs(30), bytes: 80 << 20 };

/// The longest history that is asked for.
pub(super) const LONGEST: Duration = Duration::from_hours(24);

/// How the server's time is put on the controller's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    /// The server's time of evaluation, in seconds.
    pub(super) server: f64,
    /// The controller's time just before the question.
    pub(super) ours: Timestamp,
}

impl PrometheusSource {
    /// A source with this name at this address.
    ///
    /// # Errors
    /// When a header or token cannot be sent, or the file of authorities cannot be used.
    pub fn new(name: String, endpoint: Endpoint, credentials: Credentials) -> Result<Self, SourceError> {
        credentials.check()?;
        let fetch = Fetch::trusting(credentials.ca_file.as_deref())?;
        let (memory, queries) = (Mutex::default(), Mutex::default());
        let (allows_query, rule_interval) = (false, RULE_INTERVAL);
        Ok(Self { name, endpoint, credentials, allows_query, rule_interval, fetch, memory, queries })
    }

    pub(super) async fn query(
        &self,
        path: &str,
        pairs: &[(&str, &str)],
        limits: Limits,
    ) -> Result<Answer, SourceError> {
        let headers = self.credentials.headers().await?;
        let mut pairs = pairs.to_vec();
        // Thanos must say that it has not everything; the others do not know the word.
        pairs.push(("partial_response", "false"));
        let question = Question {
            endpoint: &self.endpoint,
            path,
            post: Some(Post { kind: "application/x-www-form-urlencoded", text: form(&pairs) }),
            headers: &headers,
            accept: "application/json",
            deadline: limits.deadline,
            limit: limits.bytes,
        };
        // With these statuses the server says in JSON what is wrong.
        let also =
            [StatusCode::BAD_REQUEST, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::SERVICE_UNAVAILABLE];
        let (reply, body) = self.fetch.whole(question, &also).await?;
        promql::decode(&body, reply.status, &self.endpoint)
    }

    async fn now(&self, query: &str) -> Result<Answer, SourceError> {
        self.query("/api/v1/query", &[("query", query)], INSTANT).await
    }

    pub(super) async fn over(
        &self,
        query: &str,
        range: &promql::Range,
        limits: Limits,
    ) -> Result<Answer, SourceError> {
        let (start, end, step) = (range.start.to_string(), range.end.to_string(), range.step.to_string());
        let pairs = [("query", query), ("start", &start), ("end", &end), ("step", &step)];
        self.query("/api/v1/query_range", &pairs, limits).await
    }

    /// The heartbeat over a range; where something was down, with what tells which proxy it is a replica of.
    async fn beats(&self, range: &promql::Range) -> Result<Answer, SourceError> {
        let mut beats = self.over(&promql::heartbeat(), range, RANGE).await?;
        if beats.rows.iter().any(|row| row.label(promql::MARK) == DOWN) {
            let missing = self.over(&missing(), range, RANGE).await?;
            beats.is_partial |= missing.is_partial;
            beats.rows.extend(missing.rows);
        }
        Ok(beats)
    }

    /// The ledgers as they would be if this had been running all the time.
    async fn replay(
        &self,
        presets: &BTreeSet<Preset>,
        clocks: Clocks,
        history: Duration,
    ) -> Result<BTreeMap<Preset, Ledger>, SourceError> {
        let range = promql::Range::until(clocks.server, history);
        let heartbeat = self.beats(&range).await?;
        let counters = self.over(&promql::counters(presets), &range, RANGE).await?;
        let between = self.over(&promql::heartbeat(), &range.finer(), RANGE).await?;
        let mut ledgers = BTreeMap::new();
        if [&heartbeat, &counters, &between].iter().any(|answer| answer.is_partial) {
            return Ok(ledgers);
        }
        let blink = BLINK + Duration::from_secs_f64(2.0 * range.step);
        for (at, beats, rows) in promql::steps(&heartbeat.rows, &counters.rows) {
            let at_ours = clocks.ours_of(at);
            for preset in presets {
                let here = ledgers.entry(*preset).or_insert_with(|| Ledger::since(at_ours));
                match look(*preset, &beats, &rows, clocks, here) {
                    Some(look) => {
                        let lost = here.loses(&look);
                        here.observe(at_ours, look, blink);
                        if lost {
                            // Steps are long: what a process served after the last one went with it.
                            here.begin_again(at_ours);
                        }
                    }
                    // Knowledge begins with the first proxy that is seen.
                    None if here.watermark().is_none() => drop(ledgers.remove(preset)),
                    None => {}
                }
            }
        }
        for (preset, ledger) in &mut ledgers {
            ledger.end_replay();
            if let Some(at) = promql::hidden(&between.rows, *preset, &range) {
                ledger.begin_again(clocks.ours_of(at));
            }
        }
        Ok(ledgers)
    }
}

#[async_trait]
impl TrafficMetricsSource for PrometheusSource {
    fn name(&self) -> &str {
        &self.name
    }

    fn asks_queries(&self) -> bool {
        self.allows_query
    }

    async fn queries(&self, ask: &Ask) -> Result<Samples, SourceError> {
        if self.allows_query { self.of_queries(ask).await } else { Ok(Samples::blind(Blind::NotMapped)) }
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        match self.of_proxies(ask).await {
            // Who brings a query needs no proxy.
            Err(SourceError::NothingScraped { .. })
                if self.allows_query && ask.targets.iter().any(|target| target.query.is_some()) =>
            {
                Ok(Samples::blind(Blind::NoSeries))
            }
            answer => answer,
        }
    }

    async fn past(&self, ask: &AskPast) -> Result<Vec<(AppId, AppPast)>, SourceError> {
        self.past_of_proxies(ask).await
    }
}

impl PrometheusSource {
    /// What proxies and pods count, of all apps.
    async fn of_proxies(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let begun = Instant::now();
        let mut memory = self.memory.lock().await;
        let memory = &mut *memory;
        // The heartbeat first: what it says was scraped is then in the counters that are read after it.
        let heartbeat = self.now(&promql::heartbeat()).await?;
        let mut beats: Vec<_> = heartbeat.rows.iter().map(Row::last).collect();
        let nothing = || SourceError::NothingScraped { at: self.endpoint.to_string() };
        let server = beats.first().ok_or_else(nothing)?.at;
        let clocks = Clocks::of(&mut memory.newest, server, ask.now);
        let live = promql::live(&beats);
        if live.is_empty() && memory.ledgers.is_empty() {
            return Err(nothing());
        }

        if let Some(strangers) = memory.missing.strangers(&beats, &memory.ledgers.values()) {
            memory.missing.answered(strangers, self.now(&missing()).await?);
        }
        beats.extend(memory.missing.points());
        let counters = self.now(&promql::counters(&live)).await?;
        let known = |preset: &Preset| memory.looked.get(preset).is_some_and(|at| at.elapsed() <= BLINK);
        let new: BTreeSet<Preset> = live.iter().filter(|preset| !known(preset)).copied().collect();
        if !new.is_empty() {
            let mut replayed = self.replay(&new, clocks, ask.history).await.unwrap_or_else(|error| {
                tracing::warn!(source = self.name, %error, "history cannot be read: knowledge begins now");
                BTreeMap::new()
            });
            for preset in new {
                let ledger = replayed.remove(&preset).unwrap_or_else(|| Ledger::since(ask.now));
                memory.ledgers.insert(preset, ledger);
            }
        }
        // Activity that is seen now was before the last answer came.
        let elapsed = SignedDuration::try_from(begun.elapsed()).unwrap_or(SignedDuration::MAX);
        let at = ask.now.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        let rows: Vec<_> = counters.rows.iter().map(Row::last).collect();
        for preset in &live {
            let Some(ledger) = memory.ledgers.get_mut(preset) else { continue };
            if let Some(look) = look(*preset, &beats, &rows, clocks, ledger) {
                ledger.observe(at, look, BLINK);
            }
            memory.looked.insert(*preset, Instant::now());
        }

        let unproven = promql::services_are_not_counted(&beats, &counters);
        let views = memory.ledgers.iter().map(|(preset, ledger)| {
            let mut blind = BTreeSet::new();
            if heartbeat.is_partial || counters.is_partial || memory.missing.is_partial() {
                blind.insert(Blind::Partial);
            }
            if ledger.is_down() && Preset::PROXIES.contains(preset) {
                blind.insert(Blind::SourceDown);
            }
            if *preset == Preset::Traefik && unproven {
                blind.insert(Blind::NotMapped);
            }
            (*preset, View { ledger, live: live.contains(preset), blind, fresh: FRESH })
        });
        let exists =
            |preset: &Preset| memory.ledgers.contains_key(preset) || Absent::of(*preset, &beats).is_any();
        let dark = Preset::PROXIES.into_iter().filter(|preset| !live.contains(preset) && exists(preset));
        let dark = dark.collect();
        Ok(samples(ask, &views.collect(), &dark))
    }

    async fn past_of_proxies(&self, ask: &AskPast) -> Result<Vec<(AppId, AppPast)>, SourceError> {
        let heartbeat = self.now(&promql::heartbeat()).await?;
        let nothing = || SourceError::NothingScraped { at: self.endpoint.to_string() };
        let server = heartbeat.rows.first().map(|row| row.last().at).ok_or_else(nothing)?;
        let clocks = Clocks { server, ours: ask.now };
        let mut recorder = Recorder::new(ask);
        #[expect(clippy::cast_possible_truncation, reason = "a time in seconds, saturating")]
        let mut pieces = Pieces::until(server as i64, ask);
        while let Some((from, until)) = pieces.next() {
            match self.piece(from, until, ask.step).await {
                Ok((beats, counters)) => {
                    record(&mut recorder, &beats, &counters, clocks);
                    pieces.had();
                }
                Err(error) => pieces.smaller(error)?,
            }
        }
        Ok(recorder.pasts(ask))
    }

    /// A piece of the past; nothing, if the server does not have all of it.
    async fn piece(
        &self,
        from: i64,
        until: i64,
        step: Duration,
    ) -> Result<(Vec<Row>, Vec<Row>), SourceError> {
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
        let range = promql::Range { start: from as f64, end: (until - 1) as f64, step: step.as_secs_f64() };
        let beats = self.beats(&range).await?;
        let presets = promql::shown(&beats.rows);
        if beats.is_partial || presets.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let counters = self.over(&promql::counters(&presets), &range, RANGE).await?;
        Ok(if counters.is_partial { (Vec::new(), Vec::new()) } else { (beats.rows, counters.rows) })
    }
}

fn record(recorder: &mut Recorder, beats: &[Row], counters: &[Row], clocks: Clocks) {
    for (at, beats, rows) in promql::steps(beats, counters) {
        let at = clocks.ours_of(at);
        for preset in promql::live(&beats) {
            let new = Ledger::since(at);
            let ledger = recorder.ledger(preset).unwrap_or(&new);
            if let Some(look) = look(preset, &beats, &rows, clocks, ledger) {
                recorder.observe(preset, at, look);
            }
        }
    }
}

impl Clocks {
    /// The clocks of an answer. One that was evaluated no later than the newest before it comes from a cache, and is as old
    /// as that one.
    pub(super) fn of(newest: &mut Option<Self>, server: f64, ours: Timestamp) -> Self {
        match *newest {
            Some(newest) if server <= newest.server => {
                let behind =
                    SignedDuration::try_from_secs_f64(newest.server - server).unwrap_or(SignedDuration::MAX);
                Self { server, ours: newest.ours.checked_sub(behind).unwrap_or(Timestamp::MIN) }
            }
            _ => *newest.insert(Self { server, ours }),
        }
    }

    pub(super) fn ours_of(self, server: f64) -> Timestamp {
        let age = SignedDuration::try_from_secs_f64((self.server - server).max(0.0));
        age.ok().and_then(|age| self.ours.checked_sub(age).ok()).unwrap_or(Timestamp::MIN)
    }
}

/// One moment of one preset; `None` when no instance of it was alive.
fn look(
    preset: Preset,
    beats: &[promql::Point<'_>],
    rows: &[promql::Point<'_>],
    clocks: Clocks,
    ledger: &Ledger,
) -> Option<Look> {
    let mut look = Look::default();
    for beat in beats {
        let instance = beat.row.label("instance");
        if beat.row.label(promql::MARK) == preset.label() && beat.value > 0.0 {
            let sight =
                Sight { scraped: clocks.ours_of(beat.value), started: None, counters: BTreeMap::new() };
            look.live.insert(Arc::from(instance), sight);
        }
    }
    if look.live.is_empty() {
        return None;
    }
    let starts = beats
        .iter()
        .filter(|beat| beat.row.label(promql::MARK).strip_suffix(promql::STARTED) == Some(preset.label()));
    for beat in starts {
        if let Some(sight) = look.live.get_mut(beat.row.label("instance")) {
            let since = SignedDuration::try_from_secs_f64(beat.value).ok();
            // Compared with itself only, so it stays on the clock of its machine.
            sight.started = since.and_then(|since| Timestamp::from_duration(since).ok());
        }
    }
    for row in rows {
        // A series of an instance with no heartbeat is from before its end.
        let Some(sight) = look.live.get_mut(row.row.label("instance")) else { continue };
        for key in row.row.keys(preset) {
            *sight.counters.entry(key).or_default() += row.value;
        }
    }
    let hosts = look.live.keys().map(|instance| host(instance)).collect();
    let absent = Absent::of(preset, beats);
    let down = absent.replicas(ledger, &hosts).filter(|instance| !look.live.contains_key(*instance));
    look.down = down.map(Arc::from).collect();
    Some(look)
}
