//! What must be so once a day: asleep in a quiet night, silent, awake after the first request, and no trace left.

use std::rc::Rc;

use kubenap_core::app::key;
use kubenap_core::seen::Phase;
use kubenap_core::situation::Situation;

use super::cluster::APP;
use super::story::{Event, Story};

impl Story {
    /// Hours after the last request and the last fault it sleeps, and every member stands in.
    pub(super) fn night(&mut self) {
        let objects = Rc::clone(&self.objects);
        let note = |name: &str| objects.annotations.get(name).map(String::as_str);
        let asleep = note(key::PHASE) == Some("asleep") && objects.replicas == 0 && objects.pods.is_empty();
        if !asleep {
            return self.wrong("L1: not asleep in a quiet night");
        }
        if note(key::RESTORE) != Some(&*self.ledger.wanted.to_string()) {
            return self.wrong("I2: asleep, and the count is not the owner's");
        }
        let mut stand_in: Vec<_> = objects.slices.values().map(|slice| slice.member.clone()).collect();
        let mut living: Vec<_> =
            self.members.iter().filter(|member| member.alive).map(|member| member.name.clone()).collect();
        stand_in.sort();
        living.sort();
        if stand_in != living || !objects.slices.values().all(kubenap_core::seen::Slice::is_open) {
            return self.wrong(&format!("I5: {stand_in:?} stand in, and {living:?} live"));
        }
        self.silent_since = Some(objects.clock);
    }

    /// Nothing was written meanwhile; now somebody asks.
    pub(super) fn dawn(&mut self) {
        if self.silent_since.take() != Some(self.objects.clock) {
            return self.wrong("I18: something was written while nothing happened");
        }
        self.at(0, Event::Ask);
        self.ledger.nights += 1;
    }

    /// It is awake as its owner wants it, nobody waits, and nobody stands in.
    pub(super) fn morning(&mut self) {
        let objects = Rc::clone(&self.objects);
        let phase = objects.annotations.get(key::PHASE).and_then(|text| Phase::parse(text));
        if phase != Some(Phase::Awake) || objects.replicas != self.ledger.wanted || !objects.is_well() {
            self.wrong("L2: asked, and not awake as before within five minutes");
        } else if !objects.slices.is_empty() || objects.annotations.contains_key(key::RESTORE) {
            self.wrong("I5: awake, and something of the nap is left");
        } else if self.members.iter().any(|member| !member.held.is_empty()) {
            self.wrong("L2: somebody still waits");
        }
    }

    /// At the end, opted out: every trace goes. Judged once that had its time.
    pub(super) fn untouched(&mut self) {
        let left: Vec<_> =
            key::STATE.iter().filter(|name| self.objects.annotations.contains_key(**name)).collect();
        if !left.is_empty() || !self.objects.slices.is_empty() || !self.objects.is_well() {
            let text = format!("I22: opted out, and left are {left:?}");
            self.wrong(&text);
        }
    }

    fn wrong(&mut self, what: &str) {
        self.ledger.break_law(self.now, what);
    }

    /// The state of things in one line, for a story that is told.
    pub(super) fn situation(&self) -> Situation {
        let objects = &self.objects;
        let reading = kubenap_core::policy::read(
            &objects.labels,
            &objects.annotations,
            &kubenap_core::policy::Defaults::default(),
        );
        kubenap_core::situation::situation(APP, &reading.policy, &objects.seen())
    }
}
