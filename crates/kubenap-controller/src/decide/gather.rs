//! Builds the core's facts about one app from the stores or a live reading, from memory and from who asked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::activity::Activity;
use kubenap_core::app::{AppId, AppName, key};
use kubenap_core::breaker::Barred;
use kubenap_core::decide::{Facts, Here, decide, trouble};
use kubenap_core::keep_awake::unwilling;
use kubenap_core::policy::{self, Reading};
use kubenap_core::seen::{DeploymentSeen, Peer, Phase, PortKey, Seen, WakePorts};
use kubenap_core::situation::{Situation, situation};
use kubenap_core::step;
use kubenap_core::why::Why;
use tokio::time::Instant;

use super::Context;
use super::hook;
use super::memory::Wake;
use super::patience;
use crate::cluster::around::Around;
use crate::cluster::watched::number;
use crate::cluster::{observe, ports};
use crate::telemetry::{WakeClock, WakePart};
use crate::wake::DoorKey;

/// Everything that facts borrow from.
#[derive(Clone, Debug)]
pub struct Gathered {
    /// The app.
    pub app: AppId,
    /// The objects around it.
    pub around: Around,
    /// What its annotations ask for.
    pub reading: Reading,
    /// What the cluster says.
    pub seen: Seen,
    /// What the traffic says.
    pub activity: Activity,
    here: Here,
    now: Timestamp,
    asked: bool,
    in_phase: Duration,
    waiting: Duration,
    substituted_for: Duration,
    told_for: Duration,
    path_proved: bool,
    wake_address_answers: bool,
    may_arm: bool,
    ports: Option<WakePorts>,
    barred: Option<Barred>,
    push: bool,
    reverter: Option<String>,
}

impl Gathered {
    /// The facts.
    pub fn facts<'a>(&'a self, cx: &Context) -> Facts<'a> {
        Facts {
            now: self.now,
            app: &self.app,
            reading: &self.reading,
            opted_in: self.opted_in(),
            seen: &self.seen,
            activity: &self.activity,
            here: &self.here,
            asked: self.asked,
            in_phase: self.in_phase,
            waiting: self.waiting,
            substituted_for: self.substituted_for,
            told_for: self.told_for,
            path_proved: self.path_proved,
            wake_address_answers: self.wake_address_answers,
            may_arm: self.may_arm,
            ports: self.ports.clone(),
            barred: self.barred.clone(),
            push: self.push,
            reverter: self.reverter.clone(),
            timing: cx.settings.timing,
        }
    }

    /// Which state it is in.
    pub fn situation(&self) -> Situation {
        situation(&self.app.name, &self.reading.policy, &self.seen)
    }

    /// A request needs it.
    pub fn is_asked(&self) -> bool {
        self.asked
    }

    /// The label is there.
    pub fn opted_in(&self) -> bool {
        policy::opted_in(&self.around.deployment.labels)
    }

    /// The time of this reading.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// It listens on all its wake ports here.
    pub fn set_listening(&mut self, listening: bool) {
        self.here.listening = listening;
    }

    /// A wake failed, and no other is tried yet.
    pub fn barred(&self) -> Option<&Barred> {
        self.barred.as_ref()
    }

    /// Takes over who scaled it up while it slept.
    pub fn set_reverter(&mut self, manager: Option<String>) {
        self.reverter = manager;
    }

    /// Takes over what a live reading knows of autoscalers.
    pub fn set_scaler(&mut self, scaler: Option<kubenap_core::seen::Scaler>) {
        self.seen.scaler = scaler;
    }
}

/// Gathers an app with its peers, and keeps memory in line with what is seen.
pub fn gather(cx: &Context, around: &Around) -> Gathered {
    let mut gathered = alone(cx, around);
    let peers = observe::peers_of(around, &gathered.reading.policy);
    gathered.seen.peers = peers.iter().filter_map(|id| peer(cx, around, id)).collect();
    remember(cx, &mut gathered);
    guard(cx, &mut gathered);
    // The pace, and which ports are free, are worked out only for a step that needs to know.
    if decide(&gathered.facts(cx)).step.takes_ports() {
        gathered.may_arm = may_arm(cx, gathered.reading.policy.query.is_some());
        // Nobody comes to a wake port where no slice says which.
        gathered.ports = if gathered.reading.policy.substitute {
            allot(cx, &gathered.around, &gathered.seen)
        } else {
            Some(WakePorts::default())
        };
    }
    gathered
}

