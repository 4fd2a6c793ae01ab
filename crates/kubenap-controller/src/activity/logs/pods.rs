//! Access logs of containers, through the API server: followed while they grow, and read to their end when silent.
//!
//! A stream that says nothing may be a log that nobody writes into, or one that the kubelet has lost: so each poll reads
//! the logs that were silent once more from their last line on, to their end. What was had is recognised; where not even
//! the last line is there any more the log was rotated meanwhile, and knowledge begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::{AsyncReadExt as _, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;
use kube::{Api, Client, ResourceExt as _};
use kubenap_core::activity::Blind;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::LogsSetup;
use super::book::{Book, Log, PAST, Reading, Rules};
use super::line::Format;
use super::recent::Recent;
use super::split::Split;
use crate::activity::ledger::{BLINK, Look, Sight};
use crate::activity::preset::Preset;
use crate::activity::proxy_pods::list;
use crate::activity::verdict::{FRESH, View, samples};
use crate::activity::{Ask, Samples, SourceError, TrafficMetricsSource};

/// Which containers' logs are read.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub(super) labels: String,
    /// None: all namespaces.
    pub(super) namespace: Option<String>,
    /// None: the one that the pod says is its main one, or its first.
    pub(super) container: Option<String>,
}

/// Access logs of containers.
#[derive(Debug)]
pub(super) struct PodsSource {
    name: String,
    choice: Choice,
    format: Option<Format>,
    reach: Reach,
    streams: Mutex<BTreeMap<Arc<str>, AbortOnDropHandle<()>>>,
}

/// What every stream needs.
#[derive(Clone)]
struct Reach {
    client: Client,
    desk: Arc<Mutex<Desk>>,
}

/// The logs, and what they have said.
#[derive(Debug)]
struct Desk {
    /// When it was asked last, on the controller's clock and on the process's own.
    asked: (Timestamp, Instant),
    pods: BTreeMap<Arc<str>, PodLog>,
    book: Book,
}

#[derive(Debug)]
struct PodLog {
    log: Log,
    recent: Recent,
    /// Up to when it was read to its end; none: not yet.
    read: Option<Timestamp>,
    /// When the last line came from its stream.
    told: Option<Timestamp>,
    /// Whether its stream said anything since the last poll.
    spoke: bool,
    error: Option<String>,
    /// Whether its stream has come to its end: then all of it was read.
    ended: bool,
}

/// A container that runs.
#[derive(Clone, Debug)]
struct Place {
    key: Arc<str>,
    namespace: String,
    pod: String,
    container: String,
    started: Option<Timestamp>,
    /// Whether it is the first one of its pod: then nothing was written before it started.
    is_first: bool,
}

/// One connection to one log.
struct Connection {
    split: Split,
    /// Whether it goes on as long as the log grows.
    follows: bool,
    /// Whether the log is read for the first time: then lines count by their own times.
    first: bool,
    /// When the first line was written.
    begins: Option<Timestamp>,
    /// Whether a line that was had must come before any new one.
    expects: bool,
}

/// For the head of an answer, and for a whole log that is read to its end.
const DEADLINE: Duration = Duration::from_secs(20);
/// How long after the end of a stream it is opened again.
const PAUSE: Duration = Duration::from_secs(1);
const AT_ONCE: usize = 8;
const CHUNK: usize = 64 << 10;
/// A program that writes its first line this soon has written none before it.
const SOON: SignedDuration = SignedDuration::from_secs(30);

impl Choice {
    /// Pods with these labels; none where there are none, or they cannot be some.
    pub(super) fn of(labels: &str) -> Option<Self> {
        let good = |sign: char| sign.is_ascii_alphanumeric() || "-_./=!,() ".contains(sign);
        let labels = labels.trim();
        (!labels.is_empty() && labels.chars().all(good))
            .then(|| Self { labels: labels.to_owned(), ..Self::default() })
    }
}

impl PodsSource {
    pub(super) fn new(name: String, client: Client, choice: Choice, setup: &LogsSetup) -> Self {
        let book = Book::new(setup.service.clone());
        let desk = Desk { asked: (Timestamp::MIN, Instant::now()), pods: BTreeMap::new(), book };
        let reach = Reach { client, desk: Arc::new(Mutex::new(desk)) };
        Self { name, choice, format: setup.format, reach, streams: Mutex::default() }
    }

    async fn places(&self) -> Result<Vec<Place>, SourceError> {
        let api: Api<Pod> = match &self.choice.namespace {
            Some(namespace) => Api::namespaced(self.reach.client.clone(), namespace),
            None => Api::all(self.reach.client.clone()),
        };
        let pods = list(&api, &self.choice.labels).await?;
        let places: Vec<_> =
            pods.iter().filter_map(|pod| Place::of(pod, self.choice.container.as_deref())).collect();
        if places.is_empty() {
            return Err(SourceError::NoLogs { labels: self.choice.labels.clone() });
        }
        Ok(places)
    }

