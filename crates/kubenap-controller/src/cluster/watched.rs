//! One kind of object, watched: a store of slim forms that says what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::ops::ControlFlow;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt as _;
use kube::Api;
use kube::core::Status;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use super::slim::Slim;
use super::space::Space;
use super::thin::Thin;

/// Namespace and name.
pub type Key = (String, String);
/// The same, in memory that is the store's own.
type Shared = (Arc<str>, Arc<str>);
/// Every namespace with its objects.
pub type Spaces<T> = BTreeMap<Arc<str>, Arc<Space<T>>>;

/// The objects of one kind that are known now.
#[derive(Debug)]
pub struct Watched<T> {
    spaces: Arc<RwLock<Spaces<T>>>,
    synced: watch::Sender<usize>,
    /// Grows with every change of what is known.
    changes: watch::Sender<u64>,
    /// When a list was last wanted in place of what the watch has shown.
    anew: watch::Sender<Option<Instant>>,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self {
            spaces: Arc::clone(&self.spaces),
            synced: self.synced.clone(),
            changes: self.changes.clone(),
            anew: self.anew.clone(),
        }
    }
}

/// What is told of a change: the key, and the object before and after it.
pub type Changed<T> = Arc<dyn Fn(&Key, Option<&T>, Option<&T>) + Send + Sync>;

/// How it fares with a kind that is followed.
#[derive(Debug)]
pub enum Faring<'a> {
    /// A whole list is in.
    Listed,
    /// Something failed.
    Failed {
        /// How often in a row.
        failures: u32,
        /// What failed.
        error: &'a watcher::Error,
    },
}

/// How long a watch may be silent. Shorter than kube's default, which notices a dead one only after five minutes.
const WATCH_SECONDS: u32 = 40;
/// No list for doubt's sake sooner than this after the last.
const ANEW: Duration = Duration::from_secs(15);
/// A list this often all the same: a lost event of an object to which nothing happens would never be noticed.
const AT_LEAST: Duration = Duration::from_mins(10);
/// What failed longer ago has nothing to do with what fails now. Longer than the longest pause, and a call.
const LATELY: Duration = Duration::from_secs(30);
/// A list is asked for in pages; a page's text is all that is held of it at a time.
const PAGE: u32 = 100;

