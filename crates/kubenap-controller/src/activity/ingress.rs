//! The proxies' own metrics, scraped from its pods, with no Prometheus server in between.
//!
//! There is no history: knowledge begins with the first scrape, or, for an app that has no series, with the
//! start of the proxy's process. What was seen before a restart of KubeNap is kept, and believed as far as the counters
//! stand where they stood. An address that leads to another replica each time is safe but never quiet.
//!
//! Traffic that does not pass the proxy is not seen, nor is a request that is still open: proxies count at
//! the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::exposition::{Line, Reader};
use super::fetch::{Fetch, Question};
use super::keep::Keeper;
use super::ledger::{BLINK, Ledger, Look, Sight};
use super::preset::{DETAIL, OPEN, Preset, UNSURE};
use super::proxy_pods::proxy_pods;
use super::spec::{Kind, Setup, With, address};
use super::verdict::{FRESH, View, samples};
use super::{Ask, Endpoint, Samples, SourceError, TrafficMetricsSource};

/// `ingress`, `ingress=URL`, or with more settings in the config file.
pub(super) const KIND: Kind = Kind {
    name: "ingress",
    forms: "ingress, ingress=URL",
    short: |url| {
        let addresses = url.map(|url| address("ingress", Some(url))).transpose()?;
        let discover = addresses.is_none();
        Ok(Arc::new(IngressSetup { addresses: addresses.into_iter().collect(), discover }))
    },
    read: |fields| {
        let mut addresses = Vec::new();
        for url in fields.texts("urls") {
            match Endpoint::parse(&url) {
                Ok(endpoint) => addresses.push(endpoint),
                Err(why) => fields.mistake("urls", &format!("one is not understood: {why}")),
            }
        }
        let discover = fields.flag("discover") || addresses.is_empty();
        Arc::new(IngressSetup { addresses, discover })
    },
};

/// Where the ingress' metrics are.
#[derive(Clone, Debug)]
pub(super) struct IngressSetup {
    addresses: Vec<Endpoint>,
    /// Whether pods are looked for as well.
    discover: bool,
}

impl IngressSetup {
    /// Both together.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.addresses.extend(other.addresses.iter().cloned());
        self.discover |= other.discover;
        self
    }
}

impl Setup for IngressSetup {
    fn build(&self, name: String, with: &With<'_>) -> Result<Arc<dyn TrafficMetricsSource>, SourceError> {
        let addresses = self.addresses.clone();
        let source = if self.discover {
            IngressSource::discover(with.client.clone(), addresses)
        } else {
            IngressSource::at(addresses)
        };
        let source = source.named(name);
        Ok(Arc::new(match with.own {
            Some(own) => source.kept_in(with.client.clone(), own),
            None => source,
        }))
    }

    fn as_ingress(&self) -> Option<&IngressSetup> {
        Some(self)
    }
}

/// The metrics of the proxies' own pods.
#[derive(Debug)]
pub struct IngressSource {
    name: String,
    fixed: Vec<Endpoint>,
    client: Option<Discovery>,
    fetch: Fetch,
    ledgers: Mutex<BTreeMap<Preset, Ledger>>,
    keeper: Option<Keeper>,
}

/// The way to the pods of the cluster.
struct Discovery(kube::Client);

/// Something to scrape.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub(super) name: Arc<str>,
    pub(super) endpoint: Endpoint,
    /// What its labels say that it is.
    pub(super) preset: Option<Preset>,
    /// A pod that is ready must answer. One that is ending may.
    pub(super) must_answer: bool,
}

/// What one scrape gave.
struct Scrape {
    presets: BTreeSet<Preset>,
    counters: BTreeMap<Preset, BTreeMap<Arc<str>, f64>>,
    started: Option<Timestamp>,
    uptime: Option<SignedDuration>,
    /// The oldest of the moments at which its samples were taken, where they say so: somebody else has collected them.
    taken: Option<Timestamp>,
    entered: f64,
    spoiled: usize,
    /// Requests that have begun, by key, of presets that count those.
    begun: BTreeMap<(Preset, String), f64>,
    /// Those that have ended.
    ended: BTreeMap<(Preset, String), f64>,
}

const DEADLINE: Duration = Duration::from_secs(10);
/// Nothing of it is kept but the counters; Traefik with 10,000 services shows 13 MB.
const LARGEST: usize = 80 << 20;
const AT_ONCE: usize = 8;
const STARTED: &str = "process_start_time_seconds";
/// Envoy says how long it runs, and not since when.
const UPTIME: &str = "envoy_server_uptime";
const ENTERED: &str = "traefik_entrypoint_requests_total";

/// Every metric that is read. The others are skipped without being parsed.
static WANTED: LazyLock<Vec<&'static str>> = LazyLock::new(|| {
    let of = |preset: Preset| [Some(preset.metric()), Some(preset.presence()), preset.open(), preset.begun()];
    let presets = Preset::PROXIES.into_iter().flat_map(of).flatten();
    presets.chain([STARTED, UPTIME, ENTERED]).collect()
});

