//! Queries that apps bring: each is put to Prometheus as it is, and its one value is compared from look to look.
//!
//! Nobody knows on which targets a query rests. But no value is older than the oldest last scrape of all targets was one
//! evaluation of recording rules ago: up to then a query shows everything. While a target that was up within a day is down,
//! that moment stands still.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use tokio::time::{Instant, timeout_at};

use super::ledger::BLINK;
use super::prometheus::{Clocks, Limits, PrometheusSource};
use super::promql::{self, Answer, DOWN, MARK, Row};
use super::{AppSample, Ask, Samples, SourceError};

/// So many different queries are asked in one poll.
const MOST: usize = 50;
const AT_ONCE: usize = 8;
/// All of them together.
const DEADLINE: Duration = Duration::from_secs(10);
/// Whoever has taken so long without an answer is asked after the others next time.
const LATE: Duration = Duration::from_secs(1);
/// One series with one value, or a day of it in short steps; more is no answer to such a query.
const VALUE: Limits = Limits { deadline: Duration::from_secs(5), bytes: 64 << 10 };
const HISTORY: Limits = Limits { deadline: Duration::from_secs(5), bytes: 1 << 20 };

/// How old a value may be where the server does not say when it scraped.
const OLD: SignedDuration = SignedDuration::from_mins(2);
/// An answer that was evaluated so long before the question comes from a cache; servers behind one address differ by less.
const SLACK: f64 = 5.0;

/// When the oldest last scrape of all targets was, as of one evaluation of rules ago (with ten seconds for the evaluation
/// itself, and the slack); how many targets are down; and how many of them were up within ten minutes.
fn scraped(rule_interval: Duration) -> String {
    let ago = rule_interval.as_secs_f64().ceil() + 10.0 + SLACK;
    [
        &format!(r#"label_replace(min(timestamp(up offset {ago}s)), "kubenap", "scraped", "", "")"#),
        r#"label_replace(count(up == 0), "kubenap", "down", "", "")"#,
        r#"label_replace(count(up == 0 and max_over_time(up[10m]) == 1), "kubenap", "lately", "", "")"#,
    ]
    .join(" or ")
}
/// How many targets are down that a query may rest on. Others were down all day: those must not keep apps awake for ever.
/// The server reads a day of all targets for this, so it is not asked with every poll.
const FALLEN: &str =
    r#"label_replace(count(up == 0 and max_over_time(up[1d]) == 1), "kubenap", "fallen", "", "")"#;
/// So long that answer holds: whatever falls meanwhile was up lately until after that.
const HOLDS: Duration = Duration::from_mins(5);
/// So long after it was not answered it is asked again.
const ASK_AGAIN: Duration = Duration::from_mins(1);
const MOMENT: &str = "scraped";
const LATELY: &str = "lately";

/// A blind spot, and what is told of it.
type Doubt = (Blind, String);

/// Why no query is asked.
#[derive(Debug)]
enum Unasked {
    /// The server does not answer.
    Down(SourceError),
    Doubt(Doubt),
}

impl From<SourceError> for Unasked {
    fn from(error: SourceError) -> Self {
        Self::Down(error)
    }
}

/// What is remembered of all queries.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: BTreeMap<Box<str>, Known>,
    /// Those whose value was seen to be gone when they were answered last. Their knowledge begins when it comes back: a
    /// history in steps may show it on both sides of a short gap, and not what was lost in it.
    gone: BTreeSet<Box<str>>,
    /// Those that were not answered in time: the others are asked before them.
    late: BTreeSet<Box<str>>,
    /// The newest of the server's times of evaluation, and when it came first.
    newest: Option<Clocks>,
    /// Up to when everything was seen when no target was down.
    whole: Option<Timestamp>,
    /// How many targets were down that were up within a day, none: nobody knows; and when that was asked.
    fallen: Option<(Option<f64>, Timestamp)>,
}

/// What is known of one query.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Where the knowledge begins.
    since: Timestamp,
    /// When its value changed last.
    used: Option<Timestamp>,
    value: f64,
    /// The server's time of evaluation.
    server: f64,
    /// When it was looked at last.
    looked: Timestamp,
    watermark: Timestamp,
}

