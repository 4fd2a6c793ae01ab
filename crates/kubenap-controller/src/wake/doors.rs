//! The registry of doors: the rest of the controller tells it what each app is like, and hears who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kubenap_core::answer::OwnedManners;
use kubenap_core::app::AppId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::crowd::Crowd;
use super::door::{AppAsks, AskView, Behind, Door, DoorKey, DoorSpec, DoorState};
use super::hosts::{HostRule, HostTable, Place};
use super::limits::Limits;
use super::listen;
use super::redirect::Pacer;
use crate::clock::Clock;
use crate::telemetry::Telemetry;

/// All doors of this member. Cheap to clone; no call waits.
///
/// An open door needs a running tokio runtime, since [`Doors::open`] starts the tasks that accept connections.
#[derive(Clone)]
pub struct Doors {
    pub(crate) shared: Arc<Shared>,
}

/// What [`Doors`] needs from outside.
pub struct DoorsSettings {
    /// The addresses that wake ports are bound on: those that go into `EndpointSlice`s.
    pub advertise: Vec<IpAddr>,
    /// All bounds.
    pub limits: Limits,
    /// Who this member is.
    pub identity: String,
    /// Where the moments in [`AskView`] come from.
    pub clock: Clock,
    /// Where asks are counted.
    pub telemetry: Arc<Telemetry>,
    /// Called for each ask and each app behind its door, from any task and at any rate: it must not wait.
    pub on_ask: Arc<dyn Fn(&AppId) + Send + Sync>,
}

/// Why a wake port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody else, perhaps another program, listens there.
    #[error(
        "wake port {port} is busy on {address}; hint: another program listens on it, narrow --wake-ports"
    )]
    Busy {
        /// The port.
        port: u16,
        /// The address on which it is busy.
        address: IpAddr,
    },
    /// The port stands for another Service port already.
    #[error("wake port {port} is already the door of {held_by}")]
    Taken {
        /// The port.
        port: u16,
        /// Whose it is.
        held_by: DoorKey,
    },
    /// The system does not let us listen.
    #[error("cannot listen on {address} port {port}")]
    Listen {
        /// The port.
        port: u16,
        /// The address.
        address: IpAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// No address was given to listen on.
    #[error("no address to listen on; hint: give --advertise-address")]
    NoAddress,
    /// Called outside of a tokio runtime.
    #[error("no runtime to accept connections in")]
    NoRuntime,
    /// This member is leaving and takes no new connections.
    #[error("this member is leaving")]
    Leaving,
}

/// What every connection can reach.
pub(crate) struct Shared {
    pub(crate) advertise: Vec<IpAddr>,
    pub(crate) limits: Limits,
    pub(crate) identity: String,
    pub(crate) clock: Clock,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) on_ask: Arc<dyn Fn(&AppId) + Send + Sync>,
    pub(crate) crowd: Arc<Crowd>,
    /// Connections on the proxy listeners, by peer.
    pub(crate) strangers: Arc<Crowd<IpAddr>>,
    /// Bytes of all heads that are in memory.
    pub(crate) heads: AtomicUsize,
    pub(crate) pacer: Pacer,
    /// Connections and upgraded streams under way.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when held requests are to be answered because this member goes.
    pub(crate) leaving: CancellationToken,
    /// Cancelled when nothing more is accepted.
    pub(crate) closed: CancellationToken,
    /// Bytes of request bodies read ahead, over all requests.
    pub(crate) read_ahead: AtomicUsize,
    /// How many held requests were told to come again, to spread them.
    pub(crate) told_to_leave: AtomicUsize,
    registry: Mutex<Registry>,
}

#[derive(Default)]
struct Registry {
    doors: BTreeMap<DoorKey, Arc<Door>>,
    /// Doors that nobody came to yet, and whom they would be of: thousands of apps are awake and need none.
    declared: BTreeMap<DoorKey, (Arc<[AppId]>, Arc<OwnedManners>)>,
    ports: BTreeMap<u16, OpenPort>,
    arrivals: BTreeMap<u16, Arc<AtomicU64>>,
    asks: BTreeMap<AppId, Arc<AppAsks>>,
    hosts: Arc<HostTable>,
    hosts_known: bool,
    /// Those that were declared last.
    manners: Option<Arc<OwnedManners>>,
}

struct OpenPort {
    key: DoorKey,
    stop: CancellationToken,
    /// Cancelled when the port is wanted again before it closed.
    closing: Option<CancellationToken>,
}

