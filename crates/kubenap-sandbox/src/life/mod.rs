//! What goes on in a cluster by itself: each change leads to tasks, each task sets one object right.
mod deployments;
mod rollout;
mod replicasets;
mod pods;
mod slices;
mod gc;

pub(crate) use pods::NODE;
pub(crate) use slices::SERVICE;

use crate::Shared;
use crate::settings::Settings;
use crate::store::{Change, Key, Store, object};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Lives until told to stop.
pub(crate) async fn live(shared: Arc<Shared>, stop: CancellationToken) {
    let mut changes = shared.changes();
    let mut agenda = Agenda::default();
    loop {
        changes.borrow_and_update();
        let next = turn(&shared, &mut agenda);
        let alarm = async {
            match next {
                Some(moment) => sleep_until(moment).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = changes.changed() => {}
            () = alarm => {}
        }
    }
}

/// One thing to set right.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Task {
    Orphan(Key),
    Namespace(String),
    Deployment(String, String),
    ReplicaSet(String, String),
    Pod(String, String),
    Slices(String, String),
}

/// What is to be done, and when.
#[derive(Debug, Default)]
struct Agenda {
    seen: u64,
    due: BTreeMap<Task, Instant>,
    order: BTreeSet<(Instant, Task)>,
    runs: BTreeMap<String, pods::Run>,
}

/// All that a task may use.
struct Turn<'a> {
    store: &'a mut Store,
    settings: &'a Settings,
    agenda: &'a mut Agenda,
    now: Instant,
}

/// Does all that is due; returns when the next thing will be.
fn turn(shared: &Shared, agenda: &mut Agenda) -> Option<Instant> {
    let mut store = shared.store();
    let now = Instant::now();
    let mut turn = Turn { store: &mut store, settings: &shared.settings, agenda, now };
    loop {
        turn.absorb();
        match turn.agenda.order.first() {
            None => return None,
            Some((moment, _)) if *moment > now => return Some(*moment),
            Some(_) => {}
        }
        if let Some((_, task)) = turn.agenda.order.pop_first() {
            turn.agenda.due.remove(&task);
            turn.carry_out(task);
        }
    }
}

impl Turn<'_> {
    fn carry_out(&mut self, task: Task) {
        match task {
            Task::Orphan(key) => gc::orphan(self, &key),
            Task::Namespace(name) => gc::namespace(self, &name),
            Task::Deployment(namespace, name) => deployments::deployment(self, &namespace, &name),
            Task::ReplicaSet(namespace, name) => replicasets::replica_set(self, &namespace, &name),
            Task::Pod(namespace, name) => pods::pod(self, &namespace, &name),
            Task::Slices(namespace, name) => slices::slices(self, &namespace, &name),
        }
    }

    /// Puts a task on the agenda; an earlier time stays.
    fn plan(&mut self, task: Task, moment: Instant) {
        match self.agenda.due.get(&task) {
            Some(earlier) if *earlier <= moment => return,
            Some(later) => {
                self.agenda.order.remove(&(*later, task.clone()));
            }
            None => {}
        }
        self.agenda.due.insert(task.clone(), moment);
        self.agenda.order.insert((moment, task));
    }

    fn soon(&mut self, task: Task) {
        self.plan(task, self.now);
    }

    /// Turns what has changed since the last look into tasks.
    fn absorb(&mut self) {
        let changes: Vec<Change> = match self.store.since(self.agenda.seen) {
            Ok(changes) => changes.cloned().collect(),
            Err(_) => self.everything(),
        };
        self.agenda.seen = self.store.version();
        for change in changes {
            self.follow(&change);
        }
    }

    /// The history has been left behind: all objects count as new.
    fn everything(&self) -> Vec<Change> {
        self.store
            .everything()
            .map(|(key, object)| Change {
                version: 0,
                time: self.store.clock.now(),
                key: key.clone(),
                before: None,
                after: Some(Arc::clone(object)),
            })
            .collect()
    }

    fn follow(&mut self, change: &Change) {
        let Change { key, before, after, .. } = change;
        let Some(object) = after.as_ref().or(before.as_ref()) else { return };
        let here = || (key.namespace.clone(), key.name.clone());
        let late = self.now + self.settings.slice_delay;
        match key.plural {
            "namespaces" => self.soon(Task::Namespace(key.name.clone())),
            "deployments" => {
                let (namespace, name) = here();
                self.soon(Task::Deployment(namespace, name));
            }
            "replicasets" => {
                let (namespace, name) = here();
                self.soon(Task::ReplicaSet(namespace, name));
                self.controller_of(key, object);
            }
            "pods" => {
                match after {
                    Some(_) => {
                        let (namespace, name) = here();
                        self.soon(Task::Pod(namespace, name));
                    }
                    None => pods::gone(self, object),
                }
                self.controller_of(key, object);
                let states: Vec<&Value> = before.iter().chain(after).map(AsRef::as_ref).collect();
                for name in slices::services_of(self.store, &key.namespace, &states) {
                    self.plan(Task::Slices(key.namespace.clone(), name), late);
                }
            }
            "services" => {
                let (namespace, name) = here();
                self.plan(Task::Slices(namespace, name), late);
            }
            "endpointslices" => {
                if let Some(name) = object["metadata"]["labels"][slices::SERVICE].as_str() {
                    self.plan(Task::Slices(key.namespace.clone(), name.to_owned()), late);
                }
            }
            _ => {}
        }
        if before.is_none() && object::owners(object).next().is_some() {
            self.soon(Task::Orphan(key.clone()));
        }
        if after.is_none() {
            for (dependent, _) in self.store.owned(None, object::uid(object)) {
                self.soon(Task::Orphan(dependent));
            }
            self.soon(Task::Namespace(key.namespace.clone()));
        }
    }

    /// The owner that acts for an object looks at it.
    fn controller_of(&mut self, key: &Key, object: &Value) {
        let Some(owner) = object::controller(object) else { return };
        let name = owner["name"].as_str().unwrap_or("").to_owned();
        match owner["kind"].as_str() {
            Some("Deployment") => self.soon(Task::Deployment(key.namespace.clone(), name)),
            Some("ReplicaSet") => {
                // A Deployment that recreates waits for the end of pods, of which no count tells it.
                if let Some(set) = self.store.find("replicasets", &key.namespace, &name).cloned() {
                    let set_key = Key::new("replicasets", &key.namespace, &name);
                    self.controller_of(&set_key, &set);
                }
                self.soon(Task::ReplicaSet(key.namespace.clone(), name));
            }
            _ => {}
        }
    }
}