/// What the server says of its scrapes.
#[derive(Clone, Copy, Debug)]
struct Heard {
    /// Up to when queries show everything.
    watermark: Timestamp,
    /// The server's time of evaluation; none: it scrapes nothing.
    server: Option<f64>,
}

/// One query's answer.
struct Heed {
    query: Box<str>,
    /// When it had come.
    at: Instant,
    value: Result<(f64, f64), Doubt>,
    is_late: bool,
    /// Nothing is known of it that goes on until now, but what history says.
    is_new: bool,
    past: Option<Known>,
}

impl PrometheusSource {
    /// What is known of every app that brings a query, and what was asked for it; an error where the server does not answer.
    pub(super) async fn of_queries(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let mut apps: BTreeMap<&str, Vec<&AppId>> = BTreeMap::new();
        for target in ask.targets.iter() {
            if let Some(query) = target.query.as_deref() {
                apps.entry(query).or_default().push(&target.app);
            }
        }
        let mut memory = self.queries.lock().await;
        memory.known.retain(|query, _| apps.contains_key(&**query));
        memory.gone.retain(|query| apps.contains_key(&**query));
        memory.late.retain(|query| apps.contains_key(&**query));
        let mut samples = Samples::blind(Blind::Starting);
        if apps.is_empty() {
            return Ok(samples);
        }
        let answers = self.ask_all(ask, &apps, &mut memory).await?;
        for (query, of) in &apps {
            let (sample, said) = match answers.get(*query) {
                Some(Ok(known)) => (known.sample(), asked(query, "")),
                Some(Err((why, said))) => (AppSample::blind(*why), asked(query, said)),
                None => {
                    let said = format!("not asked, there are more than {MOST} different ones");
                    (AppSample::blind(Blind::NotMapped), asked(query, &said))
                }
            };
            for app in of {
                samples.asked.insert((*app).clone(), said.clone());
                samples.apps.insert((*app).clone(), sample.clone());
            }
        }
        Ok(samples)
    }

