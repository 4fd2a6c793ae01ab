//! A tiny world for one app's day: it carries out real writes, and asks `decide` what is next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::{AppId, key};
use kubenap_core::breaker::Breaker;
use kubenap_core::decide::{Decision, Facts, Here, Timing, decide};
use kubenap_core::policy::{Defaults, Reading, Texts, opted_in, read};
use kubenap_core::seen::{
    DeploymentSeen, EndpointSeen, Family, HookSeen, Phase, PieceId, Pieces, PodSeen, Record, Seen,
    ServicePort, ServiceSeen, Slice, WakePorts, counted, remembered,
};
use kubenap_core::situation::{Situation, situation};
use kubenap_core::step::{self, Step, slice_name, writes};
use kubenap_core::write::Write;

/// The member that is asked.
pub(crate) const HERE: &str = "kubenap-0";
/// The other member.
pub(crate) const OTHER: &str = "kubenap-1";

/// One app, and what is around it.
pub(crate) struct Day {
    /// Seconds since midnight.
    pub(crate) now: u64,
    pub(crate) app: AppId,
    pub(crate) labels: Texts,
    pub(crate) annotations: Texts,
    pub(crate) seen: Seen,
    pub(crate) last_seen: u64,
    /// How many seconds what sources know is behind.
    pub(crate) lag: u64,
    pub(crate) blind: BTreeSet<Blind>,
    pub(crate) here: Here,
    pub(crate) asked: bool,
    pub(crate) path_proved: bool,
    pub(crate) wake_address_answers: bool,
    pub(crate) breaker: Breaker,
    pub(crate) push: bool,
    /// The field manager that scaled it up while it slept.
    pub(crate) reverter: Option<String>,
    /// Its owner took away what could answer.
    pub(crate) owners: bool,
    /// What the proxy was told by KubeNap itself.
    pub(crate) proxy: BTreeSet<PieceId>,
    /// The copies of its annotations on its ReplicaSets, the current one last.
    pub(crate) copies: Vec<Texts>,
    in_phase: (Phase, u64, u64),
    troubled: u64,
    substituted: Option<u64>,
    told: ((Pieces, Pieces), u64),
}

impl Day {
    /// Awake with two ready replicas, used just now; two members, of which the one that is asked leads.
    pub(crate) fn new() -> Self {
        let port = ServicePort { name: "http".to_owned(), number: 80, app_protocol: None };
        let service = ServiceSeen {
            name: "web".to_owned(),
            uid: "service-uid".to_owned(),
            refusal: None,
            ports: vec![port],
            families: BTreeSet::from([Family::V4]),
        };
        let deployment = DeploymentSeen {
            uid: "deployment-uid".to_owned(),
            resource_version: "1".to_owned(),
            generation: 1,
            replicas: 2,
            probed: true,
            ..DeploymentSeen::default()
        };
        let here = Here {
            name: HERE.to_owned(),
            addresses: BTreeSet::from([[10, 0, 0, 1].into()]),
            leading: true,
            listening: true,
            living: BTreeSet::from([HERE.to_owned(), OTHER.to_owned()]),
        };
        let seen = Seen { deployment, services: vec![service], pods_confirmed: true, ..Seen::default() };
        let mut day = Self {
            now: 0,
            app: AppId::new("shop", "web"),
            labels: Texts::from([(key::ENABLED.to_owned(), "true".to_owned())]),
            annotations: Texts::new(),
            seen,
            last_seen: 0,
            lag: 0,
            blind: BTreeSet::new(),
            here,
            asked: false,
            path_proved: false,
            wake_address_answers: true,
            breaker: Breaker::default(),
            push: false,
            reverter: None,
            owners: false,
            proxy: BTreeSet::new(),
            copies: vec![Texts::new()],
            in_phase: (Phase::Awake, 0, 0),
            troubled: 0,
            substituted: None,
            told: Default::default(),
        };
        day.settle();
        day.start_pods();
        day
    }

    /// The same, not substituted: a proxy in front turns to KubeNap, as its administrator says.
    pub(crate) fn behind_a_hook() -> Self {
        let mut day = Self::new();
        day.annotations.insert("kubenap/substitute".to_owned(), "false".to_owned());
        day.seen.hook = HookSeen::Declared;
        day.settle();
        day
    }

    /// Whether the proxy turns to a living member where it finds no pod.
    pub(crate) fn is_behind_a_hook(&self) -> bool {
        self.seen.hook.in_place() && !self.here.living.is_empty()
    }

