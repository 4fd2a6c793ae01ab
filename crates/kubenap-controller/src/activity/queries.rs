//! Queries of the apps' own: each is put to Prometheus as it is, and its one value is compared from poll to poll.
//!
//! Nobody knows which targets such a query rests on. A value that Prometheus shows is never older than two of its
//! scrapes, of a minute at most: so much the watermark is behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use tokio::time::Instant;
use tokio::time::error::Elapsed;

use super::ledger::{BLINK, Ledger, Look, Sight};
use super::prometheus::{Clocks, PrometheusSource};
use super::promql::{self, Answer};
use super::{AppSample, Ask, SourceError, Target, TrafficMetricsSource};

/// So many different queries are asked in one poll.
const MOST: usize = 50;
const AT_ONCE: usize = 8;
/// A query that takes longer is not answered; so all of them together stay within a poll.
const DEADLINE: Duration = Duration::from_secs(5);
/// How old a value may be.
const OLD: SignedDuration = SignedDuration::from_mins(2);
/// What the ledger calls the value, and the one instance of it.
const VALUE: &str = "value";

/// A blind spot, and what is told of it.
type Doubt = (Blind, String);

/// What is remembered of one query.
#[derive(Debug)]
pub(super) struct Remembered {
    ledger: Ledger,
    /// The newest of the server's times of evaluation: an answer that is no newer comes from a cache.
    newest: f64,
}

impl PrometheusSource {
    /// What is known of every app that brings a query, and what was asked for it.
    pub(super) async fn of_queries(
        &self,
        ask: &Ask,
        memory: &mut BTreeMap<String, Remembered>,
    ) -> Vec<(AppId, AppSample, String)> {
        let mut apps: BTreeMap<&str, Vec<&Target>> = BTreeMap::new();
        for target in ask.targets.iter() {
            if let Some(query) = &target.query {
                apps.entry(query).or_default().push(target);
            }
        }
        memory.retain(|query, _| apps.contains_key(query.as_str()));
        let begun = Instant::now();
        let most = if self.allows_query { MOST } else { 0 };
        let asked = apps.keys().take(most).map(|query| ((*query).to_owned(), memory.contains_key(*query)));
        let asked: Vec<(String, bool)> = asked.collect();
        let answers: Vec<_> = futures::stream::iter(asked)
            .map(|(query, known)| async move {
                let answer = one_value(tokio::time::timeout(DEADLINE, self.now(&query)).await);
                let past = match &answer {
                    Ok((server, _)) if !known => Some(self.history(&query, *server, ask).await),
                    _ => None,
                };
                (query, answer, past)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let elapsed = SignedDuration::try_from(begun.elapsed()).unwrap_or(SignedDuration::MAX);
        let at = ask.now.checked_add(elapsed).unwrap_or(Timestamp::MAX);
        let mut found = Vec::new();
        let mut tell = |query: &str, (sample, asked): (AppSample, String)| {
            let targets = apps.get(query).into_iter().flatten();
            found.extend(targets.map(|target| (target.app.clone(), sample.clone(), asked.clone())));
        };
        for (query, answer, past) in answers {
            if let Some(ledger) = past {
                memory.insert(query.clone(), Remembered { ledger, newest: f64::NEG_INFINITY });
            }
            let sample = match (answer, memory.get_mut(&query)) {
                (Ok((server, value)), Some(known)) => {
                    if server > known.newest {
                        known.newest = server;
                        known.ledger.observe(at, look(ask.now, value), BLINK);
                    }
                    sample(&query, &known.ledger)
                }
                (Ok(_), None) => unknown(&query, Blind::Starting, "it is asked for the first time"),
                (Err((why, said)), _) => unknown(&query, why, &said),
            };
            tell(&query, sample);
        }
        for query in apps.keys().skip(most) {
            let said = if self.allows_query {
                format!("there are more than {MOST} different ones")
            } else {
                let name = TrafficMetricsSource::name(self);
                format!(
                    "the source `{name}` does not allow it; hint: the administrator sets allowQuery: true"
                )
            };
            tell(query, unknown(query, Blind::NotMapped, &said));
        }
        found
    }

    /// The ledger as it would be if the query had been asked all the time.
    async fn history(&self, query: &str, server: f64, ask: &Ask) -> Ledger {
        let range = promql::Range::until(server, ask.history);
        let clocks = Clocks { server, ours: ask.now };
        let rows = match tokio::time::timeout(DEADLINE, self.over(query, &range)).await {
            Ok(Ok(Answer { rows, is_partial: false })) if rows.len() == 1 => rows,
            _ => return Ledger::since(ask.now),
        };
        let mut ledger: Option<Ledger> = None;
        for (server, points, _) in promql::steps(&rows, &[]) {
            let at = clocks.ours_of(server);
            for point in points {
                let ledger = ledger.get_or_insert_with(|| Ledger::since(at));
                ledger.observe(at, look(at, point.value), BLINK);
            }
        }
        ledger.unwrap_or_else(|| Ledger::since(ask.now))
    }
}

/// The one value of an answer, and the server's time.
fn one_value(answer: Result<Result<Answer, SourceError>, Elapsed>) -> Result<(f64, f64), Doubt> {
    match answer {
        Err(_) => Err((Blind::SourceDown, format!("no answer within {}s", DEADLINE.as_secs()))),
        Ok(Err(error)) => Err((Blind::SourceDown, error.to_string())),
        Ok(Ok(answer)) if answer.is_partial => Err((Blind::Partial, "the answer is partial".to_owned())),
        Ok(Ok(answer)) => match answer.rows.as_slice() {
            [row] => Ok((row.last().at, row.last().value)),
            [] => Err((Blind::NoSeries, "no series; accepted: one".to_owned())),
            rows => {
                Err((Blind::NotMapped, format!("{} series; accepted: one, as sum(...) gives it", rows.len())))
            }
        },
    }
}

fn unknown(query: &str, why: Blind, said: &str) -> (AppSample, String) {
    (AppSample { activity: Activity::blind(why), matched: 0 }, format!("kubenap/query `{query}`: {said}"))
}

fn look(asked: Timestamp, value: f64) -> Look {
    let scraped = asked.checked_sub(OLD).unwrap_or(Timestamp::MIN);
    let sight = Sight { scraped, started: None, counters: BTreeMap::from([(Arc::from(VALUE), value)]) };
    Look { live: BTreeMap::from([(Arc::from(VALUE), sight)]), ..Look::default() }
}

fn sample(query: &str, ledger: &Ledger) -> (AppSample, String) {
    let seen = ledger.changed(VALUE, true).unwrap_or(Timestamp::MIN);
    let watermark = ledger.watermark().unwrap_or(Timestamp::MIN);
    let activity = Activity::seen(seen.max(ledger.floor()), watermark);
    (AppSample { activity, matched: 1 }, format!("kubenap/query `{query}`"))
}