fn peer(cx: &Context, around: &Around, id: &AppId) -> Option<Peer> {
    let deployment = Arc::clone(around.deployments.get(&id.name)?);
    let gathered = alone(cx, &Around { deployment, ..around.clone() });
    // At zero by its owner's will: it neither answers nor naps, and nothing waits for it.
    if gathered.situation() == Situation::OwnersZero {
        return None;
    }
    let facts = gathered.facts(cx);
    Some(Peer {
        id: id.clone(),
        phase: gathered.situation().phase(),
        willing: unwilling(&facts).is_none(),
        stamp: step::stamp(&facts),
    })
}

fn alone(cx: &Context, around: &Around) -> Gathered {
    let deployment = &around.deployment;
    let app = deployment.id.clone();
    let reading = observe::reading(deployment, &cx.defaults);
    let mut seen = observe::observe(around, &reading.policy, &cx.addresses);
    let DeploymentSeen { uid, generation, .. } = &seen.deployment;
    seen.remembered = cx.memories.with(&app, |memory| memory.remembered(uid, *generation).flatten());
    let substitute = reading.policy.substitute;
    if !substitute {
        hook::tell(cx, &app, &reading.policy, &mut seen);
    }
    let polled = cx.polled.borrow().clone();
    let activity = polled.activity(&app, reading.policy.metrics.as_deref(), reading.policy.query.is_some());
    Gathered {
        here: Here {
            name: cx.settings.identity.clone(),
            addresses: cx.addresses.clone(),
            leading: cx.lead.holds(),
            listening: true,
            living: cx.members.living(),
        },
        now: cx.settings.clock.now(),
        wake_address_answers: !substitute && cx.wake_address.answers(&app),
        app,
        around: around.clone(),
        reading,
        seen,
        activity,
        asked: false,
        in_phase: Duration::ZERO,
        waiting: Duration::ZERO,
        substituted_for: Duration::ZERO,
        told_for: Duration::ZERO,
        path_proved: false,
        may_arm: true,
        ports: Some(WakePorts::default()),
        barred: None,
        push: false,
        reverter: None,
    }
}