impl IngressSource {
    /// Scrapes these addresses, each of which is one proxy's `/metrics`.
    pub fn at(endpoints: Vec<Endpoint>) -> Self {
        Self {
            name: "ingress".to_owned(),
            fixed: endpoints,
            client: None,
            fetch: Fetch::new(),
            ledgers: Mutex::default(),
            keeper: None,
        }
    }

    /// Scrapes the pods of Traefik and ingress-nginx, found in all namespaces by their labels on each poll, and
    /// these addresses as well. Needs `list` on pods.
    pub fn discover(client: kube::Client, endpoints: Vec<Endpoint>) -> Self {
        Self { client: Some(Discovery(client)), ..Self::at(endpoints) }
    }

    /// The same source under another name.
    #[must_use]
    pub fn named(self, name: String) -> Self {
        Self { name, ..self }
    }

    /// The same source, which keeps what it knows in a namespace. Needs `get` and `patch` on [`KEPT_IN`](super::KEPT_IN) there.
    #[must_use]
    pub fn kept_in(self, client: kube::Client, namespace: &str) -> Self {
        let keeper = Keeper::new(client, namespace.to_owned(), self.name.clone());
        Self { keeper: Some(keeper), ..self }
    }

    async fn instances(&self) -> Result<Vec<Instance>, SourceError> {
        let mut instances: Vec<_> = self
            .fixed
            .iter()
            .map(|endpoint| Instance {
                name: Arc::from(endpoint.to_string()),
                endpoint: endpoint.clone(),
                preset: None,
                must_answer: true,
            })
            .collect();
        if let Some(Discovery(client)) = &self.client {
            instances.extend(proxy_pods(client).await?);
        }
        if instances.is_empty() { Err(SourceError::NoProxy) } else { Ok(instances) }
    }

    async fn scrape(&self, instance: &Instance) -> Result<Scrape, SourceError> {
        let mut scrape = Scrape {
            presets: BTreeSet::new(),
            counters: BTreeMap::new(),
            started: None,
            uptime: None,
            taken: None,
            entered: 0.0,
            spoiled: 0,
            begun: BTreeMap::new(),
            ended: BTreeMap::new(),
        };
        let mut reader = Reader::new(&WANTED, |line: &Line<'_>| scrape.take(line));
        let question = Question {
            endpoint: &instance.endpoint,
            path: "",
            post: None,
            headers: &[],
            accept: "text/plain;version=0.0.4",
            deadline: DEADLINE,
            limit: LARGEST,
        };
        self.fetch.stream(question, &[], |chunk| reader.feed(chunk)).await?;
        scrape.spoiled = reader.finish();
        scrape.compare();
        if scrape.presets.is_empty() {
            let why = "it has no metric of a known proxy; hint: switch the proxy's Prometheus metrics on";
            return Err(SourceError::NotUnderstood {
                at: instance.endpoint.to_string(),
                why: why.to_owned(),
            });
        }
        Ok(scrape)
    }
}

impl std::fmt::Debug for Discovery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Discovery")
    }
}

#[async_trait]
impl TrafficMetricsSource for IngressSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let begun = Instant::now();
        let mut ledgers = self.ledgers.lock().await;
        let instances = self.instances().await?;
        let scrapes: Vec<_> = futures::stream::iter(instances)
            .map(|instance| async move {
                let asked = moment(ask.now, begun);
                let scrape = self.scrape(&instance).await;
                (instance, asked, scrape)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let at = moment(ask.now, begun);

        let mut looks: BTreeMap<Preset, Look> = BTreeMap::new();
        let mut blind: BTreeMap<Preset, BTreeSet<Blind>> = BTreeMap::new();
        let mut entered = 0.0;
        let mut failure = None;
        for (instance, asked, scrape) in scrapes {
            match scrape {
                Ok(scrape) => {
                    entered += scrape.entered;
                    for preset in &scrape.presets {
                        if scrape.spoiled > 0 {
                            blind.entry(*preset).or_default().insert(Blind::Partial);
                        }
                        let counters = scrape.counters.get(preset).cloned().unwrap_or_default();
                        let taken = scrape.taken.map_or(asked, |taken| taken.min(asked));
                        let sight = Sight { scraped: taken, started: scrape.started_by(asked), counters };
                        looks.entry(*preset).or_default().live.insert(Arc::clone(&instance.name), sight);
                    }
                }
                Err(error) if instance.must_answer => {
                    tracing::debug!(instance = %instance.name, %error, "ingress cannot be scraped");
                    let kinds =
                        instance.preset.map_or_else(|| Preset::PROXIES.to_vec(), |preset| vec![preset]);
                    for preset in kinds {
                        looks.entry(preset).or_default().down.insert(Arc::clone(&instance.name));
                        blind.entry(preset).or_default().insert(Blind::SourceDown);
                    }
                    failure.get_or_insert(error);
                }
                Err(_) => {}
            }
        }
        if let Some(error) = failure
            && looks.values().all(|look| look.live.is_empty())
        {
            return Err(error);
        }
        let live: BTreeSet<_> =
            looks.iter().filter(|(_, look)| !look.live.is_empty()).map(|(preset, _)| *preset).collect();
        let dark = looks.keys().filter(|preset| !live.contains(preset)).copied().collect();
        for (preset, look) in looks {
            if live.contains(&preset) {
                let ledger = ledgers.entry(preset).or_insert_with(|| Ledger::since(beginning(&look, at)));
                ledger.observe(at, look, BLINK);
            }
        }
        if let Some(keeper) = &self.keeper {
            keeper.turn(&mut ledgers, at, || moment(ask.now, begun)).await;
        }
        let uncounted =
            entered > 0.0 && ledgers.get(&Preset::Traefik).is_some_and(|ledger| ledger.index().is_empty());
        let views = ledgers.iter().map(|(preset, ledger)| {
            let mut blind = blind.remove(preset).unwrap_or_default();
            if uncounted && *preset == Preset::Traefik {
                blind.insert(Blind::NotMapped);
            }
            (*preset, View { ledger, live: live.contains(preset), blind, fresh: FRESH })
        });
        Ok(samples(ask, &views.collect(), &dark))
    }
}