    /// Kubernetes' controllers act on the newest spec; new pods are not ready yet.
    pub(crate) fn settle(&mut self) {
        if let Some(copy) = self.copies.last_mut() {
            copy.extend(self.annotations.clone());
        }
        let seen = &mut self.seen;
        seen.deployment.observed_generation = seen.deployment.generation;
        let wanted = seen.deployment.replicas as usize;
        if wanted == 0 {
            seen.pods.clear();
            seen.endpoints.clear();
        }
        for number in seen.pods.len()..wanted {
            let uid = format!("pod-{}-{number}", seen.deployment.generation);
            seen.pods.push(PodSeen { uid, ready: false, deleting: false, trouble: None });
        }
        self.count_pods();
    }

    /// Every pod becomes ready, and the Service's endpoints show it.
    pub(crate) fn start_pods(&mut self) {
        for pod in &mut self.seen.pods {
            pod.ready = true;
        }
        let endpoint = |pod: &PodSeen| EndpointSeen {
            service: "web".to_owned(),
            port: "http".to_owned(),
            address: ([10, 1, 0, 1], 8080).into(),
            pod: pod.uid.clone(),
            ready: true,
        };
        self.seen.endpoints = self.seen.pods.iter().map(endpoint).collect();
        self.count_pods();
    }

    fn count_pods(&mut self) {
        let count = |ready: bool| self.seen.pods.iter().filter(|pod| pod.ready || !ready).count();
        let (all, ready) = (count(false), count(true));
        let deployment = &mut self.seen.deployment;
        deployment.pods = u32::try_from(all).unwrap_or(u32::MAX);
        deployment.updated = deployment.pods;
        deployment.ready = u32::try_from(ready).unwrap_or(u32::MAX);
    }

    /// Somebody writes to the Deployment.
    pub(crate) fn edited(&mut self) {
        let deployment = &mut self.seen.deployment;
        deployment.generation += 1;
        deployment.resource_version = deployment.generation.to_string();
        deployment.record = Record::read(&self.annotations);
    }

    /// What this member does next: the turn of one reconcile. Its writes are carried out.
    pub(crate) fn turn(&mut self) -> Decision {
        self.turn_cut_short(usize::MAX)
    }

    /// Another process takes over, which has watched nothing yet.
    pub(crate) fn forget_all(&mut self) {
        self.in_phase.2 = self.now;
        (self.substituted, self.path_proved) = (None, false);
        self.told.1 = self.now;
    }

    /// The same, and only so many of its writes are carried out.
    pub(crate) fn turn_cut_short(&mut self, most: usize) -> Decision {
        self.seen.deployment.record = Record::read(&self.annotations);
        let reading = self.reading();
        self.seen.remembered = None;
        if situation(&self.app.name, &reading.policy, &self.seen) == Situation::OwnersZero {
            self.seen.remembered = remembered(&self.copies);
        }
        self.seen.counted = counted(&self.copies);
        self.watch_time(&reading);
        let (decision, writes) = self.with_facts(&reading, |facts| {
            let decision = decide(facts);
            let writes = writes(facts, &decision);
            (decision, writes)
        });
        for write in writes.into_iter().take(most) {
            self.carry_out(write);
        }
        decision
    }

    /// The other member does for its own slices what is right now.
    pub(crate) fn other_substitutes(&mut self) {
        let reading = self.reading();
        let Some(stamp) = self.with_facts(&reading, step::stamp) else { return };
        let ports = WakePorts::parse(&self.annotations[key::WAKE_PORTS]).unwrap_or_default();
        let service = self.seen.services[0].clone();
        let number = |port: &ServicePort| ports.of("web", port.number).unwrap_or(0);
        let slice = Slice {
            name: slice_name("web", OTHER, Family::V4),
            service: service.name.clone(),
            member: OTHER.to_owned(),
            uid: "uid-other".to_owned(),
            resource_version: "1".to_owned(),
            family: Family::V4,
            addresses: BTreeSet::from([[10, 0, 0, 2].into()]),
            ports: service
                .ports
                .iter()
                .map(|port| ServicePort { number: number(port), ..port.clone() })
                .collect(),
            apps: BTreeMap::from([(self.app.name.clone(), stamp)]),
            leaving: false,
        };
        self.seen.slices.retain(|slice| slice.member != OTHER);
        self.seen.slices.push(slice);
    }

    fn reading(&self) -> Reading {
        read(&self.labels, &self.annotations, &Defaults::default())
    }