/// Brings memory in line with what is seen now, and takes from it what only time tells.
fn remember(cx: &Context, gathered: &mut Gathered) {
    let situation = gathered.situation();
    let phase = situation.phase();
    let epoch = gathered.seen.epoch(&gathered.app.name);
    let asks = cx.doors.asks(&gathered.app);
    let arrivals = arrivals(cx, gathered);
    let seen = &mut gathered.seen;
    let now = Instant::now();
    let deployment = seen.deployment.clone();
    cx.memories.with(&gathered.app, |memory| {
        if gathered.around.live {
            memory.newest = memory.newest.max(number(&deployment.resource_version));
        }
        if memory.phase.is_none_or(|(known, of, _)| (known, of) != (phase, epoch)) {
            memory.awoke = memory.phase.filter(|_| phase == Phase::Awake).map(|_| gathered.now);
            memory.phase = Some((phase, epoch, now));
            memory.asks_before = asks.total;
            memory.arrivals_before = arrivals;
            memory.substituted = None;
            if phase == Phase::Asleep {
                // The end of the wake before this sleep was not seen.
                memory.wake = None;
            }
        }
        gathered.in_phase = memory.phase.map_or(Duration::ZERO, |(_, _, since)| now - since);
        patience::doubt(memory, seen, cx.cluster.away().outage, now);
        if seen.trouble().is_some() {
            memory.troubled = Some(now);
        }
        // Few have any.
        let told = seen.told();
        if told == Default::default() {
            memory.proxy_told = None;
        } else if memory.proxy_told.as_ref().is_none_or(|known| known.0 != told) {
            memory.proxy_told = Some(Box::new((told, now)));
        }
        gathered.told_for = memory.proxy_told.as_ref().map_or(Duration::ZERO, |told| now - told.1);
        let troubled = memory.troubled.map_or(Duration::MAX, |last| now - last);
        gathered.waiting = gathered.in_phase.min(troubled);
        // Awake, an ask comes from a proxy that is behind: it is traffic like any other, and passed.
        let since_then = matches!(phase, Phase::Drowsy | Phase::Asleep) && asks.total > memory.asks_before;
        gathered.asked = asks.held > 0 || since_then;
        // A new app, or one that is newly opted in, was not idle before: sources that know no request of it yet
        // would date its quiet from the proxy's start.
        let opted_in = policy::opted_in(&gathered.around.deployment.labels);
        memory.opted_in = opted_in
            .then(|| memory.opted_in.unwrap_or(if cx.starting() { Timestamp::MIN } else { gathered.now }));
        // By the API server's clock, which may be ahead: it was there when it was seen first.
        let created = gathered.around.deployment.created.min(*memory.first.get_or_insert(gathered.now));
        let begins = [asks.last, memory.opted_in, Some(created)];
        let begin = begins.into_iter().flatten().max().unwrap_or(Timestamp::MIN);
        gathered.activity.last_seen = gathered.activity.last_seen.max(begin);
        gathered.path_proved = if gathered.reading.policy.substitute {
            arrivals > memory.arrivals_before
        } else {
            memory.phase.is_some_and(|(_, _, since)| cx.wake_address.answered_since(since))
        };
        if !matches!(situation, Situation::Asleep { .. } | Situation::Waking { .. }) {
            (memory.emptied, memory.confirmed, memory.connected) = (None, None, None);
        }
        match situation {
            Situation::Asleep { .. } => {
                let observed = deployment.observed_generation >= deployment.generation;
                let empty = observed && seen.pods.iter().all(|pod| pod.deleting);
                memory.emptied = empty.then_some(deployment.generation);
                (memory.confirmed, memory.connected) = (None, None);
                if gathered.asked {
                    memory.wake.get_or_insert_with(|| Box::new(WakeClock::start(now)));
                }
            }
            Situation::Waking { epoch, recorded } => {
                let record = &deployment.record;
                let wake = (epoch, record.since);
                // Asleep without pods, and exactly one write since: the wake itself.
                if memory.emptied.is_some_and(|asleep| asleep + 1 == deployment.generation) {
                    memory.confirmed = Some(wake);
                }
                // Whoever wrote that the wake is over had seen its pods; only slices are left over.
                let over = !recorded && record.phase == Some(Phase::Awake) && record.epoch == epoch;
                let known = |of: Option<Wake>| over || of == Some(wake);
                seen.pods_confirmed = known(memory.confirmed) && known(memory.connected);
                if let Some(clock) = &mut memory.wake {
                    clock.reach(how_far(&gathered.around), now, &cx.telemetry);
                }
            }
            Situation::Awake => {
                // Whoever wrote it may have a clock that is wrong: one that is behind would bring the next nap forward.
                let record = &mut seen.deployment.record;
                record.since = record.since.map(|since| memory.awoke.unwrap_or(since));
                if let Some(clock) = memory.wake.take() {
                    clock.finish(now, &cx.telemetry);
                }
            }
            Situation::Drowsy { .. } | Situation::OwnersZero => memory.wake = None,
        }
    });
    if phase == Phase::Drowsy {
        let enough = {
            let facts = gathered.facts(cx);
            step::stands_in(&facts)
        };
        gathered.substituted_for = cx.memories.with(&gathered.app, |memory| {
            if !enough {
                memory.substituted = None;
            } else if memory.substituted.is_none_or(|(of, _)| of != epoch) {
                memory.substituted = Some((epoch, now));
            }
            memory.substituted.map_or(Duration::ZERO, |(_, since)| now - since)
        });
    }
}

/// Keeps the breaker in line with how the wake gets on, and takes from it what may be tried now.
fn guard(cx: &Context, gathered: &mut Gathered) {
    let trouble = trouble(&gathered.facts(cx));
    let situation = gathered.situation();
    let now = gathered.now;
    let asks = cx.doors.asks(&gathered.app).total;
    (gathered.barred, gathered.push) = cx.memories.with(&gathered.app, |memory| {
        let mut push = false;
        match (situation, trouble) {
            // To look at the pods is a try, too: it costs nothing, and tells how long they have been failing.
            (Situation::Waking { .. }, Some(trouble)) if memory.breaker.barred(now).is_none() => {
                push = memory.breaker.is_half_open(now) && asks > memory.asks_then;
                memory.breaker.failed(trouble, None, now);
                memory.asks_then = asks;
            }
            (Situation::Awake | Situation::Drowsy { .. }, _) => memory.breaker.close(),
            (Situation::Waking { .. } | Situation::Asleep { .. } | Situation::OwnersZero, _) => {}
        }
        (memory.breaker.barred(now), push)
    });
}