impl Scrape {
    fn started_by(&self, asked: Timestamp) -> Option<Timestamp> {
        let by_uptime = || self.uptime.and_then(|uptime| asked.checked_sub(uptime).ok());
        self.started.or_else(by_uptime).map(|from| from.min(asked))
    }

    /// What has begun and not ended is open.
    fn compare(&mut self) {
        for (of, begun) in std::mem::take(&mut self.begun) {
            let open = (begun - self.ended.get(&of).copied().unwrap_or(0.0)).max(0.0);
            let (preset, key) = of;
            self.counters.entry(preset).or_default().insert(Arc::from(format!("{key}{DETAIL}{OPEN}")), open);
        }
        self.ended.clear();
    }

    fn take(&mut self, line: &Line<'_>) {
        for preset in Preset::PROXIES {
            if line.name == preset.presence() {
                self.presets.insert(preset);
            }
            if preset.begun() == Some(line.name) {
                for key in preset.keys(|name| line.label(name)) {
                    *self.begun.entry((preset, key)).or_default() += line.value;
                }
            }
            let is_open = preset.open() == Some(line.name);
            if line.name != preset.metric() && !is_open {
                continue;
            }
            // What a sidecar or a gateway receives is counted by whoever sent it, too.
            if preset == Preset::Istio && !matches!(line.label("reporter"), "source" | "waypoint") {
                continue;
            }
            if preset.begun().is_some() {
                for key in preset.keys(|name| line.label(name)) {
                    *self.ended.entry((preset, key)).or_default() += line.value;
                }
            }
            let unsure = preset.is_unsure(|name| line.label(name)).then_some(UNSURE);
            let detail = if is_open { Some(OPEN) } else { unsure };
            let counters = self.counters.entry(preset).or_default();
            for key in preset.keys_of(detail, |name| line.label(name)) {
                *counters.entry(Arc::from(key)).or_default() += line.value;
            }
        }
        if let Some(at) = line.at {
            let at = Timestamp::from_millisecond(at).unwrap_or(Timestamp::MIN);
            self.taken = Some(self.taken.map_or(at, |taken| taken.min(at)));
        }
        if line.name == UPTIME && line.value.is_finite() {
            let uptime = SignedDuration::try_from_secs_f64(line.value).ok();
            self.uptime = uptime;
        }
        if (line.name == STARTED || line.name == Preset::HaProxy.presence()) && line.value.is_finite() {
            let since = SignedDuration::try_from_secs_f64(line.value).ok();
            self.started = since.and_then(|since| Timestamp::from_duration(since).ok());
        }
        // Traefik's own doors, and answers of no service, say nothing about its services.
        if line.name == ENTERED
            && !matches!(line.label("entrypoint"), "traefik" | "metrics")
            && line.label("code").starts_with('2')
        {
            self.entered += line.value;
        }
    }
}

/// Where knowledge begins at the first look: with the youngest process, for what it has no series of.
fn beginning(look: &Look, at: Timestamp) -> Timestamp {
    look.live.values().map(|sight| sight.started.unwrap_or(at)).max().unwrap_or(at)
}

fn moment(start: Timestamp, begun: Instant) -> Timestamp {
    let passed = SignedDuration::try_from(begun.elapsed()).unwrap_or(SignedDuration::MAX);
    start.checked_add(passed).unwrap_or(Timestamp::MAX)
}
