//! What a member has watched, and from that and a reading of the cluster the facts on which it decides.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use kubenap_core::breaker::Breaker;
use kubenap_core::decide::{Facts, Here, Timing, decide, trouble};
use kubenap_core::policy::{Defaults, Reading, opted_in, read};
use kubenap_core::seen::{Phase, Seen, WakePorts, counted, remembered};
use kubenap_core::situation::{Situation, situation};
use kubenap_core::step;

use super::bite::Bent;
use super::cluster::{APP, Objects};

/// Thousandths of a second since the story began.
pub(super) type Millis = u64;

/// One process of KubeNap.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) nth: u8,
    pub(super) alive: bool,
    pub(super) born: Millis,
    /// How far its clock is ahead.
    pub(super) skew: SignedDuration,
    /// It cannot reach the API server, and since when.
    pub(super) cut: Option<Millis>,
    /// Until when its Lease stands, if it is not renewed.
    pub(super) lease: Millis,
    pub(super) renews: bool,
    /// Since when it has renewed its Lease without a gap.
    pub(super) steady: Millis,
    /// How much later it hears of a change.
    pub(super) lag: Millis,
    /// What is older it knows better: it wrote since.
    pub(super) not_before: Millis,
    /// It dies at a write: after so many, and whether that one is still carried out.
    pub(super) doomed: Option<(u64, bool)>,
    /// Requests that wait here, and since when.
    pub(super) held: Vec<Millis>,
    pub(super) activity: Activity,
    pub(super) asks: u64,
    pub(super) last_ask: Option<Timestamp>,
    pub(super) arrivals: u64,
    pub(super) memory: Memory,
    /// What the annotations of a version ask for.
    reading: Option<(u64, Rc<Reading>)>,
}

/// As the controller's: how long something was watched, and nothing that the cluster does not say.
#[derive(Debug, Default)]
pub(super) struct Memory {
    first: Option<Timestamp>,
    opted_in: Option<Timestamp>,
    phase: Option<(Phase, u64, Millis)>,
    awoke: Option<Timestamp>,
    asks_before: u64,
    arrivals_before: u64,
    substituted: Option<(u64, Millis)>,
    emptied: Option<i64>,
    confirmed: Option<Wake>,
    connected: Option<Wake>,
    pub(super) proving: Option<u64>,
    troubled: Option<Millis>,
    breaker: Breaker,
    asks_then: u64,
    pub(super) armed: Option<Millis>,
    pub(super) failures: u32,
    pub(super) newest: u64,
}

type Wake = (u64, Option<Timestamp>);

/// Everything that facts borrow from.
pub(super) struct Gathered {
    pub(super) now: Timestamp,
    app: AppId,
    pub(super) reading: Rc<Reading>,
    pub(super) seen: Seen,
    opted_in: bool,
    activity: Activity,
    here: Here,
    asked: bool,
    in_phase: Duration,
    waiting: Duration,
    substituted_for: Duration,
    path_proved: bool,
    may_arm: bool,
    barred: Option<kubenap_core::breaker::Barred>,
    push: bool,
}

/// What opted in this soon after a member's start was so before.
const STARTING: Millis = 5_000;

impl Member {
    pub(super) fn new(nth: u8, name: String, born: Millis, skew: SignedDuration) -> Self {
        Self {
            name,
            nth,
            alive: true,
            born,
            skew,
            cut: None,
            lease: 0,
            renews: true,
            steady: born,
            lag: 5 + u64::from(nth),
            not_before: born,
            doomed: None,
            held: Vec::new(),
            activity: Activity::blind(Blind::Starting),
            asks: 0,
            last_ask: None,
            arrivals: 0,
            memory: Memory::default(),
            reading: None,
        }
    }

    pub(super) fn time(&self, now: Millis) -> Timestamp {
        time(now) + self.skew
    }

