//! InfluxDB: what Telegraf collected from the proxies, asked in Flux or InfluxQL.
//!
//! The server takes no differences: it gives the last value of each series, and the [ledger](super::ledger) compares
//! what it says from poll to poll. At the start, and after a gap, the same values are asked step by step and replayed.
//!
//! The watermark is the data's own time: the last but one sign of life of each instance, because only when a later one
//! is there has everything of the one before arrived. Series that do not have that time are gone. Data that is dated
//! in the future cannot be aged and makes the source blind. Traffic that does not pass the proxy is not seen.

mod flux;
mod influxql;
mod setup;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;
use kubenap_core::app::AppId;
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::fetch::{Fetch, Post, Question, form};
use super::ledger::{BLINK, Ledger, Look, Sight};
use super::past::{Pieces, Recorder};
use super::preset::{Preset, UNSURE};
use super::verdict::{View, samples};
use super::{AppPast, Ask, AskPast, Samples, SourceError, TrafficMetricsSource};

use flux::Wrong;
pub(super) use setup::KIND;
use setup::{InfluxSetup, Tables};

/// The language of the questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Language {
    Flux,
    InfluxQl,
}

/// Where in the server the data is.
#[derive(Clone, Debug)]
struct Scope {
    /// The bucket, or for InfluxQL the database.
    bucket: String,
    /// The tag that tells instances of a proxy apart.
    instance_tag: String,
}

/// One field of one measurement.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Table {
    measurement: String,
    field: String,
    /// The tags that name an app.
    tags: Vec<String>,
}

/// Which time is asked for.
#[derive(Clone, Copy, Debug)]
enum Span {
    /// So many seconds before the server's now.
    Last(u64),
    /// From a moment to another, on the server's clock.
    Between(Timestamp, Timestamp),
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    measurement: String,
    field: String,
    tags: BTreeMap<String, String>,
    at: Timestamp,
    value: f64,
}

/// An answer and what its head says.
#[derive(Debug)]
struct Answer {
    rows: Vec<Row>,
    partial: bool,
    /// The server's time, at the end of the second that it names.
    server: Option<Timestamp>,
}

/// An InfluxDB server.
#[derive(Debug)]
struct InfluxSource {
    name: String,
    setup: InfluxSetup,
    tables: Tables,
    fetch: Fetch,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    ledgers: BTreeMap<Preset, Ledger>,
    looked: BTreeMap<Preset, Instant>,
    /// Until when the server wants to be left alone.
    quiet_until: Option<Instant>,
}

/// The signs of life of one instance.
#[derive(Clone, Copy, Debug)]
struct Beat {
    newest: Timestamp,
    /// The last but one: up to here everything has arrived. One that was heard of only once has said nothing whole.
    settled: Timestamp,
}

const DEADLINE: Duration = Duration::from_secs(30);
const LARGEST: usize = 80 << 20;
/// Data that is dated this much ahead of the server's clock shows that one of the clocks is off.
const AHEAD: SignedDuration = SignedDuration::from_secs(2);
/// Telegraf's interval and its flush may take a minute each.
const FRESH: SignedDuration = SignedDuration::from_mins(5);
/// How long a server is left alone that is too busy and does not say for how long.
const BUSY: Duration = Duration::from_secs(30);
/// The longest that any server may ask to be left alone.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

impl InfluxSource {
    pub(super) fn new(name: String, setup: InfluxSetup) -> Result<Self, SourceError> {
        setup.credentials.check()?;
        let fetch = Fetch::trusting(setup.credentials.ca_file.as_deref())?;
        let tables = Tables::of(&setup);
        Ok(Self { name, setup, tables, fetch, memory: Mutex::default() })
    }

