//! A very small Kubernetes in memory, for demos and tests, that knows none of its clients.
//!
//! Simulated, and checked against a real control plane by the contract tests: the API (get, list, watch, create,
//! update, patch, apply, delete, scale, selectors, pages, conflicts, 410) for the kinds in [`Sandbox::list`]'s
//! table; the life of Deployments, `ReplicaSets`, pods, `EndpointSlices`; garbage collection; and, with
//! [`Settings::sockets`], apps that listen, Services' addresses that forward and a toy ingress.
//!
//! Not simulated, and answered 501 where it could be asked for: strategic merge patches, dry runs, foreground and
//! orphaning deletion, `sendInitialEvents`, deletion of collections, other kinds, all of a log's parameters but
//! `container`, `follow`, `sinceTime` and `timestamps`. There is one node, everybody may
//! do everything, autoscalers do not scale, probes are not run, IPv6 is not given out. Unlike in a real cluster,
//! `EndpointSlices` may hold loopback addresses: the sandbox's whole network is one.
mod settings;
mod clock;
mod kinds;
mod typed;
mod defaults;
mod validate;
mod select;
mod store;
mod patch;
mod api;
mod faults;
mod journal;
mod follow;
mod life;
mod net;

pub use faults::{Effect, Fault, Faults};
pub use follow::{Change, Follow};
pub use journal::{RequestCounts, Write};
pub use net::ingress::Ingress;
pub use settings::Settings;

use api::{Printed, Scope, Who};
use axum::Router;
use clock::Clock;
use jiff::Timestamp;
use journal::Journal;
use serde_json::{Value, json};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use store::{Announce, Changes, Key, Store};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A cluster. Clones are the same cluster; it ends when the last of them, and of its routers, is dropped.
#[derive(Clone, Debug)]
pub struct Sandbox {
    shared: Arc<Shared>,
    _end: Arc<DropGuard>,
}

/// What the tasks of a sandbox have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    settings: Settings,
    clock: Clock,
    store: Mutex<Store>,
    journal: Mutex<Journal>,
    printed: Mutex<Printed>,
    faults: Faults,
    announce: Announce,
    stop: CancellationToken,
}

/// An object that the sandbox's owner wanted to store and that no API server would take.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox refuses the object: {0}")]
pub struct Refused(String);