    async fn ask_all(
        &self,
        ask: &Ask,
        apps: &BTreeMap<&str, Vec<&AppId>>,
        memory: &mut Memory,
    ) -> Result<BTreeMap<Box<str>, Result<Known, Doubt>>, SourceError> {
        let begun = Instant::now();
        let mut asked: Vec<Box<str>> = apps.keys().take(MOST).map(|query| Box::from(*query)).collect();
        asked.sort_by_key(|query| memory.late.contains(query));
        // First this: what was scraped by then is in every value that is asked for after it.
        let heard = match self.scraped(ask.now, memory).await {
            Ok(heard) => heard,
            Err(Unasked::Down(error)) => return Err(error),
            Err(Unasked::Doubt(doubt)) => {
                return Ok(asked.into_iter().map(|query| (query, Err(doubt.clone()))).collect());
            }
        };
        let ours = |at: Instant| {
            let later = SignedDuration::try_from(at.duration_since(begun)).unwrap_or(SignedDuration::MAX);
            ask.now.checked_add(later).unwrap_or(Timestamp::MAX)
        };
        let until = begun + DEADLINE;
        let asked = asked.into_iter().map(|query| {
            let is_new = memory.known.get(&query).is_none_or(|known| known.is_over(ask.now));
            let is_gone = memory.gone.contains(&query);
            (query, is_new, is_gone)
        });
        let asked: Vec<_> = asked.collect();
        let heeds: Vec<Heed> = futures::stream::iter(asked)
            .map(|(query, is_new, is_gone)| async move {
                let asked = Instant::now();
                let answer = timeout_at(until, self.query(NOW, &[("query", &*query)], VALUE)).await;
                let at = Instant::now();
                // Some are not even asked in time.
                let is_late =
                    matches!(answer, Err(_) | Ok(Err(SourceError::Timeout { .. }))) && at - asked >= LATE;
                let value = answer.map_err(|_| too_late()).and_then(one_value);
                let past = match value {
                    Ok((server, _)) if is_new && !is_gone => {
                        let clocks = Clocks { server, ours: ours(asked) };
                        timeout_at(until, self.history(&query, clocks, ask.history)).await.ok().flatten()
                    }
                    _ => None,
                };
                Heed { query, at, value, is_late, is_new, past }
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let answers = heeds.into_iter().map(|heed| {
            let query = heed.query.clone();
            let at = ours(heed.at);
            (query, memory.take(heed, at, heard))
        });
        Ok(answers.collect())
    }

    /// Up to when queries show everything.
    async fn scraped(&self, now: Timestamp, memory: &mut Memory) -> Result<Heard, Unasked> {
        let answer = self.query(NOW, &[("query", &scraped(self.rule_interval))], VALUE).await?;
        if answer.is_partial {
            return Err(Unasked::Doubt(in_part()));
        }
        let of = |mark: &str| answer.rows.iter().map(Row::last).find(|point| point.row.label(MARK) == mark);
        let moment = of(MOMENT);
        let clocks = moment.or(of(DOWN)).map(|point| Clocks::of(&mut memory.newest, point.at, now));
        let old = |of: Timestamp| of.checked_sub(OLD).unwrap_or(Timestamp::MIN);
        let watermark = match (moment, clocks) {
            (Some(point), Some(clocks)) if point.value > 0.0 && point.value <= point.at => {
                clocks.ours_of(point.value)
            }
            // Nothing is scraped there, or at no time that can be: what others write into it is as old as that.
            (_, clocks) => old(clocks.map_or(now, |clocks| clocks.ours)),
        };
        let server = clocks.map(|clocks| clocks.server);
        let count = |mark: &str| of(mark).map_or(0.0, |point| point.value);
        let fallen = match (count(DOWN) > 0.0, count(LATELY)) {
            (false, _) => 0.0,
            (true, lately) if lately > 0.0 => lately,
            (true, _) => self.fallen(now, memory).await?,
        };
        if fallen > 0.0 {
            let said = format!("{fallen} targets that were up within the last day are down");
            let watermark = memory.whole.ok_or(Unasked::Doubt((Blind::Partial, said)))?.min(watermark);
            return Ok(Heard { watermark, server });
        }
        memory.whole = Some(watermark);
        Ok(Heard { watermark, server })
    }

    /// How many targets are down that were up within a day, as of a few minutes ago.
    async fn fallen(&self, now: Timestamp, memory: &mut Memory) -> Result<f64, Unasked> {
        if let Some((count, asked)) = memory.fallen {
            let age = now.duration_since(asked).unsigned_abs();
            match count {
                Some(count) if age < HOLDS => return Ok(count),
                None if age < ASK_AGAIN => {
                    let said = "which targets have been down for long could not be asked a moment ago";
                    return Err(Unasked::Doubt((Blind::SourceDown, said.to_owned())));
                }
                _ => {}
            }
        }
        // A server for which it is too much is not asked for it with every poll.
        memory.fallen = Some((None, now));
        // The server does answer, this one apart: it is not down.
        let answer = self.query(NOW, &[("query", FALLEN)], VALUE).await.map_err(|error| {
            let said = format!("which targets have been down for long cannot be asked: {error}");
            Unasked::Doubt((Blind::SourceDown, said))
        })?;
        if answer.is_partial {
            return Err(Unasked::Doubt(in_part()));
        }
        let count = answer.rows.first().map_or(0.0, |row| row.last().value);
        memory.fallen = Some((Some(count), now));
        Ok(count)
    }

    /// What would be known had the query been asked all the time; none: the history does not reach until now.
    async fn history(&self, query: &str, clocks: Clocks, history: Duration) -> Option<Known> {
        let range = promql::Range::until(clocks.server, history).finer();
        let answer = self.over(query, &range, HISTORY).await.ok()?;
        if answer.is_partial || answer.rows.len() > 1 {
            return None;
        }
        let mut past: Option<Known> = None;
        for (server, points, _) in promql::steps(&answer.rows, &[]) {
            let at = clocks.ours_of(server);
            for point in points {
                let before = past.filter(|known| server - known.server < 1.5 * range.step);
                let begun = Known::begun(point.value, server, at);
                past = before.map_or(Some(begun), |mut known| {
                    known.see(point.value, server, at);
                    Some(known)
                });
                // A value that is no number leaves a gap.
                past = past.filter(|known| known.value.is_finite());
            }
        }
        past.filter(|known| clocks.server - known.server < 1.5 * range.step)
    }
}

/// Where a value is asked for.
const NOW: &str = "/api/v1/query";

impl Memory {
    /// Takes in one answer, which had come at this moment.
    fn take(&mut self, heed: Heed, at: Timestamp, heard: Heard) -> Result<Known, Doubt> {
        let Heed { query, value, is_late, is_new, past, .. } = heed;
        if is_late {
            self.late.insert(query.clone());
        } else {
            self.late.remove(&query);
        }
        let (server, value) = match value {
            Ok(found) => found,
            Err((why, said)) => {
                // What comes back after that may have begun anew meanwhile, and come to the very same number again.
                if matches!(why, Blind::NoSeries | Blind::NotMapped) {
                    self.known.remove(&query);
                    self.gone.insert(query);
                }
                return Err((why, said));
            }
        };
        let is_old = heard.server.is_some_and(|asked| server < asked - SLACK);
        let before = if is_new { past } else { self.known.get(&query).copied() };
        if is_old || before.is_some_and(|known| !is_new && server <= known.server) {
            // It comes from a cache, and says nothing new. A gap in what was seen is not closed by it.
            let known = self.known.get(&query).filter(|known| !known.is_over(at));
            return known.copied().ok_or((Blind::Stale, "its answer comes from a cache".to_owned()));
        }
        self.gone.remove(&query);
        let mut known = before.unwrap_or_else(|| Known::begun(value, server, at));
        known.see(value, server, at);
        known.watermark = heard.watermark;
        self.known.insert(query, known);
        Ok(known)
    }
}

impl Known {
    fn begun(value: f64, server: f64, at: Timestamp) -> Self {
        Self { since: at, used: None, value, server, looked: at, watermark: Timestamp::MIN }
    }

    /// Any change is use: a counter that fell began anew, and what it had counted before that was not seen.
    fn see(&mut self, value: f64, server: f64, at: Timestamp) {
        if self.value.to_bits() != value.to_bits() {
            self.used = Some(at);
        }
        (self.value, self.server, self.looked) = (value, server, at);
    }

    /// Whether it was not looked at for so long that anything may have happened meanwhile.
    fn is_over(&self, now: Timestamp) -> bool {
        now.duration_since(self.looked).unsigned_abs() > BLINK
    }

    fn sample(&self) -> AppSample {
        let last_seen = self.used.map_or(self.since, |used| used.max(self.since));
        AppSample { activity: Activity::seen(last_seen, self.watermark), matched: 1 }
    }
}

/// What was asked for an app, and what is wrong with the answer.
pub(super) fn asked(query: &str, said: &str) -> String {
    let colon = if said.is_empty() { "" } else { ": " };
    format!("kubenap/query `{query}`{colon}{said}")
}

fn in_part() -> Doubt {
    (Blind::Partial, "what was scraped is known in part only".to_owned())
}

fn too_late() -> Doubt {
    (Blind::SourceDown, format!("not answered within the {}s for all of them", DEADLINE.as_secs()))
}

/// The server's time of an answer, and its one value.
fn one_value(answer: Result<Answer, SourceError>) -> Result<(f64, f64), Doubt> {
    let answer = answer.map_err(|error| (Blind::SourceDown, error.to_string()))?;
    if answer.is_partial {
        return Err((Blind::Partial, "the answer is partial".to_owned()));
    }
    match answer.rows.as_slice() {
        [row] if row.last().value.is_finite() => Ok((row.last().at, row.last().value)),
        [row] => Err((Blind::NotMapped, format!("{} is no number that can be compared", row.last().value))),
        [] => Err((Blind::NoSeries, "no series; accepted: one".to_owned())),
        rows => {
            Err((Blind::NotMapped, format!("{} series; accepted: one, as sum(...) gives it", rows.len())))
        }
    }
}
