//! Datadog: requests by app and minute, and the minutes in which each instance of the proxy was heard of.
//!
//! Its agent sends how much a counter grew, so a bucket above zero is activity, dated by the bucket's end. The
//! watermark is where the newest bucket with a sign of life begins: by then everything before it has arrived. What was
//! asked within the last minute is not asked again, and the server's own limits are kept; until then the watermark
//! stands still.

mod api;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use http::header::DATE;
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::fetch::{Fetch, Post, Question};
use super::fields::Fields;
use super::ledger::{BLINK, Ledger, Look, Sight};
use super::preset::Preset;
use super::spec::{Kind, Setup, With};
use super::verdict::{View, samples};
use super::{Ask, Credentials, Endpoint, Samples, Secret, SourceError, SpecError, TrafficMetricsSource};

use api::{BUCKET, Queries, Series, Wrong};

/// `datadog`, or with more settings in the config file.
pub(super) const KIND: Kind = Kind {
    name: "datadog",
    forms: "datadog",
    short: |url| {
        let incomplete =
            |what: &str| SpecError::Incomplete { name: "datadog".to_owned(), what: what.to_owned() };
        if url.is_some() {
            return Err(incomplete("takes no address; accepted: datadog, with DD_SITE in the environment"));
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (Some(api), Some(app)) = (variable("DD_API_KEY"), variable("DD_APP_KEY")) else {
            return Err(incomplete("needs the environment variables DD_API_KEY and DD_APP_KEY"));
        };
        let site = variable("DD_SITE").unwrap_or_else(|| SITE.to_owned());
        let endpoint = of_site(&site).ok_or_else(|| {
            incomplete("has a site in DD_SITE that is no host; accepted: such as datadoghq.eu")
        })?;
        let credentials = keys(Secret::Text(api), Secret::Text(app));
        Ok(Arc::new(DatadogSetup { endpoint, credentials, ..DatadogSetup::default() }))
    },
    read,
};

/// All that a Datadog source is told.
#[derive(Clone, Debug)]
struct DatadogSetup {
    endpoint: Endpoint,
    credentials: Credentials,
    metric: String,
    scope: String,
    namespace_tag: String,
    service_tag: String,
    heartbeat: String,
    instance_tag: String,
    /// It is not asked more often.
    every: Duration,
}

const SITE: &str = "datadoghq.com";
/// Datadog's limits are by the hour.
const EVERY: Duration = Duration::from_secs(60);

impl Default for DatadogSetup {
    fn default() -> Self {
        Self {
            endpoint: Endpoint::default(),
            credentials: Credentials::default(),
            metric: "nginx_ingress.controller.requests".to_owned(),
            scope: "*".to_owned(),
            namespace_tag: "namespace".to_owned(),
            service_tag: "service".to_owned(),
            heartbeat: "nginx_ingress.controller.last.reload.success".to_owned(),
            instance_tag: "host".to_owned(),
            every: EVERY,
        }
    }
}

fn read(fields: &mut Fields) -> Arc<dyn Setup> {
    let usual = DatadogSetup::default();
    let site = fields.text("site");
    // For a proxy on the way to Datadog; the site is then its own.
    let url = fields.text("url");
    if site.is_some() && url.is_some() {
        fields.mistake("site", "stands beside url; accepted: one of them");
    }
    let endpoint = match &url {
        Some(url) => Endpoint::parse(url).ok(),
        None => of_site(site.as_deref().unwrap_or(SITE)),
    };
    if endpoint.is_none() {
        let name = if url.is_some() { "url" } else { "site" };
        fields.mistake(name, "is not understood; accepted: a site such as datadoghq.eu, or http://HOST:PORT");
    }
    let mut key = |name: &str| {
        let secret = fields.secret(name);
        if secret.is_none() {
            fields.mistake(name, &format!("is missing; accepted: {name}File or {name}Env"));
        }
        secret.unwrap_or(Secret::Text(String::new()))
    };
    let (api, app) = (key("apiKey"), key("appKey"));
    let ca_file = fields.text("caFile").map(Into::into);
    let mut text = |name: &str, usual: String| fields.text(name).unwrap_or(usual);
    let setup = DatadogSetup {
        endpoint: endpoint.unwrap_or_default(),
        credentials: Credentials { ca_file, ..keys(api, app) },
        metric: text("metric", usual.metric),
        scope: text("filter", usual.scope),
        namespace_tag: text("namespaceTag", usual.namespace_tag),
        service_tag: text("serviceTag", usual.service_tag),
        heartbeat: text("heartbeat", usual.heartbeat),
        instance_tag: text("instanceTag", usual.instance_tag),
        every: fields.duration("every", Duration::from_secs(1)).unwrap_or(usual.every),
    };
    Arc::new(setup)
}

fn of_site(site: &str) -> Option<Endpoint> {
    let good = |sign: char| sign.is_ascii_alphanumeric() || sign == '.' || sign == '-';
    if site.is_empty() || !site.chars().all(good) {
        return None;
    }
    Endpoint::parse(&format!("https://api.{site}")).ok()
}

fn keys(api: Secret, app: Secret) -> Credentials {
    let headers = [("DD-API-KEY".to_owned(), api), ("DD-APPLICATION-KEY".to_owned(), app)];
    Credentials { headers: headers.into(), ..Credentials::default() }
}

impl Setup for DatadogSetup {
    fn build(&self, name: String, _: &With<'_>) -> Result<Arc<dyn TrafficMetricsSource>, SourceError> {
        self.credentials.check()?;
        let fetch = Fetch::trusting(self.credentials.ca_file.as_deref())?;
        let tags = [self.namespace_tag.as_str(), self.service_tag.as_str()];
        let queries = Queries::new(&self.metric, &self.scope, tags, &self.heartbeat, &self.instance_tag);
        Ok(Arc::new(DatadogSource { name, setup: self.clone(), queries, fetch, memory: Mutex::default() }))
    }
}

/// Datadog's query API.
#[derive(Debug)]
struct DatadogSource {
    name: String,
    setup: DatadogSetup,
    queries: Queries,
    fetch: Fetch,
    memory: Mutex<Memory>,
}

#[derive(Debug, Default)]
struct Memory {
    ledger: Option<Ledger>,
    /// When it was asked last, on the controller's clock.
    asked: Option<Timestamp>,
    /// Until when the server wants to be left alone.
    quiet_until: Option<Instant>,
    /// How far the server's clock is ahead.
    ahead: SignedDuration,
    clock_off: bool,
}

const DEADLINE: Duration = Duration::from_secs(30);
const LARGEST: usize = 80 << 20;
/// Two buckets, the agent's interval, and the way to Datadog.
const FRESH: SignedDuration = SignedDuration::from_mins(6);
/// An instance that was not heard of for this long is gone.
const WINDOW: Duration = Duration::from_hours(1);

impl DatadogSource {
    async fn ask(
        &self,
        from: Timestamp,
        to: Timestamp,
        memory: &mut Memory,
        now: Timestamp,
    ) -> Result<api::Answer, SourceError> {
        let headers = self.setup.credentials.headers().await?;
        let body = self.queries.body(from.as_millisecond(), to.as_millisecond()).to_string();
        let question = Question {
            endpoint: &self.setup.endpoint,
            path: "/api/v2/query/timeseries",
            post: Some(Post { kind: "application/json", text: body }),
            headers: &headers,
            accept: "application/json",
            deadline: DEADLINE,
            limit: LARGEST,
        };
        let also = [400, 401, 403, 404, 422, 429, 500, 503]
            .map(|status| StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST));
        let (reply, body) = self.fetch.whole(question, &also).await?;
        let at = || self.setup.endpoint.to_string();
        let refused = reply.status == StatusCode::TOO_MANY_REQUESTS;
        if let Some(wait) = api::wait(&reply.headers, refused) {
            memory.quiet_until = Some(Instant::now() + wait);
            if refused {
                return Err(SourceError::Limited { at: at(), wait });
            }
        }
        if reply.status != StatusCode::OK {
            return Err(match api::refusal(&body) {
                Some(text) => SourceError::Api { at: at(), kind: reply.status.as_u16().to_string(), text },
                None => SourceError::Status { at: at(), status: reply.status.as_u16() },
            });
        }
        let date = reply.headers.get(DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| jiff::fmt::rfc2822::parse(date).ok());
        if let Some(date) = date {
            // The end of the second that it names: no age is then taken for less than it is.
            memory.ahead = date.timestamp().duration_since(now) + SignedDuration::from_secs(1);
        }
        api::decode(&body).map_err(|wrong| match wrong {
            Wrong::Odd(why) => SourceError::NotUnderstood { at: at(), why },
            Wrong::Server(text) => SourceError::Api { at: at(), kind: "error".to_owned(), text },
        })
    }

    /// What the answer says, taken into the ledger.
    fn learn(&self, answer: &api::Answer, memory: &mut Memory, from: Timestamp, ask: &Ask) {
        let ours = |millis: i64| {
            let at = Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MIN);
            at.checked_sub(memory.ahead).unwrap_or(Timestamp::MIN).min(ask.now)
        };
        let width = i64::try_from(BUCKET.as_millis()).unwrap_or(60_000);
        let latest = ask.now.checked_add(memory.ahead).unwrap_or(Timestamp::MAX).as_millisecond();
        memory.clock_off =
            answer.alive.iter().flat_map(|series| &series.points).any(|(at, _)| *at > latest + width);
        let mut look = Look::default();
        let mut holes = Timestamp::MIN;
        let mut earliest = None;
        for series in &answer.alive {
            let Some((newest, _)) = series.points.last() else { continue };
            let name: Arc<str> =
                Arc::from(series.tags.get(&self.setup.instance_tag).map_or("", String::as_str));
            let sight = Sight { scraped: ours(*newest), started: None, counters: BTreeMap::new() };
            look.live.insert(name, sight);
            let first = series.points.first().map(|(at, _)| ours(*at));
            earliest = [earliest, first].into_iter().flatten().min();
            // What an agent missed it never sends: its first look after that is a new beginning.
            let blink = i64::try_from(BLINK.as_millis()).unwrap_or(i64::MAX);
            for pair in series.points.windows(2) {
                let [(before, _), (after, _)] = pair else { continue };
                if after - before > width + blink {
                    holes = holes.max(ours(after + width));
                }
            }
        }
        let begins = earliest.unwrap_or(ask.now).max(from.checked_sub(memory.ahead).unwrap_or(from));
        let ledger = memory.ledger.get_or_insert_with(|| Ledger::since(begins));
        if !look.live.is_empty() {
            ledger.observe(ask.now, look, BLINK);
        }
        ledger.begin_again(holes);
        for series in &answer.requests {
            let key = key(series, &self.setup);
            ledger.meet(&key, ask.now);
            let used = series.points.iter().rev().find(|(_, value)| *value != 0.0);
            if let Some((at, _)) = used {
                ledger.mark(&key, ours(at + width));
            }
        }
    }
}

