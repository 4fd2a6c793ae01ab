//! What is kept of a story to judge it by, and the judges: nothing here knows how KubeNap works inside.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kubenap_core::app::key;
use kubenap_core::seen::Phase;

use super::cluster::Objects;
use super::member::{Member, Millis, span, time};
use crate::source::Told;

/// The product's defaults.
const IDLE_AFTER: SignedDuration = SignedDuration::from_mins(10);
const MIN_AWAKE: SignedDuration = SignedDuration::from_mins(1);
/// What the evidence of a scale-down may be old at most.
const EVIDENCE: Millis = 120_000;

/// What happened, counted and judged.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) visits: Vec<Timestamp>,
    /// The last healthy answer to each member.
    told: BTreeMap<String, (Millis, Told)>,
    /// The count that the owner asked for last.
    pub(super) wanted: u32,
    /// The zero is the owner's.
    pub(super) owners_zero: bool,
    /// The naps that have ended already.
    woken: BTreeSet<u64>,
    awake_since: Option<Millis>,
    /// When somebody or something last disturbed the story.
    pub(super) disturbed: Millis,
    pub(super) broken: Vec<String>,
    pub(super) turns: u64,
    pub(super) writes: u64,
    pub(super) naps: u64,
    pub(super) wakes: u64,
    pub(super) cancelled: u64,
    pub(super) requests: u64,
    pub(super) answered: u64,
    pub(super) checks: u64,
    pub(super) faults: u64,
    /// Nights that were slept through in silence.
    pub(super) nights: u64,
}

impl Ledger {
    pub(super) fn new(wanted: u32) -> Self {
        Self { wanted, visits: vec![time(0)], ..Self::default() }
    }

    pub(super) fn last_visit(&self, until: Timestamp) -> Timestamp {
        self.visits.iter().rev().find(|visit| **visit <= until).copied().unwrap_or(time(0))
    }

    pub(super) fn tell(&mut self, member: &str, now: Millis, watermark: Timestamp) {
        self.told.insert(member.to_owned(), (now, Told { at: time(now), watermark }));
    }

    /// What the source last told a member, and when.
    pub(super) fn evidence(&self, member: &str) -> Option<(Millis, Told)> {
        self.told.get(member).copied()
    }

    /// KubeNap has to do with the app now.
    pub(super) fn is_ours(&self, objects: &Objects) -> bool {
        !self.owners_zero && (objects.annotations.contains_key(key::PHASE) || !objects.slices.is_empty())
    }

    /// The owner, or whoever else is not KubeNap, wrote on the Deployment: the rules that count naps begin anew.
    pub(super) fn edited(&mut self, now: Millis, replicas: Option<u32>) {
        self.woken.clear();
        (self.disturbed, self.awake_since) = (now, None);
        if let Some(replicas) = replicas {
            self.owners_zero = replicas == 0;
            self.wanted = if replicas > 0 { replicas } else { self.wanted };
        }
    }

    /// After every single change: somebody answers.
    pub(super) fn judge(&mut self, now: Millis, objects: &Objects, members: &[Member], excused: bool) {
        self.checks += 1;
        if objects.replicas > 0 && objects.is_well() && self.owners_zero {
            self.owners_zero = false;
        }
        if excused || !self.is_ours(objects) {
            return;
        }
        let pods = objects.pods.iter().any(|pod| objects.shown.contains(&pod.uid) && pod.ready);
        let member = || {
            let open = objects.slices.values().filter(|slice| slice.is_open());
            open.into_iter().any(|slice| members.iter().any(|it| it.alive && it.name == slice.member))
        };
        if !pods && !member() {
            // A member that died alone leaves an address behind, until another has found out.
            let found_out = members.iter().any(|it| {
                it.alive && it.cut.is_none() && now > it.steady + 20_000 && now > self.disturbed + 40_000
            });
            if found_out {
                self.break_law(now, "I1: nobody answers");
            }
        }
    }

    /// After every write of a member's.
    pub(super) fn wrote(
        &mut self,
        now: Millis,
        before: &Objects,
        after: &Objects,
        evidence: Option<(Millis, Told)>,
        skewed: bool,
    ) {
        let note = |objects: &Objects, name: &str| objects.annotations.get(name).cloned();
        let epoch = note(after, key::EPOCH).and_then(|text| text.parse().ok()).unwrap_or(0);
        let wished = before.annotations.contains_key(key::WISH);
        let phase = |objects: &Objects| note(objects, key::PHASE).as_deref().and_then(Phase::parse);
        if note(after, key::PHASE).is_none() {
            self.woken.clear();
        }
        if before.replicas > 0 && after.replicas == 0 {
            self.naps += 1;
            if note(after, key::RESTORE) != Some(before.replicas.to_string()) {
                self.break_law(now, "I2: the count is not remembered with the zero");
            }
            if !wished {
                self.judge_evidence(now, evidence);
            }
            if !before.is_well() {
                self.break_law(now, "I17: scaled down while not ready");
            }
        }
        if before.replicas == 0 && after.replicas > 0 {
            self.wakes += 1;
            if after.replicas != self.wanted {
                let text = format!("I2: woken to {}, wanted were {}", after.replicas, self.wanted);
                self.break_law(now, &text);
            }
            if self.owners_zero && !wished {
                self.break_law(now, "I14: the owner's zero was woken");
            }
            if !self.woken.insert(epoch) {
                self.break_law(now, &format!("I6: nap {epoch} was ended twice"));
            }
            self.owners_zero = false;
        }
        if after.replicas != before.replicas && after.replicas > 0 && before.replicas > 0 {
            self.break_law(now, "I7: replicas changed that were not zero");
        }
        if phase(before) == Some(Phase::Drowsy) && phase(after) == Some(Phase::Awake) {
            self.cancelled += 1;
        }
        if phase(before) != Some(Phase::Awake) && phase(after) == Some(Phase::Awake) {
            self.awake_since = Some(now);
        }
        let arms = phase(before) == Some(Phase::Awake) && phase(after) == Some(Phase::Drowsy);
        let awake = self.awake_since.filter(|_| arms && !wished && !skewed);
        if awake
            .is_some_and(|since| SignedDuration::try_from(span(now - since)).unwrap_or_default() < MIN_AWAKE)
        {
            self.break_law(now, "I16: armed too soon after it woke");
        }
    }

    fn judge_evidence(&mut self, now: Millis, evidence: Option<(Millis, Told)>) {
        let Some((at, told)) = evidence else { return self.break_law(now, "I3: no evidence") };
        let newest = self.last_visit(told.watermark);
        let quiet = told.watermark.duration_since(newest);
        if now - at > EVIDENCE || quiet < IDLE_AFTER {
            let text = format!("I3: scaled down; the source was asked at {}, used at {newest}", told.at);
            self.break_law(now, &text);
        }
    }

    pub(super) fn break_law(&mut self, now: Millis, what: &str) {
        self.broken.push(format!("{:?}: {what}", span(now)));
    }
}