    async fn ask(&self, query: String, tables: &[Table], later: u64) -> Result<Answer, SourceError> {
        let headers = self.setup.credentials.headers().await?;
        let (path, post, accept) = match self.setup.language {
            Language::Flux => {
                let org = self.setup.org.as_ref().map(|org| form(&[("org", org)]));
                let path =
                    org.map_or_else(|| "/api/v2/query".to_owned(), |org| format!("/api/v2/query?{org}"));
                (path, Some(Post { kind: "application/vnd.flux", text: query }), "application/csv")
            }
            Language::InfluxQl => {
                let mut pairs = vec![("db", self.setup.scope.bucket.as_str()), ("epoch", "ms")];
                pairs.extend(self.setup.retention_policy.as_deref().map(|policy| ("rp", policy)));
                pairs.push(("q", &query));
                (format!("/query?{}", form(&pairs)), None, "application/json")
            }
        };
        let question = Question {
            endpoint: &self.setup.endpoint,
            path: &path,
            post,
            headers: &headers,
            accept,
            deadline: DEADLINE,
            limit: LARGEST,
        };
        // With these statuses the server says in JSON what is wrong.
        let also = [400, 401, 403, 404, 422, 429, 500, 503]
            .map(|status| StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST));
        let (reply, body) = self.fetch.whole(question, &also).await?;
        if reply.status != StatusCode::OK {
            return Err(self.refusal(reply.status, &reply.headers, &body));
        }
        let decoded = match self.setup.language {
            Language::Flux => flux::decode(&body).map(|rows| (rows, false)),
            Language::InfluxQl => influxql::decode(&body, tables, later),
        };
        let at = || self.setup.endpoint.to_string();
        let (rows, partial) = decoded.map_err(|wrong| match wrong {
            Wrong::Odd(why) => SourceError::NotUnderstood { at: at(), why },
            Wrong::Server(text) => {
                SourceError::Api { at: at(), kind: "error".to_owned(), text: shortened(&text) }
            }
        })?;
        Ok(Answer { rows, partial, server: server_time(&reply.headers) })
    }

    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> SourceError {
        #[derive(Deserialize)]
        struct Wire {
            code: Option<String>,
            message: Option<String>,
            error: Option<String>,
        }
        let at = self.setup.endpoint.to_string();
        let wait = headers.get(RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.trim().parse().ok());
        if status == StatusCode::TOO_MANY_REQUESTS
            || (status == StatusCode::SERVICE_UNAVAILABLE && wait.is_some())
        {
            let wait = wait.map_or(BUSY, Duration::from_secs).min(LONGEST_WAIT);
            return SourceError::Limited { at, wait };
        }
        match serde_json::from_slice::<Wire>(body) {
            Ok(Wire { code, message, error }) if message.is_some() || error.is_some() => SourceError::Api {
                at,
                kind: shortened(&code.unwrap_or_else(|| status.as_u16().to_string())),
                text: shortened(&message.or(error).unwrap_or_default()),
            },
            _ => SourceError::Status { at, status: status.as_u16() },
        }
    }

    async fn heartbeat(&self, span: Span) -> Result<Answer, SourceError> {
        let tables = &self.tables.presence;
        let query = match self.setup.language {
            Language::Flux => flux::heartbeat(&self.setup.scope, tables, span),
            Language::InfluxQl => influxql::heartbeat(&self.setup.scope, tables, span),
        };
        self.ask(query, tables, 0).await
    }

    async fn values(&self, tables: &[Table], span: Span, step: Option<u64>) -> Result<Answer, SourceError> {
        let query = match self.setup.language {
            Language::Flux => flux::counters(&self.setup.scope, tables, span, step),
            Language::InfluxQl => influxql::counters(tables, span, step),
        };
        self.ask(query, tables, step.unwrap_or(0)).await
    }

    /// The ledgers as they would be if this had been running all the time.
    async fn replay(
        &self,
        clocks: Clocks,
        history: Duration,
    ) -> Result<BTreeMap<Preset, Ledger>, SourceError> {
        let history = history.min(super::prometheus::LONGEST).max(Duration::from_mins(1));
        let step = (history.as_secs() / 60).max(60);
        let start = clocks.server.checked_sub(history).unwrap_or(Timestamp::MIN);
        let span = Span::Between(start, clocks.server);
        let beats = self.values(&self.tables.presence, span, Some(step)).await?;
        let counters = self.values(&self.tables.counters, span, Some(step)).await?;
        let mut ledgers = BTreeMap::new();
        if beats.partial || counters.partial {
            return Ok(ledgers);
        }
        let step = Duration::from_secs(step);
        for ((preset, at), look) in self.moments(&beats.rows, &counters.rows, clocks, step) {
            let at = clocks.ours_of(at);
            let ledger = ledgers.entry(preset).or_insert_with(|| Ledger::since(at));
            let lost = ledger.loses(&look);
            ledger.observe(at, look, BLINK + 2 * step);
            if lost {
                // Steps are long: what a process served after the last one went with it.
                ledger.begin_again(at);
            }
        }
        ledgers.values_mut().for_each(Ledger::end_replay);
        Ok(ledgers)
    }

    /// What each step shows of each preset, in the order of time.
    fn moments(&self, beats: &[Row], counters: &[Row], clocks: Clocks, step: Duration) -> Moments {
        let mut moments = Moments::new();
        for row in beats {
            let Some(preset) = self.tables.beats(row) else { continue };
            let scraped = clocks.ours_of(row.at.checked_sub(step).unwrap_or(Timestamp::MIN));
            let look = moments.entry((preset, row.at)).or_default();
            look.live.insert(self.instance(row), Sight { scraped, started: None, counters: BTreeMap::new() });
        }
        // A restart between two steps is told by this alone, where the count has come to the very same again.
        for row in beats {
            let Some(started) = self.tables.started(row) else { continue };
            let instance = self.instance(row);
            for (_, look) in moments.iter_mut().filter(|((_, at), _)| *at == row.at) {
                if let Some(sight) = look.live.get_mut(&instance) {
                    sight.started = Some(started);
                }
            }
        }
        for row in counters {
            let Some(preset) = self.tables.counts(row) else { continue };
            let look = moments.get_mut(&(preset, row.at));
            let sight = look.and_then(|look| look.live.get_mut(&self.instance(row)));
            if let Some(sight) = sight {
                self.count(preset, row, &mut sight.counters);
            }
        }
        moments
    }

    /// Each preset's instances as the last points show them.
    fn looks(
        &self,
        beats: &Beats,
        signs: &[Row],
        counters: &[Row],
        clocks: Clocks,
    ) -> BTreeMap<Preset, Look> {
        let mut looks: BTreeMap<Preset, Look> = BTreeMap::new();
        let mut starts: BTreeMap<Arc<str>, (Timestamp, Timestamp)> = BTreeMap::new();
        for row in signs {
            let Some(started) = self.tables.started(row) else { continue };
            let known = starts.entry(self.instance(row)).or_insert((row.at, started));
            *known = (*known).max((row.at, started));
        }
        for ((preset, instance), beat) in beats {
            let scraped = clocks.ours_of(beat.settled);
            let started = starts.get(instance).map(|(_, started)| *started);
            let sight = Sight { scraped, started, counters: BTreeMap::new() };
            looks.entry(*preset).or_default().live.insert(Arc::clone(instance), sight);
        }
        for row in counters {
            let Some(preset) = self.tables.counts(row) else { continue };
            let instance = self.instance(row);
            let Some(beat) = beats.get(&(preset, Arc::clone(&instance))) else { continue };
            // Every series of an instance is written with each of its signs of life, or it is gone.
            let begun = starts.get(&instance).map_or(Timestamp::MIN, |(_, started)| *started);
            let is_from_before = begun <= beat.newest && row.at <= begun;
            if row.at < beat.settled || is_from_before {
                continue;
            }
            let sight = looks.get_mut(&preset).and_then(|look| look.live.get_mut(&instance));
            if let Some(sight) = sight {
                self.count(preset, row, &mut sight.counters);
            }
        }
        looks
    }

    fn count(&self, preset: Preset, row: &Row, counters: &mut BTreeMap<Arc<str>, f64>) {
        let unsure = preset.is_unsure(|label| self.tables.label(preset, row, label)).then_some(UNSURE);
        for key in preset.keys_of(unsure, |label| self.tables.label(preset, row, label)) {
            *counters.entry(Arc::from(key)).or_default() += row.value;
        }
    }

    fn instance(&self, row: &Row) -> Arc<str> {
        Arc::from(row.tags.get(&self.setup.scope.instance_tag).map_or("", String::as_str))
    }

    fn beats(&self, rows: &[Row]) -> Beats {
        let mut beats = Beats::new();
        for row in rows {
            let Some(preset) = self.tables.beats(row) else { continue };
            let beat = beats
                .entry((preset, self.instance(row)))
                .or_insert(Beat { newest: row.at, settled: Timestamp::MIN });
            if row.at > beat.newest {
                *beat = Beat { newest: row.at, settled: beat.newest };
            } else if row.at < beat.newest {
                beat.settled = beat.settled.max(row.at);
            }
        }
        beats
    }
}