fn key(series: &Series, setup: &DatadogSetup) -> String {
    let label = |name: &str| {
        let tag = if name == "namespace" { &setup.namespace_tag } else { &setup.service_tag };
        series.tags.get(tag).map_or("", String::as_str)
    };
    Preset::Named.keys(label).concat()
}

#[async_trait]
impl TrafficMetricsSource for DatadogSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let mut memory = self.memory.lock().await;
        let every = SignedDuration::try_from(self.setup.every).unwrap_or(SignedDuration::MAX);
        let recent = memory.asked.is_some_and(|asked| ask.now.duration_since(asked).abs() < every);
        let limited = memory.quiet_until.and_then(|until| until.checked_duration_since(Instant::now()));
        let limited = limited.filter(|wait| !wait.is_zero());
        match limited {
            Some(wait) if memory.ledger.is_none() => {
                return Err(SourceError::Limited { at: self.setup.endpoint.to_string(), wait });
            }
            None if !recent || memory.ledger.is_none() => {
                let known = memory.asked.filter(|asked| {
                    memory.ledger.is_some() && ask.now.duration_since(*asked) < SignedDuration::from_mins(30)
                });
                // After a longer pause it begins anew, with all the history that it needs.
                let span = if known.is_some() {
                    WINDOW
                } else {
                    ask.history.clamp(WINDOW, super::prometheus::LONGEST)
                };
                if known.is_none() {
                    memory.ledger = None;
                }
                let to = ask.now.checked_add(memory.ahead).unwrap_or(ask.now);
                let from = to.checked_sub(span).unwrap_or(Timestamp::MIN);
                let answer = self.ask(from, to, &mut memory, ask.now).await?;
                if answer.alive.iter().all(|series| series.points.is_empty()) && memory.ledger.is_none() {
                    return Err(SourceError::NothingScraped { at: self.setup.endpoint.to_string() });
                }
                memory.asked = Some(ask.now);
                self.learn(&answer, &mut memory, from, ask);
            }
            // What is known stays known; the watermark stands still.
            Some(_) | None => {}
        }
        let Some(ledger) = &memory.ledger else {
            return Err(SourceError::NothingScraped { at: self.setup.endpoint.to_string() });
        };
        let mut blind = BTreeSet::new();
        if memory.clock_off {
            blind.insert(Blind::ClockOff);
        }
        let view = View { ledger, live: ledger.watermark().is_some(), blind, fresh: FRESH };
        Ok(samples(ask, &BTreeMap::from([(Preset::Named, view)]), &BTreeSet::new()))
    }
}