/// Which part of a wake has ended last, by the pod that is ahead of the others.
fn how_far(around: &Around) -> WakePart {
    let own = observe::own_pods(around, &around.deployment).filter(|(_, pod)| !pod.seen.deleting);
    let parts = own.map(|(_, pod)| {
        if pod.seen.ready {
            WakePart::Ready
        } else if pod.running {
            WakePart::Start
        } else if pod.scheduled {
            WakePart::Schedule
        } else {
            WakePart::Scale
        }
    });
    parts.max().unwrap_or(WakePart::Scale)
}

/// Whether the pace of naps allows one more. Counted in the stores, which show this member's own writes at once. What `brings`
/// a query is drowsy for minutes: half of the places are left to the others, which take seconds.
fn may_arm(cx: &Context, brings: bool) -> bool {
    let spaces = cx.stores.deployments.all();
    let apps: Vec<_> = spaces.values().flat_map(|space| space.values()).collect();
    let limit = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    let pace = cx.settings.naps_per_minute.map_or((apps.len() / 50).max(1), limit);
    let places = (apps.len() / 100).max(5);
    let drowsy = || apps.iter().filter(|app| app.seen.record.phase == Some(Phase::Drowsy));
    let slow = || drowsy().filter(|app| observe::reading(app, &cx.defaults).policy.query.is_some());
    (pace == 0 || cx.memories.armed_lately() < pace)
        && drowsy().count() < places
        && (!brings || slow().count() < places.div_ceil(2))
}

/// How many connections arrived on the app's wake ports.
pub fn arrivals(cx: &Context, gathered: &Gathered) -> u64 {
    gathered.seen.deployment.record.wake_ports.0.values().map(|port| cx.doors.arrivals(*port)).sum()
}

fn allot(cx: &Context, around: &Around, seen: &Seen) -> Option<WakePorts> {
    let own = &around.deployment.id;
    let shares = |name: &str| {
        around.deployments.get(name).is_some_and(|other| {
            let services = seen.services.iter().filter_map(|service| around.services.get(&service.name));
            services.into_iter().any(|service| other.is_selected_by(&service.selector))
        })
    };
    let mut kept: BTreeMap<PortKey, u16> = seen
        .slices
        .iter()
        .flat_map(|slice| slice.ports.iter().map(move |port| (slice, port)))
        .filter_map(|(slice, port)| {
            let service = seen.services.iter().find(|service| service.name == slice.service)?;
            let number = service.ports.iter().find(|known| known.name == port.name)?.number;
            Some(((service.name.clone(), number), port.number))
        })
        .collect();
    let mut taken = BTreeSet::new();
    for other in cx.stores.deployments.all().values().flat_map(|space| space.values()) {
        let AppName { namespace, name } = &*other.id;
        let ports = &other.seen.record.wake_ports.0;
        let ours = *namespace == own.namespace && (*name == own.name || shares(name));
        if ours {
            kept.extend(ports.clone());
        } else {
            taken.extend(ports.values());
        }
    }
    kept.extend(around.deployment.seen.record.wake_ports.0.clone());
    // The last nap was abandoned: on some member these ports may be busy.
    let reason = around.deployment.annotations.get(key::REASON);
    if reason.is_some_and(|reason| reason.starts_with(Why::NapAbandoned.label())) {
        taken.extend(kept.values());
        kept.clear();
    }
    let open = cx.doors.open_ports();
    ports::allot(&seen.services, &kept, &taken, &cx.settings.wake_ports, |(service, number), port| {
        let key = DoorKey {
            namespace: own.namespace.as_str().into(),
            service: service.as_str().into(),
            port: *number,
        };
        open.get(&port).map_or_else(|| cx.doors.probe_port(port), |held| *held == key)
    })
}
