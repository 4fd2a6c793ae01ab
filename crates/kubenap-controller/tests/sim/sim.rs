//! One run: a cluster, one app, members on lines that can go wrong, and everything noted down.
#![expect(clippy::unwrap_used, reason = "a run that cannot set its world up has failed")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kubenap_controller::activity::TrafficMetricsSource;
use kubenap_controller::clock::Clock;
use kubenap_controller::cluster::Cluster;
use kubenap_controller::nap::by_hand::{Progress, Want, bring};
use kubenap_controller::run::{Running, start_with};
use kubenap_core::app::AppId;
use kubenap_sandbox::Change;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::history::{Asked, History};
use crate::invariants::LAWS;
use crate::source::{Mood, Script, Truth};
use crate::visitor;
use crate::wire::{Blow, Log, Wire};
use crate::world::{Pace, SPACE, World};

/// The app of every run, and how many replicas it has at first.
pub(crate) const APP: &str = "web";
pub(crate) const COUNT: u32 = 2;

pub(crate) struct Sim {
    pub(crate) world: World,
    pub(crate) truth: Arc<Mutex<Truth>>,
    members: RefCell<BTreeMap<u8, Running>>,
    /// The line of each member's latest life; 0 is a person's.
    wires: RefCell<BTreeMap<u8, Wire>>,
    plan: RefCell<Option<Plan>>,
    log: Log,
    lives: RefCell<Vec<(Timestamp, String, bool)>>,
    changes: Arc<Mutex<Vec<Change>>>,
    requests: Arc<Mutex<Vec<Asked>>>,
    pub(crate) still: RefCell<Vec<(Timestamp, Timestamp)>>,
    pub(crate) undisturbed: RefCell<bool>,
    following: JoinHandle<()>,
}

/// Whose write suffers what: the `nth` of a member, counted from zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) member: u8,
    pub(crate) nth: u64,
    pub(crate) blow: Blow,
}

/// Leases, and what the cluster's own controllers keep for themselves, are no business of any invariant.
const JUDGED: [&str; 4] = ["deployments", "endpointslices", "pods", "services"];

impl Sim {
    /// A cluster with the app, ready, and no member yet.
    pub(crate) async fn new(annotations: &[(&str, &str)]) -> Self {
        let world = World::new(Pace::QUICK);
        let changes: Arc<Mutex<Vec<Change>>> = Arc::default();
        let (mut follow, noted) = (world.sandbox.follow(), Arc::clone(&changes));
        let following = tokio::spawn(async move {
            loop {
                let fresh = follow.next().await;
                let judged = fresh
                    .into_iter()
                    .filter(|change| change.namespace == SPACE && JUDGED.contains(&change.plural));
                noted.lock().unwrap().extend(judged);
            }
        });
        world.app(APP, COUNT, annotations).await;
        Self {
            world,
            truth: Arc::default(),
            members: RefCell::default(),
            wires: RefCell::default(),
            plan: RefCell::default(),
            log: Arc::default(),
            lives: RefCell::default(),
            changes,
            requests: Arc::default(),
            still: RefCell::default(),
            undisturbed: RefCell::new(false),
            following,
        }
    }