impl Sandbox {
    /// Starts a cluster with one node and the usual namespaces. Must be called within a tokio runtime.
    pub fn start(settings: Settings) -> Self {
        let clock = Clock::starting_at(settings.start);
        let announce = Announce::default();
        let store = Mutex::new(Store::new(&settings, clock, announce.clone()));
        let stop = CancellationToken::new();
        let (journal, printed, faults) = (Mutex::default(), Mutex::default(), Faults::default());
        let shared = Arc::new(Shared {
            settings,
            clock,
            store,
            journal,
            printed,
            faults,
            announce,
            stop: stop.clone(),
        });
        let sandbox = Self { shared: Arc::clone(&shared), _end: Arc::new(stop.clone().drop_guard()) };
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            sandbox.shared.namespace(name);
        }
        let ready = json!([{ "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "" }]);
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": { "name": life::NODE },
            "status": { "conditions": ready, "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }] },
        });
        // Cannot be refused: it is the same object every time.
        drop(sandbox.put(node));
        if shared.settings.sockets {
            tokio::spawn(net::proxy::run(Arc::clone(&shared), stop.clone()));
        }
        tokio::spawn(life::live(shared, stop));
        sandbox
    }

    /// The Kubernetes API; a `kube::Client` takes it as its service once request bodies are mapped to axum's.
    pub fn router(&self) -> Router {
        api::router(self.clone())
    }

    /// Serves the API over plain HTTP and returns the address; port 0 takes any.
    /// An address that others can reach is refused: there is no authentication.
    pub async fn listen(&self, address: SocketAddr) -> io::Result<SocketAddr> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the sandbox only listens on loopback addresses",
            ));
        }
        let listener = tokio::net::TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let (router, stop) = (api::router(self.weak()), self.shared.stop.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = axum::serve(listener, router) => {}
            }
        });
        Ok(address)
    }

    /// Starts a toy ingress on a loopback address; port 0 takes any. It routes what Ingresses say to the
    /// ready endpoints, which without [`Settings::sockets`] are only those that somebody else listens on.
    pub async fn ingress(&self, address: SocketAddr) -> io::Result<Ingress> {
        Ingress::start(self, address).await
    }

    /// Creates or replaces an object as the cluster's administrator: the status counts too, and a missing
    /// namespace is made. What cannot be an object of its kind is refused.
    pub fn put(&self, object: Value) -> Result<Value, Refused> {
        let kind =
            kinds::named(object["apiVersion"].as_str().unwrap_or(""), object["kind"].as_str().unwrap_or(""))
                .ok_or_else(|| Refused("its kind is not served".to_owned()))?;
        let object = api::stored_event(kind, object);
        let name = object["metadata"]["name"].as_str().unwrap_or("").to_owned();
        let namespace =
            if kind.namespaced { object["metadata"]["namespace"].as_str().unwrap_or("default") } else { "" };
        if kind.namespaced {
            self.shared.namespace(namespace);
        }
        let who = Who { manager: "administrator", scope: Scope::Administrator, strict: false };
        let mut store = self.shared.store();
        let old = store.find(kind.plural, namespace, &name).cloned();
        let namespace = namespace.to_owned();
        let stored = match old {
            Some(old) => api::replace(&mut store, kind, &old, object, who),
            None => api::create(&mut store, kind, &namespace, object, who),
        };
        stored.map(|object| Value::clone(&object)).map_err(|error| Refused(error.message().to_owned()))
    }

    /// An object, by the plural (`deployments`) or the name (`Deployment`) of its kind.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = kinds::called(kind)?;
        let namespace = if kind.namespaced { namespace } else { "" };
        self.shared.store().find(kind.plural, namespace, name).map(|object| Value::clone(object))
    }

    /// All objects of a kind in a namespace, or everywhere, in the order of their names.
    /// Kinds: namespaces, nodes, configmaps, services, pods, events, deployments, replicasets, endpointslices, ingresses,
    /// ingressclasses, leases, horizontalpodautoscalers.
    pub fn list(&self, kind: &str, namespace: Option<&str>) -> Vec<Value> {
        let Some(kind) = kinds::called(kind) else { return Vec::new() };
        let store = self.shared.store();
        store.all(kind.plural, namespace).map(|(_, object)| Value::clone(object)).collect()
    }

    /// Deletes an object as a client's plain delete does; says whether it was there.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> bool {
        let Some(kind) = kinds::called(kind) else { return false };
        let mut store = self.shared.store();
        let key = Key::new(kind.plural, if kind.namespaced { namespace } else { "" }, name);
        let was_there = store.at(&key).is_some();
        api::end(&mut store, kind, &key, None);
        was_there
    }

    /// Changes an object in place as the administrator; says whether it was there and the change was possible.
    pub fn edit(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
        change: impl FnOnce(&mut Value),
    ) -> Result<(), Refused> {
        let kind = kinds::called(kind).ok_or_else(|| Refused("its kind is not served".to_owned()))?;
        let namespace = if kind.namespaced { namespace } else { "" };
        let mut store = self.shared.store();
        let old = store.find(kind.plural, namespace, name).cloned();
        let old = old.ok_or_else(|| Refused(format!("{} {namespace}/{name} is not there", kind.plural)))?;
        let mut new = Value::clone(&old);
        change(&mut new);
        let who = Who { manager: "administrator", scope: Scope::Administrator, strict: false };
        api::replace(&mut store, kind, &old, new, who)
            .map(drop)
            .map_err(|error| Refused(error.message().to_owned()))
    }

    /// Every write that clients asked for, oldest first; the sandbox's own life is not in it.
    pub fn log(&self) -> Vec<Write> {
        self.journal().writes.iter().cloned().collect()
    }

    /// A line that the containers of a pod print now, without its end.
    pub fn print(&self, namespace: &str, pod: &str, line: &str) -> Result<(), Refused> {
        let uid = self.uid_of(namespace, pod)?;
        self.printed().print(&uid, self.now(), line);
        Ok(())
    }

    /// Rotates a pod's log: what was printed so far is not read any more.
    pub fn rotate_log(&self, namespace: &str, pod: &str) -> Result<(), Refused> {
        let uid = self.uid_of(namespace, pod)?;
        self.printed().rotate(&uid);
        Ok(())
    }

    /// Ends every stream of a log.
    pub fn cut_logs(&self) {
        self.printed().cut();
    }

    fn uid_of(&self, namespace: &str, pod: &str) -> Result<String, Refused> {
        let found = self.get("pods", namespace, pod);
        let uid = found.and_then(|pod| pod["metadata"]["uid"].as_str().map(str::to_owned));
        uid.ok_or_else(|| Refused(format!("pods {namespace}/{pod} is not there")))
    }

    /// How many requests of each verb and resource came in.
    pub fn requests(&self) -> RequestCounts {
        self.journal().requests.clone()
    }

    /// What is to go wrong.
    pub fn faults(&self) -> &Faults {
        &self.shared.faults
    }

    /// Forgets the history: watches from versions before now are told 410.
    pub fn compact(&self) {
        self.shared.store().compact();
    }

    /// The sandbox's time.
    pub fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// How this sandbox was started.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.shared.store()
    }

    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        self.shared.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn printed(&self) -> MutexGuard<'_, Printed> {
        self.shared.printed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changes(&self) -> Changes {
        self.shared.changes()
    }

    /// The same cluster for a task of its own, which must not keep it from ending.
    pub(crate) fn weak(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), _end: Arc::new(CancellationToken::new().drop_guard()) }
    }
}

impl Shared {
    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn changes(&self) -> Changes {
        self.announce.subscribe()
    }

    /// Makes a namespace if there is none of the name.
    fn namespace(&self, name: &str) {
        let Some(kind) = kinds::called("Namespace") else { return };
        let mut store = self.store();
        if store.find(kind.plural, "", name).is_none() {
            let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
            let who = Who { manager: "administrator", scope: Scope::Administrator, strict: false };
            // Only a name that cannot be one is refused, and then so is the object that wants it.
            drop(api::create(&mut store, kind, "", object, who));
        }
    }
}