    fn watch_time(&mut self, reading: &Reading) {
        let phase = situation(&self.app.name, &reading.policy, &self.seen).phase();
        let epoch = self.seen.epoch(&self.app.name);
        if (self.in_phase.0, self.in_phase.1) != (phase, epoch) {
            self.in_phase = (phase, epoch, self.now);
            (self.substituted, self.path_proved) = (None, false);
        }
        if self.seen.trouble().is_some() {
            self.troubled = self.now;
        }
        if self.told.0 != self.seen.told() {
            self.told = (self.seen.told(), self.now);
        }
        let enough = self.with_facts(reading, step::stands_in);
        self.substituted = if enough { self.substituted.or(Some(self.now)) } else { None };
    }

    fn with_facts<T>(&self, reading: &Reading, ask: impl FnOnce(&Facts<'_>) -> T) -> T {
        let mut activity = Activity::seen(time(self.last_seen), time(self.now.saturating_sub(self.lag)));
        activity.blind.clone_from(&self.blind);
        let since = |from: u64| Duration::from_secs(self.now - from);
        let numbers = self.seen.services.iter().flat_map(|service| {
            service.ports.iter().map(|port| ((service.name.clone(), port.number), 16_000 + port.number))
        });
        ask(&Facts {
            now: time(self.now),
            app: &self.app,
            reading,
            opted_in: opted_in(&self.labels),
            seen: &self.seen,
            activity: &activity,
            here: &self.here,
            asked: self.asked,
            in_phase: since(self.in_phase.2),
            waiting: since(self.in_phase.2.max(self.troubled)),
            substituted_for: self.substituted.map_or(Duration::ZERO, since),
            told_for: since(self.told.1),
            path_proved: self.path_proved,
            wake_address_answers: self.wake_address_answers,
            may_arm: true,
            // Without substitution nobody comes to a wake port.
            ports: Some(WakePorts(numbers.filter(|_| reading.policy.substitute).collect())),
            barred: self.breaker.barred(time(self.now)),
            push: self.push,
            reverter: self.reverter.clone(),
            timing: Timing::default(),
        })
    }

    fn carry_out(&mut self, write: Write) {
        match write {
            Write::Deployment(patch) => {
                assert_eq!(patch.resource_version.as_ref(), Some(&self.seen.deployment.resource_version));
                self.annotations.retain(|name, _| !patch.clear.contains(name.as_str()));
                self.annotations.extend(patch.set.into_iter().map(|(name, text)| (name.to_owned(), text)));
                self.seen.deployment.replicas = patch.replicas.unwrap_or(self.seen.deployment.replicas);
                self.edited();
            }
            Write::PutSlice { slice, owner, .. } => {
                assert_eq!(owner, "service-uid", "a slice dies with its Service");
                self.seen.slices.retain(|known| known.name != slice.name);
                let (uid, resource_version) = ("uid".to_owned(), self.now.to_string());
                self.seen.slices.push(Slice { uid, resource_version, ..slice });
            }
            Write::MarkLeaving { slice, .. } => {
                for known in self.seen.slices.iter_mut().filter(|known| known.name == slice.name) {
                    known.leaving = true;
                }
            }
            Write::DeleteSlice { name, .. } => self.seen.slices.retain(|known| known.name != name),
            Write::Attach { object, .. } => {
                let piece = PieceId::of(&object);
                let recorded = &self.seen.deployment.record.hook_pieces;
                assert!(recorded.0.contains(&piece), "whoever takes {piece} back must know of it");
                self.proxy.insert(piece);
            }
            Write::Detach { piece, .. } => drop(self.proxy.remove(&piece)),
        }
    }
}

pub(crate) fn time(seconds: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A step as the tables write it.
pub(crate) fn show(step: &Step) -> String {
    match step {
        Step::Stay => "stay".to_owned(),
        Step::Arm { epoch, .. } => format!("arm {epoch}"),
        Step::Substitute => "substitute".to_owned(),
        Step::Attach => "attach".to_owned(),
        Step::Detach => "detach".to_owned(),
        Step::ScaleDown { epoch, restore } => format!("zero {epoch}, remember {restore}"),
        Step::Cancel { epoch } => format!("cancel {epoch}"),
        Step::Record { epoch, restore, .. } => format!("record {epoch}, remember {restore}"),
        Step::ScaleUp { epoch, replicas } => format!("up {epoch}, to {replicas}"),
        Step::Push => "push".to_owned(),
        Step::MarkLeaving => "mark".to_owned(),
        Step::Withdraw => "withdraw".to_owned(),
        Step::WithdrawStrays => "withdraw strays".to_owned(),
        Step::SweepDead => "sweep".to_owned(),
        Step::FinishWake { epoch } => format!("finish {epoch}"),
        Step::ClearWish => "clear wish".to_owned(),
        Step::Forget => "forget".to_owned(),
    }
}