impl Doors {
    /// No door yet.
    pub fn new(settings: DoorsSettings) -> Self {
        let DoorsSettings { advertise, limits, identity, clock, telemetry, on_ask } = settings;
        let shared = Shared {
            advertise,
            identity,
            clock,
            telemetry,
            on_ask,
            crowd: Crowd::new(limits.connections, limits.overflow),
            strangers: Crowd::new(limits.proxy_connections, limits.overflow),
            heads: AtomicUsize::new(0),
            pacer: Pacer::new(limits.paced),
            tasks: TaskTracker::new(),
            leaving: CancellationToken::new(),
            closed: CancellationToken::new(),
            read_ahead: AtomicUsize::new(0),
            told_to_leave: AtomicUsize::new(0),
            registry: Mutex::default(),
            limits,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Listens on `wake_port`, on every advertised address, for the door of `spec`. May be repeated: an open
    /// port takes over changed apps and manners, and a pending [`Doors::close`] is called off. On error
    /// nothing listens that did not listen before.
    pub fn open(&self, wake_port: u16, spec: DoorSpec) -> Result<(), OpenError> {
        let mut registry = self.shared.registry();
        if let Some(open) = registry.ports.get_mut(&wake_port) {
            if open.key != spec.key {
                return Err(OpenError::Taken { port: wake_port, held_by: open.key.clone() });
            }
            if let Some(closing) = open.closing.take() {
                closing.cancel();
            }
            registry.declare(spec, &self.shared.limits);
            return Ok(());
        }
        if self.shared.leaving.is_cancelled() {
            return Err(OpenError::Leaving);
        }
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| OpenError::NoRuntime)?;
        let listeners = listen::bind_all(&self.shared.advertise, wake_port)?;
        let key = spec.key.clone();
        let door = registry.declare(spec, &self.shared.limits);
        let arrivals = Arc::clone(registry.arrivals.entry(wake_port).or_default());
        let stop = self.shared.closed.child_token();
        for listener in listeners {
            let entrance = listen::Entrance {
                shared: Arc::clone(&self.shared),
                door: Arc::clone(&door),
                arrivals: Arc::clone(&arrivals),
                stop: stop.clone(),
            };
            self.shared.tasks.spawn_on(listen::accept(listener, entrance), &runtime);
        }
        registry.ports.insert(wake_port, OpenPort { key, stop, closing: None });
        Ok(())
    }

    /// Makes a door known that may have no wake port: one whose requests come on proxies' error paths only. It is
    /// made when the first of them comes. [`Doors::open`] does this as well. Gives the key as it is kept.
    pub fn declare(&self, spec: DoorSpec) -> DoorKey {
        let mut registry = self.shared.registry();
        if registry.doors.contains_key(&spec.key) {
            DoorKey::clone(&registry.declare(spec, &self.shared.limits).key)
        } else {
            registry.remember(spec)
        }
    }

    /// Whether there is a door: somebody came to it, or it was opened.
    pub fn is_made(&self, key: &DoorKey) -> bool {
        self.shared.registry().doors.contains_key(key)
    }

    /// The open ports that stand for this door.
    pub fn ports_of(&self, key: &DoorKey) -> Vec<u16> {
        let registry = self.shared.registry();
        registry.ports.iter().filter(|(_, open)| open.key == *key).map(|(port, _)| *port).collect()
    }

    /// Forgets a door that no open port stands for. Requests held there stay held.
    pub fn forget(&self, key: &DoorKey) {
        let mut registry = self.shared.registry();
        if registry.ports.values().all(|open| open.key != *key) {
            registry.doors.remove(key);
            registry.declared.remove(key);
            registry.forget_unused_asks();
        }
    }

    /// Whether `port` could be opened now on all addresses. Says no for a port that is open already.
    pub fn probe_port(&self, port: u16) -> bool {
        !self.shared.registry().ports.contains_key(&port)
            && listen::bind_all(&self.shared.advertise, port).is_ok()
    }

    /// The open ports, also those about to close, and what they stand for.
    pub fn open_ports(&self) -> BTreeMap<u16, DoorKey> {
        self.shared.registry().ports.iter().map(|(port, open)| (*port, open.key.clone())).collect()
    }

    /// Stops listening on `wake_port` once `after` is over, unless it is opened again before. Requests under
    /// way go on. The first call counts: a repeated one does not put the end off.
    pub fn close(&self, wake_port: u16, after: Duration) {
        let mut registry = self.shared.registry();
        let Some(open) = registry.ports.get_mut(&wake_port) else { return };
        if after.is_zero() {
            registry.shut(wake_port);
            return;
        }
        if open.closing.is_some() {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            registry.shut(wake_port);
            return;
        };
        let called_off = self.shared.closed.child_token();
        open.closing = Some(called_off.clone());
        let shared = Arc::downgrade(&self.shared);
        runtime.spawn(async move {
            if called_off.run_until_cancelled(tokio::time::sleep(after)).await.is_none() {
                return;
            }
            let Some(shared) = shared.upgrade() else { return };
            let mut registry = shared.registry();
            // Asked again under the lock: an open may have called it off in between.
            if !called_off.is_cancelled() {
                registry.shut(wake_port);
            }
        });
    }

    /// Says what requests at this door have to expect; wakes those that are held. Also before the door is
    /// opened.
    pub fn set_state(&self, key: &DoorKey, state: DoorState) {
        let door = self.shared.registry().door(key, &self.shared.limits);
        door.set_state(state);
    }

    /// Who asked for `app`, over all its doors.
    pub fn asks(&self, app: &AppId) -> AskView {
        self.shared.registry().asks.get(app).map(|asks| asks.view()).unwrap_or_default()
    }

    /// How many connections ever arrived on this wake port, also those that said nothing. A connection that
    /// sends nothing and goes is never an ask: with such ones the way through the cluster can be proved.
    pub fn arrivals(&self, port: u16) -> u64 {
        self.shared.registry().arrivals.get(&port).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// Which hosts and paths belong to which door, for requests on proxies' error paths. Replaces all rules
    /// at once. A rule that two doors claim answers 404 for both; a rule for a door that was neither opened
    /// nor declared answers 404, and so does what leads elsewhere, to no door, and is closer than a door's rule.
    pub fn set_hosts(&self, rules: Vec<HostRule>, elsewhere: Vec<Place>) {
        let table = HostTable::new(rules, elsewhere);
        let mut registry = self.shared.registry();
        if *registry.hosts != table {
            registry.hosts = Arc::new(table);
        }
        registry.hosts_known = true;
    }

    /// Whether some host and path leads to one of these doors; none: the rules were not told yet.
    pub fn is_on_a_route(&self, keys: &BTreeSet<DoorKey>) -> Option<bool> {
        let registry = self.shared.registry();
        let hosts = Arc::clone(&registry.hosts);
        registry.hosts_known.then(|| hosts.leads_to_any(keys))
    }
}

impl Shared {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn hosts(&self) -> Arc<HostTable> {
        Arc::clone(&self.registry().hosts)
    }

    /// A door that was opened or declared.
    pub(crate) fn door(&self, key: &DoorKey) -> Option<Arc<Door>> {
        let mut registry = self.registry();
        if let Some((apps, manners)) = registry.declared.remove(key) {
            let spec =
                DoorSpec { key: key.clone(), apps: apps.to_vec(), manners: OwnedManners::clone(&manners) };
            registry.declare(spec, &self.limits);
        }
        registry.doors.get(key).filter(|door| !door.behind().apps.is_empty()).cloned()
    }

    /// How many requests wait, over all apps.
    pub(crate) fn held(&self) -> usize {
        usize::try_from(self.telemetry.held_requests.get()).unwrap_or(0)
    }
}

impl Registry {
    fn door(&mut self, key: &DoorKey, limits: &Limits) -> Arc<Door> {
        let door = self.doors.entry(key.clone()).or_insert_with(|| Arc::new(Door::new(key.clone(), limits)));
        Arc::clone(door)
    }

    fn declare(&mut self, spec: DoorSpec, limits: &Limits) -> Arc<Door> {
        let DoorSpec { key, apps, manners } = spec;
        self.declared.remove(&key);
        let apps = apps
            .into_iter()
            .map(|app| {
                let asks = self.asks.entry(app.clone()).or_insert_with(|| Arc::new(AppAsks::new(app)));
                Arc::clone(asks)
            })
            .collect();
        let door = self.door(&key, limits);
        door.set_behind(Behind { manners: Arc::new(manners), apps });
        door
    }

    /// Keeps what a door would be like; its key. Manners that many have alike are kept once.
    fn remember(&mut self, spec: DoorSpec) -> DoorKey {
        let DoorSpec { key, apps, manners } = spec;
        if let Some((key, (known, like))) = self.declared.get_key_value(&key)
            && **known == *apps
            && **like == manners
        {
            return key.clone();
        }
        let alike = self.manners.as_ref().filter(|last| ***last == manners).cloned();
        let manners = alike.unwrap_or_else(|| Arc::new(manners));
        self.manners = Some(Arc::clone(&manners));
        self.declared.insert(key.clone(), (apps.into(), manners));
        key
    }

    fn shut(&mut self, wake_port: u16) {
        if let Some(open) = self.ports.remove(&wake_port) {
            open.stop.cancel();
        }
    }

    /// Counts of apps that no door leads to any more.
    fn forget_unused_asks(&mut self) {
        self.asks.retain(|_, asks| Arc::strong_count(asks) > 1);
    }
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors").field("ports", &self.open_ports()).finish_non_exhaustive()
    }
}

impl fmt::Debug for DoorsSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoorsSettings")
            .field("advertise", &self.advertise)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}
