//! One kind of object, watched: a store of slim forms that says what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::Instant;

use super::slim::Slim;

/// Namespace and name.
pub type Key = (String, String);

/// The objects of one kind that are known now.
#[derive(Debug)]
pub struct Watched<T> {
    objects: Arc<RwLock<BTreeMap<Key, Arc<T>>>>,
    synced: watch::Sender<usize>,
    changes: watch::Sender<()>,
    /// When a list was last wanted in place of what the watch has shown.
    anew: watch::Sender<Option<Instant>>,
}

impl<T> Clone for Watched<T> {
    fn clone(&self) -> Self {
        Self {
            objects: Arc::clone(&self.objects),
            synced: self.synced.clone(),
            changes: self.changes.clone(),
            anew: self.anew.clone(),
        }
    }
}

/// What is told of a change: the key, and the object before and after it.
pub type Changed<T> = Arc<dyn Fn(&Key, Option<&T>, Option<&T>) + Send + Sync>;

/// How long a watch may be silent. Shorter than kube's default, which notices a dead one only after five minutes.
const WATCH_SECONDS: u32 = 40;
/// No list for doubt's sake sooner than this after the last.
const ANEW: Duration = Duration::from_secs(15);
/// A list this often all the same: a lost event of an object to which nothing happens would never be noticed.
const AT_LEAST: Duration = Duration::from_mins(10);
/// A list is asked for in pages.
const PAGE: u32 = 500;

impl<T: Slim> Default for Watched<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Slim> Watched<T> {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self {
            objects: Arc::default(),
            synced: watch::Sender::new(0),
            changes: watch::Sender::new(()),
            anew: watch::Sender::new(None),
        }
    }

    /// Follows `api` for ever. Several may feed one store, as long as their objects are apart.
    pub async fn follow<K>(self, api: Api<K>, labels: Option<String>, changed: Changed<T>)
    where
        T: Slim<Object = K>,
        K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
        K::DynamicType: Default + Eq + Hash + Clone,
    {
        let mut config = watcher::Config::default().timeout(WATCH_SECONDS).page_size(PAGE);
        if let Some(labels) = labels {
            config = config.labels(&labels);
        }
        let mut events = watcher::watcher(api.clone(), config.clone()).boxed();
        let mut anew = self.anew.subscribe();
        let mut due = Instant::now() + AT_LEAST;
        // A relist is complete only at its end; what it did not name is gone then.
        let mut listed: Option<BTreeMap<Key, Arc<T>>> = None;
        let mut own = BTreeSet::<Key>::new();
        let mut first = true;
        // kube's own backoff begins again with every list that is tried; this one only when something arrived.
        let mut failures = 0_u32;
        loop {
            let event = tokio::select! {
                biased;
                _ = anew.changed() => None,
                () = tokio::time::sleep_until(due) => None,
                event = events.next() => Some(event),
            };
            let Some(event) = event else {
                events = watcher::watcher(api.clone(), config.clone()).boxed();
                due = Instant::now() + AT_LEAST;
                continue;
            };
            let Some(event) = event else { return };
            match event {
                Ok(Event::Init) => {
                    listed = Some(BTreeMap::new());
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    let (key, slim) = slimmed(object);
                    if let Some(listed) = &mut listed {
                        listed.insert(key, slim);
                    }
                }
                Ok(Event::InitDone) => {
                    let listed = listed.take().unwrap_or_default();
                    let gone: Vec<_> = own.iter().filter(|key| !listed.contains_key(*key)).cloned().collect();
                    for key in gone {
                        own.remove(&key);
                        self.replace(&key, None, &changed);
                    }
                    for (key, slim) in listed {
                        own.insert(key.clone());
                        self.replace(&key, Some(&slim), &changed);
                    }
                    if std::mem::take(&mut first) {
                        self.synced.send_modify(|count| *count += 1);
                    }
                }
                Ok(Event::Apply(object)) => {
                    let (key, slim) = slimmed(object);
                    own.insert(key.clone());
                    self.replace(&key, Some(&slim), &changed);
                }
                Ok(Event::Delete(object)) => {
                    let (key, _) = slimmed::<T, K>(object);
                    own.remove(&key);
                    self.replace(&key, None, &changed);
                }
                Err(error) => {
                    failures += 1;
                    let kind = K::kind(&K::DynamicType::default()).into_owned();
                    // Once in a while is enough to know.
                    if failures.is_power_of_two() {
                        tracing::warn!(kind, failures, %error, "watch failed");
                    }
                    tokio::time::sleep(Duration::from_millis(50 << failures.min(6))).await;
                    continue;
                }
            }
            failures = 0;
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

    /// One object.
    pub fn find(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        self.read().get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The objects of one namespace, by name.
    pub fn within(&self, namespace: &str) -> BTreeMap<String, Arc<T>> {
        let from = (namespace.to_owned(), String::new());
        let objects = self.read();
        let inside = objects.range(from..).take_while(|((space, _), _)| space == namespace);
        inside.map(|((_, name), object)| (name.clone(), Arc::clone(object))).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.read().is_empty()
    }

    /// Every object.
    pub fn all(&self) -> BTreeMap<Key, Arc<T>> {
        self.read().clone()
    }

    /// Waits until the store shows what one of our own writes gave back, so that the next turn reads its own write.
    /// `version` none: until the object is gone. Gives up after `limit`: every write carries preconditions anyway.
    pub async fn caught_up(&self, key: &Key, version: Option<&str>, limit: Duration) {
        let mut changes = self.changes.subscribe();
        let there = || {
            let objects = self.read();
            match (objects.get(key), version) {
                (None, None) => true,
                (Some(object), Some(wanted)) => number(object.resource_version()) >= number(wanted),
                (Some(_), None) | (None, Some(_)) => false,
            }
        };
        // Running out of time is no error: see above. But a watch that does not show it may show nothing at all.
        if tokio::time::timeout(limit, changes.wait_for(|()| there())).await.is_err() {
            self.read_anew();
        }
    }

    fn replace(&self, key: &Key, new: Option<&Arc<T>>, changed: &Changed<T>) {
        let old = {
            let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
            match new {
                Some(slim) => {
                    let stale = objects
                        .get(key)
                        .is_some_and(|old| number(old.resource_version()) > number(slim.resource_version()));
                    if stale {
                        return;
                    }
                    objects.insert(key.clone(), Arc::clone(slim))
                }
                None => objects.remove(key),
            }
        };
        self.changes.send_replace(());
        if old.as_ref() != new {
            changed(key, old.as_deref(), new.map(|new| &**new));
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<Key, Arc<T>>> {
        self.objects.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slimmed<T: Slim<Object = K>, K: Resource>(object: K) -> (Key, Arc<T>) {
    let key = (object.namespace().unwrap_or_default(), object.name_any());
    (key, Arc::new(T::of(object)))
}

/// Versions are numbers that grow: a promise of the API since Kubernetes 1.35, and true of etcd's before.
pub fn number(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}