    /// Follows these logs, and no others.
    fn follow(&self, places: Vec<Place>) {
        let mut streams = self.streams.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        streams.retain(|key, _| places.iter().any(|place| place.key == *key));
        for place in places {
            let (key, reach) = (Arc::clone(&place.key), self.reach.clone());
            streams.entry(key).or_insert_with(|| {
                AbortOnDropHandle::new(tokio::spawn(async move {
                    loop {
                        // What it misses, the next poll reads.
                        if let Err(error) = reach.read(&place, true).await {
                            tracing::debug!(pod = place.pod, error, "the log's stream ended");
                        }
                        tokio::time::sleep(PAUSE).await;
                    }
                }))
            });
        }
    }
}

#[async_trait]
impl TrafficMetricsSource for PodsSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let places = self.places().await?;
        let silent = self.reach.lock().begin(ask, &places, self.format);
        futures::stream::iter(&places)
            .filter(|place| std::future::ready(silent.contains(&place.key)))
            .for_each_concurrent(AT_ONCE, |place| self.reach.catch_up(place))
            .await;
        self.follow(places);
        self.reach.lock().answer(ask)
    }
}

impl Reach {
    fn lock(&self) -> std::sync::MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Reads a log to its end.
    async fn catch_up(&self, place: &Place) {
        let begun = self.lock().now();
        let read = tokio::time::timeout(DEADLINE, self.read(place, false)).await;
        let read = read.unwrap_or_else(|_| Err(format!("it does not end within {} s", DEADLINE.as_secs())));
        let mut desk = self.lock();
        let Some(own) = desk.pods.get_mut(&place.key) else { return };
        match read {
            Ok(()) => (own.read, own.error) = (Some(begun), None),
            Err(error) => {
                own.error =
                    Some(format!("cannot read the log of {}/{}: {error}", place.namespace, place.pod));
            }
        }
    }

    /// Reads from the last line on: to the end of the log, or for as long as the stream lasts.
    async fn read(&self, place: &Place, follow: bool) -> Result<(), String> {
        let Some((mut connection, since)) = self.lock().connect(place, follow) else { return Ok(()) };
        let params = LogParams {
            container: Some(place.container.clone()),
            follow,
            timestamps: true,
            // A whole second already: the client rounds, and would round up.
            since_time: Some(since),
            ..LogParams::default()
        };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &place.namespace);
        let stream = tokio::time::timeout(DEADLINE, api.log_stream(&place.pod, &params)).await;
        let stream = stream.map_err(|_| "no answer".to_owned())?.map_err(|error| said(&error))?;
        let mut stream = std::pin::pin!(stream);
        let mut buffer = vec![0; CHUNK];
        loop {
            let count = stream.read(&mut buffer).await.map_err(|error| error.to_string())?;
            let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else { break };
            self.lock().feed(place, &mut connection, read);
        }
        self.lock().end(place, &connection);
        Ok(())
    }
}

impl Desk {
    fn now(&self) -> Timestamp {
        let (asked, then) = self.asked;
        let passed = SignedDuration::try_from(then.elapsed()).unwrap_or(SignedDuration::MAX);
        asked.checked_add(passed).unwrap_or(Timestamp::MAX)
    }

    /// A poll begins; the logs that have said nothing since the last one.
    fn begin(&mut self, ask: &Ask, places: &[Place], format: Option<Format>) -> BTreeSet<Arc<str>> {
        self.asked = (ask.now, Instant::now());
        self.book.rules = Rules::of(&ask.targets);
        let (stay, leave): (BTreeMap<_, _>, BTreeMap<_, _>) = std::mem::take(&mut self.pods)
            .into_iter()
            .partition(|(key, _)| places.iter().any(|place| place.key == *key));
        self.pods = stay;
        if leave.values().any(|own| !own.ended) {
            // What it wrote last is not known.
            self.book.ledger(ask.now).begin_again(ask.now);
        }
        for place in places {
            self.pods.entry(Arc::clone(&place.key)).or_insert_with(|| PodLog {
                log: Log::new(format),
                recent: Recent::default(),
                read: None,
                told: None,
                spoke: false,
                error: None,
                ended: false,
            });
        }
        let silent = |own: &PodLog| own.read.is_none() || own.error.is_some() || !own.spoke;
        let keys = self.pods.iter().filter(|(_, own)| silent(own)).map(|(key, _)| Arc::clone(key)).collect();
        self.pods.values_mut().for_each(|own| own.spoke = false);
        keys
    }