    /// Gathers what it decides on. `truth`: what a question to the API server itself would show.
    pub(super) fn gather(&mut self, objects: &Objects, truth: &Objects, around: Around) -> Gathered {
        let now = self.time(around.now);
        let reading = match &self.reading {
            Some((version, reading)) if *version == objects.version => Rc::clone(reading),
            _ => {
                let mut reading = read(&objects.labels, &objects.annotations, &Defaults::default());
                if around.bent == Bent::IgnoresIdleAfter {
                    reading.policy.idle_after = Duration::from_secs(1);
                }
                let reading = Rc::new(reading);
                self.reading = Some((objects.version, Rc::clone(&reading)));
                reading
            }
        };
        let mut seen = objects.seen();
        if around.bent != Bent::CountsAnew {
            seen.counted = counted(&objects.copies);
        }
        if situation(APP, &reading.policy, &seen) == Situation::OwnersZero {
            seen.remembered = remembered(&objects.copies);
        }
        let mut gathered = Gathered {
            now,
            app: AppId::new("shop", APP),
            reading,
            seen,
            opted_in: opted_in(&objects.labels),
            activity: self.activity.clone(),
            here: Here {
                name: self.name.clone(),
                addresses: BTreeSet::from([[10, 0, 0, self.nth].into()]),
                leading: around.leading,
                listening: true,
                living: around.living,
            },
            asked: false,
            in_phase: Duration::ZERO,
            waiting: Duration::ZERO,
            substituted_for: Duration::ZERO,
            path_proved: false,
            may_arm: self.memory.armed.is_none_or(|armed| around.now >= armed + 60_000),
            barred: None,
            push: false,
        };
        self.remember(&mut gathered, truth, around.now);
        self.guard(&mut gathered);
        gathered
    }

    /// Brings memory in line with what is seen now, and takes from it what only time tells.
    fn remember(&mut self, gathered: &mut Gathered, truth: &Objects, now: Millis) {
        let situation = gathered.situation();
        let phase = situation.phase();
        let epoch = gathered.seen.epoch(APP);
        let starting = now < self.born + STARTING;
        let memory = &mut self.memory;
        if memory.phase.is_none_or(|(known, of, _)| (known, of) != (phase, epoch)) {
            memory.awoke = memory.phase.filter(|_| phase == Phase::Awake).map(|_| gathered.now);
            memory.phase = Some((phase, epoch, now));
            (memory.asks_before, memory.arrivals_before) = (self.asks, self.arrivals);
            memory.substituted = None;
        }
        let since = memory.phase.map_or(now, |(_, _, since)| since);
        gathered.in_phase = span(now - since);
        if gathered.seen.trouble().is_some() {
            memory.troubled = Some(now);
        }
        gathered.waiting = span(now - memory.troubled.unwrap_or(0).max(since));
        let since_then = matches!(phase, Phase::Drowsy | Phase::Asleep) && self.asks > memory.asks_before;
        gathered.asked = !self.held.is_empty() || since_then;
        let begins = if starting { Timestamp::MIN } else { gathered.now };
        memory.opted_in = gathered.opted_in.then(|| memory.opted_in.unwrap_or(begins));
        let created = time(0).min(*memory.first.get_or_insert(gathered.now));
        let begin = [self.last_ask, memory.opted_in, Some(created)].into_iter().flatten().max();
        let activity = &mut gathered.activity;
        activity.last_seen = activity.last_seen.max(begin.unwrap_or(Timestamp::MIN));
        gathered.path_proved = self.arrivals > memory.arrivals_before;
        let deployment = &mut gathered.seen.deployment;
        match situation {
            Situation::Asleep { .. } => {
                let observed = deployment.observed_generation >= deployment.generation;
                let empty = observed && gathered.seen.pods.iter().all(|pod| pod.deleting);
                memory.emptied = empty.then_some(deployment.generation);
                (memory.confirmed, memory.connected) = (None, None);
            }
            Situation::Waking { epoch, recorded } => {
                let record = &deployment.record;
                let wake = (epoch, record.since);
                if memory.emptied.is_some_and(|asleep| asleep + 1 == deployment.generation) {
                    memory.confirmed = Some(wake);
                }
                // The Deployment's and the ReplicaSet's controllers have acted on it, asked of the API server itself.
                let settled = truth.version == self.reading.as_ref().map_or(0, |(version, _)| *version)
                    && truth.observed >= truth.generation
                    && truth.acted;
                if settled {
                    memory.confirmed = Some(wake);
                }
                if memory.confirmed == Some(wake) && truth.living().any(|pod| pod.ready) {
                    memory.connected = Some(wake);
                }
                let over = !recorded && record.phase == Some(Phase::Awake) && record.epoch == epoch;
                let known = |of: Option<Wake>| over || of == Some(wake);
                gathered.seen.pods_confirmed = known(memory.confirmed) && known(memory.connected);
            }
            Situation::Awake => {
                let record = &mut deployment.record;
                record.since = record.since.map(|since| memory.awoke.unwrap_or(since));
                (memory.emptied, memory.confirmed, memory.connected) = (None, None, None);
            }
            Situation::Drowsy { .. } | Situation::OwnersZero => {
                (memory.emptied, memory.confirmed, memory.connected) = (None, None, None);
            }
        }
        if phase == Phase::Drowsy {
            if !step::stands_in(&gathered.facts()) {
                memory.substituted = None;
            } else if memory.substituted.is_none_or(|(of, _)| of != epoch) {
                memory.substituted = Some((epoch, now));
            }
            gathered.substituted_for = span(memory.substituted.map_or(0, |(_, since)| now - since));
        }
    }