impl<T: Slim> Default for Watched<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Slim> Watched<T> {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self {
            spaces: Arc::default(),
            synced: watch::Sender::new(0),
            changes: watch::Sender::new(0),
            anew: watch::Sender::new(None),
        }
    }

    /// Follows `api` for ever. `namespace` is the one that it looks at, none: all. Several may feed one store, as long
    /// as their namespaces are apart.
    pub async fn follow(
        self,
        api: Api<Thin<T>>,
        namespace: Option<String>,
        labels: Option<String>,
        changed: Changed<T>,
    ) {
        let go_on = |_: Faring<'_>| ControlFlow::<Infallible>::Continue(());
        match self.follow_while(api, namespace, labels, changed, go_on).await {}
    }

    /// The same, until `heed`, which is told how it fares, has enough of it.
    pub async fn follow_while<B>(
        self,
        api: Api<Thin<T>>,
        namespace: Option<String>,
        labels: Option<String>,
        changed: Changed<T>,
        mut heed: impl FnMut(Faring<'_>) -> ControlFlow<B>,
    ) -> B {
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        if let Some(labels) = labels {
            config = config.labels(&labels);
        }
        let mut events = watcher::watcher(api.clone(), config.clone()).boxed();
        let mut anew = self.anew.subscribe();
        let mut due = Instant::now() + AT_LEAST;
        // What a list names is taken in at once; what it did not name is gone, but that is known only at its end.
        let mut listed = BTreeSet::new();
        let mut first = true;
        // kube's own backoff begins again with every list that is tried; this one only when something arrived.
        let mut failures = 0_u32;
        let mut failed = None;
        loop {
            let event = tokio::select! {
                biased;
                _ = anew.changed() => None,
                () = tokio::time::sleep_until(due) => None,
                event = events.next() => Some(event),
            };
            // A watcher's stream does not end.
            let Some(event) = event.flatten() else {
                events = watcher::watcher(api.clone(), config.clone()).boxed();
                due = Instant::now() + AT_LEAST;
                continue;
            };
            match event {
                Ok(Event::Init) => {
                    listed.clear();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    let (key, slim) = object.into_parts();
                    self.replace(&key, Some(&slim), &changed);
                    listed.extend(self.shared(&key));
                    // That a page came says nothing of the next one.
                    continue;
                }
                Ok(Event::InitDone) => {
                    let listed = std::mem::take(&mut listed);
                    for (space, name) in self.keys(namespace.as_deref()) {
                        if !listed.contains(&(Arc::clone(&space), Arc::clone(&name))) {
                            self.replace(&(space.to_string(), name.to_string()), None, &changed);
                        }
                    }
                    if std::mem::take(&mut first) {
                        self.synced.send_modify(|count| *count += 1);
                    }
                    if let ControlFlow::Break(why) = heed(Faring::Listed) {
                        return why;
                    }
                }
                Ok(Event::Apply(object)) => {
                    let (key, slim) = object.into_parts();
                    self.replace(&key, Some(&slim), &changed);
                }
                Ok(Event::Delete(object)) => {
                    let (key, _) = object.into_parts();
                    self.replace(&key, None, &changed);
                }
                Err(error) => {
                    // Nothing tells that a watch goes on but that it does not fail again.
                    let before = failed.replace(Instant::now());
                    failures = before.filter(|at| at.elapsed() < LATELY).map_or(1, |_| failures + 1);
                    let kind = api.resource_url();
                    // Once in a while is enough to know.
                    if failures.is_power_of_two() {
                        tracing::warn!(kind, failures, %error, "watch failed");
                    }
                    if let ControlFlow::Break(why) = heed(Faring::Failed { failures, error: &error }) {
                        return why;
                    }
                    tokio::time::sleep(Duration::from_millis(50 << failures.min(6))).await;
                    continue;
                }
            }
            failures = 0;
        }
    }

    /// Forgets the objects of one namespace, none: of all.
    pub fn forget(&self, namespace: Option<&str>) {
        let nobody: Changed<T> = Arc::new(|_, _, _| {});
        for (space, name) in self.keys(namespace) {
            self.replace(&(space.to_string(), name.to_string()), None, &nobody);
        }
    }

    /// Lists again, and goes on watching from there: what a watch shows may lack an event. Not while the last such list
    /// is only seconds old, however many ask for one.
    pub fn read_anew(&self) {
        self.anew.send_if_modified(|last| {
            let due = last.is_none_or(|at| at.elapsed() >= ANEW);
            if due {
                *last = Some(Instant::now());
            }
            due
        });
    }

    /// Waits until `followers` first lists are in.
    pub async fn synced(&self, followers: usize) {
        let mut count = self.synced.subscribe();
        // The sender lives as long as self.
        drop(count.wait_for(|count| *count >= followers).await);
    }

    /// Whether so many followers' first lists are in.
    pub fn is_synced(&self, followers: usize) -> bool {
        *self.synced.borrow() >= followers
    }

    /// One object.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.read().get(namespace)?.get(name).cloned()
    }

    /// The objects of one namespace, as they are now. Costs nothing; what changes later is not seen in it.
    pub fn within(&self, namespace: &str) -> Arc<Space<T>> {
        self.read().get(namespace).cloned().unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().values().map(|space| space.len()).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Every namespace with its objects.
    pub fn all(&self) -> Spaces<T> {
        self.read().clone()
    }

    /// A number that grows with every change.
    pub fn version(&self) -> u64 {
        *self.changes.borrow()
    }

    /// The keys of one namespace, none: of all, in the store's own memory.
    fn keys(&self, namespace: Option<&str>) -> Vec<Shared> {
        let spaces = self.read();
        let inside = spaces.iter().filter(|(space, _)| namespace.is_none_or(|wanted| wanted == &***space));
        inside
            .flat_map(|(space, objects)| objects.names().map(|name| (Arc::clone(space), Arc::clone(name))))
            .collect()
    }

    /// One key in the store's own memory, if it is known.
    fn shared(&self, (namespace, name): &Key) -> Option<Shared> {
        let spaces = self.read();
        let (space, objects) = spaces.get_key_value(namespace.as_str())?;
        Some((Arc::clone(space), Arc::clone(objects.name(name)?)))
    }

    /// Waits until the store shows what one of our own writes gave back, so that the next turn reads its own write.
    /// `version` none: until the object is gone. Gives up after `limit`: every write carries preconditions anyway.
    pub async fn caught_up(&self, key: &Key, version: Option<&str>, limit: Duration) {
        let mut changes = self.changes.subscribe();
        let there = || {
            let (namespace, name) = key;
            match (self.find(namespace, name), version) {
                (None, None) => true,
                (Some(object), Some(wanted)) => number(object.resource_version()) >= number(wanted),
                (Some(_), None) | (None, Some(_)) => false,
            }
        };
        // Running out of time is no error: see above. But a watch that does not show it may show nothing at all.
        if tokio::time::timeout(limit, changes.wait_for(|_| there())).await.is_err() {
            self.read_anew();
        }
    }

    fn replace(&self, key: &Key, new: Option<&Arc<T>>, changed: &Changed<T>) {
        let (namespace, name) = key;
        let old = {
            let mut spaces = self.spaces.write().unwrap_or_else(PoisonError::into_inner);
            let known = spaces.get_mut(namespace.as_str());
            match (new, known) {
                (Some(slim), Some(space)) => {
                    // A list says most of what is known once more: the same needs no other place.
                    let known = space.get(name).is_some_and(|old| {
                        old == slim || number(old.resource_version()) > number(slim.resource_version())
                    });
                    if known {
                        return;
                    }
                    Arc::make_mut(space).insert(name, Arc::clone(slim))
                }
                (Some(slim), None) => {
                    let mut space = Space::default();
                    space.insert(name, Arc::clone(slim));
                    spaces.insert(Arc::from(namespace.as_str()), Arc::new(space));
                    None
                }
                (None, Some(space)) => {
                    let old = Arc::make_mut(space).remove(name);
                    if space.is_empty() {
                        spaces.remove(namespace.as_str());
                    }
                    old
                }
                (None, None) => None,
            }
        };
        self.changes.send_modify(|count| *count += 1);
        if old.as_ref() != new {
            changed(key, old.as_deref(), new.map(|new| &**new));
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Spaces<T>> {
        self.spaces.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the API server said of it, if it did.
pub fn answer(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(answer))
        | watcher::Error::WatchStartFailed(kube::Error::Api(answer))
        | watcher::Error::WatchError(answer) => Some(answer),
        _ => None,
    }
}

/// Versions are numbers that grow: a promise of the API since Kubernetes 1.35, and true of etcd's before.
pub fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
