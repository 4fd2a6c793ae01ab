//! All objects, one growing version for the whole store, and the last changes for watches.
pub(crate) mod object;
mod announce;
mod index;
mod random;

use crate::clock::Clock;
use crate::net::addresses::Addresses;
use crate::settings::Settings;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

pub(crate) use announce::{Announce, Changes};
pub(crate) use random::{Random, spell};

/// What the cluster holds. Everything that writes goes through [`Store::put`] and [`Store::remove`].
#[derive(Debug)]
pub(crate) struct Store {
    objects: BTreeMap<Key, Arc<Value>>,
    index: index::Index,
    history: VecDeque<Change>,
    limit: usize,
    version: u64,
    compacted: u64,
    announce: Announce,
    pub(crate) clock: Clock,
    pub(crate) random: Random,
    pub(crate) addresses: Addresses,
}

/// Where an object is; the namespace is empty for what has none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) plural: &'static str,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Key {
    pub(crate) fn new(plural: &'static str, namespace: &str, name: &str) -> Self {
        Self { plural, namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// One write: before, after, and the version that it made.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) time: Timestamp,
    pub(crate) key: Key,
    pub(crate) before: Option<Arc<Value>>,
    pub(crate) after: Option<Arc<Value>>,
}

/// The version asked for is no longer in the history.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Compacted;

impl Store {
    pub(crate) fn new(settings: &Settings, clock: Clock, announce: Announce) -> Self {
        Self {
            objects: BTreeMap::new(),
            index: index::Index::default(),
            history: VecDeque::new(),
            limit: settings.history,
            version: 1,
            compacted: 1,
            announce,
            clock,
            random: Random::seeded(settings.seed),
            addresses: Addresses::new(settings.sockets),
        }
    }

    /// A store of its own for a dry run: it holds that object, its namespace, and nothing else.
    pub(crate) fn scratch(&self, key: &Key) -> Self {
        let kept = [key.clone(), Key::new("namespaces", "", &key.namespace)];
        let objects =
            kept.into_iter().filter_map(|key| Some((key.clone(), Arc::clone(self.objects.get(&key)?))));
        Self {
            objects: objects.collect(),
            index: index::Index::default(),
            history: VecDeque::new(),
            limit: 1,
            version: self.version,
            compacted: self.version,
            announce: Announce::default(),
            clock: self.clock,
            random: Random::seeded(self.version),
            addresses: Addresses::new(false),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The version from which on the history is whole.
    pub(crate) fn oldest(&self) -> u64 {
        self.compacted
    }

    pub(crate) fn at(&self, key: &Key) -> Option<&Arc<Value>> {
        self.objects.get(key)
    }

    pub(crate) fn find(&self, plural: &'static str, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        self.objects.get(&Key::new(plural, namespace, name))
    }

    /// All objects of a kind in one namespace, or in all of them, in the order of their names.
    pub(crate) fn all<'a>(
        &'a self,
        plural: &'static str,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Key, &'a Arc<Value>)> {
        let first = Key::new(plural, namespace.unwrap_or(""), "");
        self.objects.range(first..).take_while(move |(key, _)| {
            key.plural == plural && namespace.is_none_or(|wanted| key.namespace == wanted)
        })
    }

    /// Everything there is, of all kinds.
    pub(crate) fn everything(&self) -> impl Iterator<Item = (&Key, &Arc<Value>)> {
        self.objects.iter()
    }

    /// The objects of a kind that name this owner.
    pub(crate) fn owned(&self, plural: Option<&str>, uid: &str) -> Vec<(Key, Arc<Value>)> {
        self.looked_up(self.index.owned(uid).filter(|key| plural.is_none_or(|wanted| key.plural == wanted)))
    }

    /// The objects of a kind in a namespace that carry one label.
    pub(crate) fn labelled(
        &self,
        plural: &str,
        namespace: &str,
        label: &str,
        value: &str,
    ) -> Vec<(Key, Arc<Value>)> {
        self.looked_up(self.index.labelled(plural, namespace, label, value))
    }

    /// The Services whose selector may take in what carries one label.
    pub(crate) fn selecting(&self, namespace: &str, label: &str, value: &str) -> Vec<(Key, Arc<Value>)> {
        self.looked_up(self.index.selecting(namespace, label, value))
    }

    fn looked_up<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<(Key, Arc<Value>)> {
        keys.filter_map(|key| Some((key.clone(), Arc::clone(self.objects.get(key)?)))).collect()
    }

    /// Stores an object and gives it the next version; one that is equal already stays as it is.
    pub(crate) fn put(&mut self, key: Key, mut object: Value) -> Arc<Value> {
        let before = self.objects.get(&key).cloned();
        if let Some(before) = &before {
            object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if **before == object {
                return Arc::clone(before);
            }
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        let after = Arc::new(object);
        self.index.replace(&key, before.as_deref(), Some(&after));
        self.objects.insert(key.clone(), Arc::clone(&after));
        let time = self.clock.now();
        self.record(Change { version: self.version, time, key, before, after: Some(Arc::clone(&after)) });
        after
    }

    /// Takes an object out; what is returned is its last state with the version of its end.
    pub(crate) fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?;
        self.version += 1;
        self.index.replace(key, Some(&before), None);
        let last = Arc::new(object::at_version(&before, self.version));
        let (version, time) = (self.version, self.clock.now());
        self.record(Change { version, time, key: key.clone(), before: Some(before), after: None });
        Some(last)
    }

    fn record(&mut self, change: Change) {
        self.history.push_back(change);
        while self.history.len() > self.limit {
            if let Some(gone) = self.history.pop_front() {
                self.compacted = gone.version;
            }
        }
        self.announce.send(self.version);
    }

    /// Forgets all history, as a compaction of the real store does.
    pub(crate) fn compact(&mut self) {
        self.history.clear();
        self.compacted = self.version;
    }

    /// The changes after a version, oldest first.
    pub(crate) fn since(&self, version: u64) -> Result<impl Iterator<Item = &Change>, Compacted> {
        if version < self.compacted {
            return Err(Compacted);
        }
        let first = self.history.partition_point(|change| change.version <= version);
        Ok(self.history.iter().skip(first))
    }

    /// The objects of a kind as they were at a version: the changes since then are taken back.
    pub(crate) fn snapshot(
        &self,
        plural: &'static str,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<BTreeMap<Key, Arc<Value>>, Compacted> {
        let mut then: BTreeMap<_, _> =
            self.all(plural, namespace).map(|(key, object)| (key.clone(), Arc::clone(object))).collect();
        let since: Vec<_> = self.since(version)?.collect();
        for change in since.into_iter().rev() {
            if change.key.plural != plural || namespace.is_some_and(|wanted| change.key.namespace != wanted) {
                continue;
            }
            match &change.before {
                Some(before) => then.insert(change.key.clone(), Arc::clone(before)),
                None => then.remove(&change.key),
            };
        }
        Ok(then)
    }
}