type Beats = BTreeMap<(Preset, Arc<str>), Beat>;

type Moments = BTreeMap<(Preset, Timestamp), Look>;

#[async_trait]
impl TrafficMetricsSource for InfluxSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let begun = Instant::now();
        let mut memory = self.memory.lock().await;
        if let Some(until) = memory.quiet_until.filter(|until| *until > begun) {
            let at = self.setup.endpoint.to_string();
            return Err(SourceError::Limited { at, wait: until.duration_since(begun) });
        }
        let answer = self.look(ask, begun, &mut memory).await;
        if let Err(SourceError::Limited { wait, .. }) = &answer {
            memory.quiet_until = Some(Instant::now() + *wait);
        }
        answer
    }

    async fn past(&self, ask: &AskPast) -> Result<Vec<(AppId, AppPast)>, SourceError> {
        let heartbeat = self.heartbeat(Span::Last(self.setup.gone_after.as_secs())).await?;
        if self.beats(&heartbeat.rows).is_empty() {
            return Err(SourceError::NothingScraped { at: self.setup.endpoint.to_string() });
        }
        let clocks = Clocks { server: heartbeat.server.unwrap_or(ask.now), ours: ask.now };
        let mut recorder = Recorder::new(ask);
        let mut pieces = Pieces::until(clocks.server.as_second(), ask);
        while let Some((from, until)) = pieces.next() {
            match self.piece(from, until, ask.step).await {
                Ok((beats, counters)) => {
                    for ((preset, at), look) in self.moments(&beats, &counters, clocks, ask.step) {
                        recorder.observe(preset, clocks.ours_of(at), look);
                    }
                    pieces.had();
                }
                Err(error) => pieces.smaller(error)?,
            }
        }
        Ok(recorder.pasts(ask))
    }
}