    /// Starts the `nth` member, whose clock is this far off.
    pub(crate) async fn join(&self, nth: u8, skew: SignedDuration) {
        let mut settings = self.world.settings(nth);
        settings.clock = Clock::starting_at(self.world.now() + skew);
        let begins = self.world.sandbox.settings().start;
        let script = Script { truth: Arc::clone(&self.truth), clock: self.world.clock, begins, skew };
        let source: Arc<dyn TrafficMetricsSource> = Arc::new(script);
        // A member that cannot start, since the API server is away or the member died of it, is started again.
        loop {
            self.lives.borrow_mut().push((self.world.now(), settings.identity.clone(), true));
            let wire = self.wire(nth);
            let started = start_with(wire.client(), settings.clone(), vec![Arc::clone(&source)]);
            if let Ok(Ok(running)) = tokio::time::timeout(Duration::from_secs(20), started).await {
                self.members.borrow_mut().insert(nth, running);
                return;
            }
            wire.cut.send_replace(true);
            self.lives.borrow_mut().push((self.world.now(), settings.identity.clone(), false));
            self.plan.take();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// A new line for a member, which suffers what is planned for it.
    fn wire(&self, nth: u8) -> Wire {
        let wire = Wire::new(
            &format!("m{nth}"),
            self.world.sandbox.router(),
            Arc::clone(&self.log),
            self.world.clock,
        );
        let planned = self.plan.borrow().filter(|plan| plan.member == nth);
        wire.arm(planned.map(|plan| (plan.nth, plan.blow)));
        self.wires.borrow_mut().insert(nth, wire.clone());
        wire
    }

    /// Ends it as SIGKILL does.
    pub(crate) fn crash(&self, nth: u8) {
        let running = self.members.borrow_mut().remove(&nth);
        if let Some(running) = running {
            self.lives.borrow_mut().push((self.world.now(), format!("m{nth}"), false));
            self.died(nth);
            running.crash();
        }
    }

    fn died(&self, nth: u8) {
        if let Some(wire) = self.wires.borrow().get(&nth) {
            wire.cut.send_replace(true);
        }
        self.plan.take();
    }

    /// Ends it as SIGTERM does.
    pub(crate) async fn leave(&self, nth: u8) {
        let (running, wire) =
            (self.members.borrow_mut().remove(&nth), self.wires.borrow().get(&nth).cloned());
        if let (Some(running), Some(wire)) = (running, wire) {
            // From here on it is the others' promise that somebody answers.
            self.lives.borrow_mut().push((self.world.now(), format!("m{nth}"), false));
            let mut dies = wire.cut.subscribe();
            tokio::select! {
                biased;
                () = running.leave() => {}
                _ = dies.wait_for(|cut| *cut) => {}
            }
            self.died(nth);
        }
    }

    pub(crate) fn living(&self) -> Vec<u8> {
        self.members.borrow().keys().copied().collect()
    }

    /// Cuts a member off from the API server, or connects it again.
    pub(crate) fn apart(&self, nth: u8, apart: bool) {
        if let Some(wire) = self.wires.borrow().get(&nth) {
            wire.apart.send_replace(apart);
        }
    }

    /// Every member counts its writes from here; one of them suffers what is planned.
    pub(crate) fn plan(&self, plan: Option<Plan>) {
        *self.plan.borrow_mut() = plan;
        for (nth, wire) in &*self.wires.borrow() {
            let planned = plan.filter(|plan| plan.member == *nth);
            wire.arm(planned.map(|plan| (plan.nth, plan.blow)));
        }
    }

    /// How many writes each member sent since then.
    pub(crate) fn writes(&self) -> BTreeMap<u8, u64> {
        self.wires.borrow().iter().map(|(nth, wire)| (*nth, wire.writes())).collect()
    }

    /// The members that live, and whose lines were cut by a blow.
    pub(crate) fn struck(&self) -> Vec<u8> {
        let wires = self.wires.borrow();
        self.living()
            .into_iter()
            .filter(|nth| wires.get(nth).is_some_and(|wire| *wire.cut.borrow()))
            .collect()
    }

    /// Waits until it holds, for so many seconds, looking four times a second; shows the world if it does not.
    pub(crate) async fn until(&self, what: &str, seconds: u64, holds: impl Fn() -> bool) {
        let end = self.world.elapsed() + Duration::from_secs(seconds);
        while !holds() {
            assert!(self.world.elapsed() < end, "not within {seconds} s: {what}\n{}", self.world.show());
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until the app sleeps, with this count remembered, and no pod is left.
    pub(crate) async fn asleep(&self, count: u64, seconds: u64) {
        let world = &self.world;
        let count = count.to_string();
        self.until(&format!("asleep with {count}"), seconds, || {
            world.phase(APP) == "asleep"
                && world.replicas(APP) == 0
                && world.note(APP, "restoreReplicas").as_deref() == Some(&*count)
                && world.pods(APP) == 0
        })
        .await;
    }

    /// Whether it runs so many pods and no living member stands in its way.
    pub(crate) fn is_awake(&self, count: u64) -> bool {
        let world = &self.world;
        let ready = || u64::from(world.ready_replicas(APP)) == count;
        let living: Vec<_> = self.living().iter().map(|nth| format!("m{nth}")).collect();
        world.replicas(APP) == count
            && ready()
            && !world.members_in(APP).iter().any(|member| living.contains(member))
    }

    /// Whether every living member, and nobody else, stands in.
    pub(crate) fn all_stand_in(&self) -> bool {
        let mut members = self.world.members_in(APP);
        members.sort();
        members == self.living().iter().map(|nth| format!("m{nth}")).collect::<Vec<_>>()
    }

    /// A client asks the app through its Service, and waits for the answer on its own.
    pub(crate) fn ask(&self) -> JoinHandle<u16> {
        let (clock, at) = (self.world.clock, self.world.cluster_ip(APP, 80));
        let requests = Arc::clone(&self.requests);
        let begun = clock.now();
        self.truth.lock().unwrap().visits.push(begun);
        let index = {
            let mut requests = requests.lock().unwrap();
            requests.push(Asked { begun, ended: None, status: 0 });
            requests.len() - 1
        };
        tokio::spawn(async move {
            let reply = visitor::get(at, "web.shop.example", "/").await;
            let ended = Some(clock.now());
            requests.lock().unwrap()[index] = Asked { begun, ended, status: reply.status };
            reply.status
        })
    }

    /// Somebody uses the app, in a way that only the source knows of.
    pub(crate) fn visit(&self) {
        self.truth.lock().unwrap().visits.push(self.world.now());
    }

    pub(crate) fn mood(&self, mood: Mood) {
        let mut truth = self.truth.lock().unwrap();
        truth.outages += u64::from(mood != Mood::Fine);
        truth.mood = mood;
    }

    /// `kubenap restore`, with a kubeconfig alone, by a person who tries again when it fails.
    pub(crate) async fn restore(&self) -> Progress {
        loop {
            let wire = self.wire(0);
            let (cluster, deadline) = (Cluster::new(wire.client()), Instant::now() + Duration::from_secs(60));
            let id = AppId::new(SPACE, APP);
            let mut dies = wire.cut.subscribe();
            let done = tokio::select! {
                biased;
                done = bring(&cluster, &id, Want::Restored, || self.world.now(), deadline) => done.ok(),
                _ = dies.wait_for(|cut| *cut) => None,
            };
            match done {
                Some(progress) => return progress,
                None => drop(self.plan.take()),
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    pub(crate) fn history(&self) -> History {
        let truth = self.truth.lock().unwrap();
        let begins = self.world.sandbox.settings().start;
        History {
            changes: self.changes.lock().unwrap().clone(),
            sent: self.log.lock().unwrap().clone(),
            lives: self.lives.borrow().clone(),
            told: truth.told.clone(),
            visits: std::iter::once(begins).chain(truth.visits.iter().copied()).collect(),
            requests: self.requests.lock().unwrap().clone(),
            idle_after: SignedDuration::from_secs(10),
            min_awake: SignedDuration::from_secs(5),
            undisturbed: *self.undisturbed.borrow(),
            still: self.still.borrow().clone(),
        }
    }

    /// Every write on the API with its answer, in an order and without the numbers that depend on who of several who
    /// act at the same moment is first: tokio picks that one by chance.
    pub(crate) fn history_text(&self) -> Vec<u8> {
        let log = self.log.lock().unwrap();
        let mut lines: Vec<_> = log
            .iter()
            .map(|sent| {
                let mut body = sent.body.clone();
                for field in [&["metadata", "resourceVersion"][..], &["preconditions"], &["endpoints"]] {
                    if let Some(value) = field.iter().try_fold(&mut body, |at, key| at.get_mut(*key)) {
                        *value = Value::Null;
                    }
                }
                // A port of the system's choice.
                let body =
                    if sent.plural == "leases" || sent.plural == "events" { Value::Null } else { body };
                format!(
                    "{} {} {} {} {} {body}\n",
                    sent.time, sent.member, sent.method, sent.name, sent.status
                )
            })
            .collect();
        lines.sort();
        lines.concat().into_bytes()
    }

    /// Panics with every invariant that the run broke; gives the number of changes that were judged.
    pub(crate) fn judge(&self) -> u64 {
        let history = self.history();
        for law in LAWS {
            let broken = (law.judge)(&history);
            assert!(
                broken.is_empty(),
                "{} ({}): {}\n{}",
                law.id,
                law.says,
                broken.join("; "),
                self.world.show()
            );
        }
        history.changes.len() as u64
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.following.abort();
        for nth in self.living() {
            self.crash(nth);
        }
    }
}