    /// Keeps the breaker in line with how the wake gets on.
    fn guard(&mut self, gathered: &mut Gathered) {
        let trouble = trouble(&gathered.facts());
        let (situation, now) = (gathered.situation(), gathered.now);
        let memory = &mut self.memory;
        match (situation, trouble) {
            (Situation::Waking { .. }, Some(trouble)) if memory.breaker.barred(now).is_none() => {
                gathered.push = memory.breaker.is_half_open(now) && self.asks > memory.asks_then;
                memory.breaker.failed(trouble, None, now);
                memory.asks_then = self.asks;
            }
            (Situation::Awake | Situation::Drowsy { .. }, _) => memory.breaker.close(),
            (Situation::Waking { .. } | Situation::Asleep { .. } | Situation::OwnersZero, _) => {}
        }
        gathered.barred = memory.breaker.barred(now);
    }
}

/// What a member is told about itself and others.
pub(super) struct Around {
    pub(super) now: Millis,
    pub(super) leading: bool,
    pub(super) living: BTreeSet<String>,
    pub(super) bent: Bent,
}

impl Gathered {
    pub(super) fn situation(&self) -> Situation {
        situation(APP, &self.reading.policy, &self.seen)
    }

    pub(super) fn facts(&self) -> Facts<'_> {
        let ports = WakePorts([((APP.to_owned(), 80), 16_000)].into());
        Facts {
            now: self.now,
            app: &self.app,
            reading: &self.reading,
            opted_in: self.opted_in,
            seen: &self.seen,
            activity: &self.activity,
            here: &self.here,
            asked: self.asked,
            in_phase: self.in_phase,
            waiting: self.waiting,
            substituted_for: self.substituted_for,
            told_for: Duration::ZERO,
            path_proved: self.path_proved,
            wake_address_answers: false,
            may_arm: self.may_arm,
            ports: Some(ports),
            barred: self.barred.clone(),
            push: self.push,
            reverter: Some("kubectl".to_owned()),
            timing: Timing::default(),
        }
    }

    pub(super) fn decide(&self) -> kubenap_core::decide::Decision {
        decide(&self.facts())
    }
}

pub(super) fn time(now: Millis) -> Timestamp {
    // A Monday's midnight.
    let begins = Timestamp::constant(1_700_438_400, 0);
    begins + span(now)
}

pub(super) fn span(millis: Millis) -> Duration {
    Duration::from_millis(millis)
}