impl InfluxSource {
    /// A piece of the past; nothing, if the server does not have all of it.
    async fn piece(
        &self,
        from: i64,
        until: i64,
        step: Duration,
    ) -> Result<(Vec<Row>, Vec<Row>), SourceError> {
        let moment = |second| Timestamp::from_second(second).unwrap_or(Timestamp::MIN);
        let (span, step) = (Span::Between(moment(from), moment(until)), Some(step.as_secs()));
        let beats = self.values(&self.tables.presence, span, step).await?;
        let counters = self.values(&self.tables.counters, span, step).await?;
        let partial = beats.partial || counters.partial;
        Ok(if partial { (Vec::new(), Vec::new()) } else { (beats.rows, counters.rows) })
    }

    async fn look(&self, ask: &Ask, begun: Instant, memory: &mut Memory) -> Result<Samples, SourceError> {
        let window = Span::Last(self.setup.gone_after.as_secs());
        // The signs of life first: what they stand for is then in the counters that are read after them.
        let heartbeat = self.heartbeat(window).await?;
        let beats = self.beats(&heartbeat.rows);
        if beats.is_empty() && memory.ledgers.is_empty() {
            return Err(SourceError::NothingScraped { at: self.setup.endpoint.to_string() });
        }
        let counters = self.values(&self.tables.counters, window, None).await?;
        let clocks = Clocks { server: heartbeat.server.unwrap_or(ask.now), ours: ask.now };
        let live: BTreeSet<Preset> = beats.keys().map(|(preset, _)| *preset).collect();
        let forgotten = |preset: &Preset| memory.looked.get(preset).is_none_or(|at| at.elapsed() > BLINK);
        if live.iter().any(forgotten) {
            let mut replayed = self.replay(clocks, ask.history).await.unwrap_or_else(|error| {
                tracing::warn!(source = self.name, %error, "history cannot be read: knowledge begins now");
                BTreeMap::new()
            });
            for preset in live.iter().filter(|preset| forgotten(preset)) {
                let ledger = replayed.remove(preset).unwrap_or_else(|| Ledger::since(ask.now));
                memory.ledgers.insert(*preset, ledger);
            }
        }
        // Activity that is seen now was before the last answer came.
        let elapsed = SignedDuration::try_from(begun.elapsed()).unwrap_or(SignedDuration::MAX);
        let at = ask.now.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        for (preset, look) in self.looks(&beats, &heartbeat.rows, &counters.rows, clocks) {
            if let Some(ledger) = memory.ledgers.get_mut(&preset) {
                ledger.observe(at, look, BLINK);
            }
            memory.looked.insert(preset, Instant::now());
        }
        let latest = clocks.server.checked_add(AHEAD).unwrap_or(Timestamp::MAX);
        let views = memory.ledgers.iter().map(|(preset, ledger)| {
            let mut blind = BTreeSet::new();
            if heartbeat.partial || counters.partial {
                blind.insert(Blind::Partial);
            }
            if beats.iter().any(|((of, _), beat)| of == preset && beat.newest > latest) {
                blind.insert(Blind::ClockOff);
            }
            if self.tables.are_overwritten(*preset, &counters.rows) {
                blind.insert(Blind::NotMapped);
            }
            (*preset, View { ledger, live: live.contains(preset), blind, fresh: FRESH })
        });
        let dark = memory.ledgers.keys().filter(|preset| !live.contains(preset)).copied().collect();
        Ok(samples(ask, &views.collect(), &dark))
    }
}

/// How the server's time is put on the controller's clock.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    server: Timestamp,
    ours: Timestamp,
}

impl Clocks {
    fn ours_of(self, server: Timestamp) -> Timestamp {
        let age = self.server.duration_since(server).max(SignedDuration::ZERO);
        self.ours.checked_sub(age).unwrap_or(Timestamp::MIN)
    }
}

/// The end of the second that the answer's `Date` names: no age is then taken for less than it is.
fn server_time(headers: &HeaderMap) -> Option<Timestamp> {
    let date = headers.get(DATE)?.to_str().ok()?;
    let date = jiff::fmt::rfc2822::parse(date).ok()?.timestamp();
    date.checked_add(SignedDuration::from_secs(1)).ok()
}

fn shortened(text: &str) -> String {
    text.chars().filter(|sign| !sign.is_control()).take(300).collect()
}