    /// A connection to the log, and from when on it is asked for. None: it is not read any more.
    fn connect(&mut self, place: &Place, follow: bool) -> Option<(Connection, Timestamp)> {
        let now = self.now();
        let own = self.pods.get_mut(&place.key)?;
        own.ended = false;
        let first = own.read.is_none() && !follow;
        let again = own.recent.again_from();
        let past = own.read.unwrap_or(now).checked_sub(PAST).unwrap_or(Timestamp::MIN);
        let since = again.or_else(|| Timestamp::from_second(past.as_second()).ok())?;
        let connection = Connection {
            split: Split::default(),
            follows: follow,
            first,
            begins: None,
            expects: again.is_some(),
        };
        Some((connection, since))
    }

    fn feed(&mut self, place: &Place, connection: &mut Connection, read: &[u8]) {
        let now = self.now();
        let Self { asked: _, pods, book } = self;
        let Some(own) = pods.get_mut(&place.key) else { return };
        let Connection { split, follows, first, begins, expects } = connection;
        let mut reading = Reading::at(now, *first);
        split.feed(read, &mut |text| {
            let Some((at, line)) = stamped(text) else {
                // The kubelet's own words, such as that it cannot watch the file.
                own.log.take(text, &mut reading, book);
                return;
            };
            if !own.recent.is_new(at, line) {
                *expects = false;
                return;
            }
            if std::mem::take(expects) {
                // Not even the last line is there any more.
                book.ledger(now).begin_again(now);
            }
            own.log.take(line, &mut reading, book);
            if *follows {
                (own.told, own.spoke) = (Some(now), true);
            }
        });
        own.log.end(&reading);
        *begins = begins.or(reading.begins);
    }

    fn end(&mut self, place: &Place, connection: &Connection) {
        let now = self.now();
        let &Connection { split: _, follows, first, begins, expects } = connection;
        if let Some(own) = self.pods.get_mut(&place.key) {
            own.ended = follows;
        }
        if expects && !follows {
            self.book.ledger(now).begin_again(now);
        }
        if first {
            let begins = begins.unwrap_or(now);
            let whole = |started: Timestamp| place.is_first && begins.duration_since(started) <= SOON;
            let since = now.checked_sub(PAST).unwrap_or(Timestamp::MIN);
            let ledger = self.book.ledger(now);
            if !place.started.is_some_and(whole) {
                // What was written before the log begins is not known.
                ledger.begin_again(begins.max(since));
            }
        }
    }

    fn answer(&mut self, ask: &Ask) -> Result<Samples, SourceError> {
        let all_fail = self.pods.values().all(|own| own.error.is_some());
        if let Some(why) = self.pods.values().find_map(|own| own.error.as_ref()).filter(|_| all_fail) {
            return Err(SourceError::PodLogs { why: why.clone() });
        }
        let mut look = Look::default();
        let mut blind = BTreeSet::new();
        for (key, own) in &self.pods {
            let Some(read) = own.read.filter(|_| own.error.is_none()) else {
                look.down.insert(Arc::clone(key));
                blind.insert(Blind::SourceDown);
                continue;
            };
            let scraped = own.told.map_or(read, |told| told.max(read)).min(ask.now);
            let scraped = own.log.has_all_until(scraped);
            let sight = Sight { scraped, started: None, counters: BTreeMap::new() };
            look.live.insert(Arc::clone(key), sight);
            blind.extend(own.log.blind());
        }
        let ledger = self.book.ledger(ask.now);
        ledger.observe(ask.now, look, BLINK);
        let view = View { ledger, live: true, blind, fresh: FRESH };
        Ok(samples(ask, &BTreeMap::from([(Preset::Logs, view)]), &BTreeSet::new()))
    }
}

impl Place {
    /// None: the container does not run.
    fn of(pod: &Pod, container: Option<&str>) -> Option<Self> {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let main = pod.annotations().get("kubectl.kubernetes.io/default-container").map(String::as_str);
        let first = || containers.map(|container| container.name.as_str()).next();
        let container = container.or(main).or_else(first)?;
        let status = pod.status.as_ref()?;
        let own = status.container_statuses.iter().flatten().find(|status| status.name == container)?;
        let running = own.state.as_ref()?.running.as_ref()?;
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        Some(Self {
            // The uid, because a StatefulSet's next pod has the same name.
            key: Arc::from(format!("{namespace}/{name} {}", pod.uid().unwrap_or_default())),
            namespace,
            pod: name,
            container: container.to_owned(),
            started: running.started_at.as_ref().map(|started| started.0),
            is_first: own.restart_count == 0,
        })
    }
}

impl std::fmt::Debug for Reach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reach").finish_non_exhaustive()
    }
}

/// When the runtime took the line from the container, and the line.
fn stamped(text: &[u8]) -> Option<(Timestamp, &[u8])> {
    let at = memchr::memchr(b' ', text)?;
    let (stamp, line) = text.split_at(at);
    let moment = std::str::from_utf8(stamp).ok()?.parse().ok()?;
    Some((moment, line.get(1..).unwrap_or_default()))
}

/// The API server's own words.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.chars().take(300).collect(),
        other => other.to_string(),
    }
}
