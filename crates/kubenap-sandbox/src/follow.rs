//! Every change of the store, one after the other, for whoever wants to judge each of them.
use crate::Sandbox;
use crate::store;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// One write on the store, by a client or by the cluster's own life.
#[derive(Clone, Debug)]
pub struct Change {
    /// The version that it made.
    pub version: u64,
    /// When, on the sandbox's clock.
    pub time: Timestamp,
    /// Such as `deployments`.
    pub plural: &'static str,
    /// Empty for what has no namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// The object before it; none: it is new.
    pub before: Option<Arc<Value>>,
    /// The object after it; none: it is gone.
    pub after: Option<Arc<Value>>,
}

/// Reads along.
#[derive(Clone, Debug)]
pub struct Follow {
    sandbox: Sandbox,
    seen: u64,
}

impl Sandbox {
    /// Follows all changes from now on. A follower that is left behind by the history misses what is gone from it.
    pub fn follow(&self) -> Follow {
        Follow { sandbox: self.weak(), seen: self.store().version() }
    }

    /// How many events watches had to send so far, by resource such as `pods`.
    pub fn watch_events(&self) -> std::collections::BTreeMap<String, u64> {
        self.journal().events.clone()
    }
}

impl Follow {
    /// The changes since the last call, at once; none if there are none.
    pub fn take(&mut self) -> Vec<Change> {
        let store = self.sandbox.store();
        let from = self.seen.max(store.oldest());
        self.seen = store.version();
        store.since(from).map_or_else(|_| Vec::new(), |changes| changes.map(of).collect())
    }

    /// Waits until there is at least one.
    pub async fn next(&mut self) -> Vec<Change> {
        let mut changes = self.sandbox.changes();
        loop {
            changes.borrow_and_update();
            let found = self.take();
            if !found.is_empty() {
                return found;
            }
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

fn of(change: &store::Change) -> Change {
    let store::Change { version, time, key, before, after } = change.clone();
    Change { version, time, plural: key.plural, namespace: key.namespace, name: key.name, before, after }
}
