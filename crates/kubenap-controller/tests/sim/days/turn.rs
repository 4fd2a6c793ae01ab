//! A member's turn in the story: what it sees, decides and carries out, and where that may fail.

use jiff::SignedDuration;
use std::collections::BTreeSet;
use std::rc::Rc;

use kubenap_core::activity::{Activity, Blind};
use kubenap_core::decide::Decision;
use kubenap_core::seen::Phase;
use kubenap_core::situation::Situation;
use kubenap_core::step::{Step, writes};
use kubenap_core::write::Write;

use super::bite::Bent;
use super::cluster::Objects;
use super::member::{Around, Gathered, Member, Millis, time};
use super::story::{Event, LEASE, POLL, Story};
use crate::source::Mood;

/// Who cannot renew its claim for so long leads no more.
const LEADS_ON: Millis = 10_000;
/// How much longer a Lease that has lapsed is there.
const CLEARED: Millis = 120_000;
/// A request waits for no longer, unless something was wrong meanwhile.
const LONGEST: Millis = 150_000;

impl Story {
    pub(super) fn turn(&mut self, index: usize) {
        if !self.members[index].alive {
            return;
        }
        self.ledger.turns += 1;
        let (mut view, truth) = (self.view(index), Rc::clone(&self.objects));
        if view.version < self.members[index].memory.newest && self.members[index].cut.is_none() {
            view = Rc::clone(&truth);
        }
        let around = self.around(index);
        let mut gathered = self.members[index].gather(&view, &truth, around);
        let mut decision = gathered.decide();
        if matches!(decision.step, Step::Arm { .. } | Step::Record { .. } | Step::ScaleDown { .. }) {
            if self.members[index].cut.is_some() {
                return;
            }
            let around = self.around(index);
            gathered = self.members[index].gather(&truth, &truth, around);
            self.members[index].memory.newest = truth.version;
            decision = gathered.decide();
        }
        self.let_go(index, &gathered);
        if decision.step == Step::Stay {
            self.assist(index, &gathered);
            if let Some(delay) = decision.look_again {
                self.at(u64::try_from(delay.as_millis()).unwrap_or(POLL).max(1), Event::Turn(index));
            }
            return;
        }
        let all = writes(&gathered.facts(), &decision);
        let all = self.bent.bend(&self.members[index].name, &gathered.seen, &decision, all);
        if all.is_empty() {
            return;
        }
        for write in all {
            if !self.carry_out(index, write, &decision) {
                let memory = &mut self.members[index].memory;
                memory.failures = (memory.failures + 1).min(8);
                let pause = 20 << memory.failures;
                return self.at(pause, Event::Turn(index));
            }
        }
        self.members[index].memory.failures = 0;
        if matches!(decision.step, Step::Arm { .. }) {
            self.members[index].memory.armed = Some(self.now);
        }
        self.at(1, Event::Turn(index));
    }

    /// What waits at a member goes on as soon as pods answer, or is told that none will.
    fn let_go(&mut self, index: usize, gathered: &Gathered) {
        let phase = gathered.situation().phase();
        let passes = matches!(phase, Phase::Awake | Phase::Drowsy) || gathered.seen.ready();
        let failed = gathered.seen.trouble().is_some();
        if passes || failed {
            self.ledger.answered += self.members[index].held.len() as u64;
            self.members[index].held.clear();
        }
    }

    /// One write of a member's; whether it knows that it was done.
    fn carry_out(&mut self, index: usize, write: Write, decision: &Decision) -> bool {
        let doomed = self.members[index].doomed;
        if let Some((left, _)) = &mut self.members[index].doomed {
            *left = left.saturating_sub(1);
        }
        let dies = doomed.filter(|(left, _)| *left == 0);
        let fails = self.flaky && self.one_in(4);
        let lost = fails && self.one_in(2) || dies.is_some_and(|(_, after)| !after);
        let cut = self.members[index].cut.is_some();
        let mut done = false;
        if !cut && !lost {
            let (before, guarded) = (Rc::clone(&self.objects), self.bent != Bent::Unguarded);
            let healthy = self.ledger.evidence(&self.members[index].name);
            done = self.change(|objects| objects.write(write.clone(), guarded)).is_ok();
            if done {
                self.ledger.writes += 1;
                let skewed = self.members[index].skew != SignedDuration::ZERO;
                self.ledger.wrote(self.now, &before, &self.objects, healthy, skewed);
                if self.told {
                    super::say(self.now, &format!("{} {:?}", self.members[index].name, decision.step));
                }
            }
            let member = &mut self.members[index];
            member.not_before = self.now;
            if matches!(write, Write::Deployment(_)) && done {
                member.memory.newest = self.objects.version;
            }
        }
        if dies.is_some() {
            self.crash(index);
        }
        done && !fails && self.members[index].alive
    }

    /// The last look at the source, and a connection that proves the path.
    fn assist(&mut self, index: usize, gathered: &Gathered) {
        let Situation::Drowsy { epoch } = gathered.situation() else { return };
        if !self.leads(index) || self.members[index].memory.proving.replace(epoch) == Some(epoch) {
            return;
        }
        let soon = self.between(20, 800);
        self.at(soon, Event::LastLook(index));
        // Now and then a connection goes elsewhere each time.
        if !self.one_in(10) {
            let soon = self.between(50, 4_000);
            self.at(soon, Event::Arrived(index));
        }
    }

    /// A member asks the source, which tells what it may know on that member's clock.
    pub(super) fn poll(&mut self, index: usize) {
        let now = time(self.now);
        let member = &mut self.members[index];
        let (watermark, busy) = match self.mood {
            Mood::Fine => (now, false),
            Mood::Busy => (now, true),
            Mood::Stuck(at) => (at, false),
            Mood::Down => {
                // What was known stays known, and says that it is old.
                member.activity.blind.insert(Blind::SourceDown);
                return;
            }
            Mood::Empty => {
                member.activity = Activity::blind(Blind::NoSeries);
                return;
            }
        };
        let last = if busy { now } else { self.ledger.last_visit(watermark) };
        self.ledger.tell(&member.name, self.now, watermark);
        member.activity = Activity::seen(last + member.skew, watermark + member.skew);
    }

    /// Nobody waits for long at a member of a cluster that is well.
    pub(super) fn judge_waiting(&mut self, index: usize) {
        let member = &self.members[index];
        let ill = self.away || self.flaky || self.broken || member.cut.is_some();
        let waits = member.held.iter().any(|since| self.now > since + LONGEST);
        if waits && !ill && self.now > self.ledger.disturbed + LONGEST {
            self.ledger.break_law(self.now, "L2: somebody waits, and the app does not come");
        }
    }

    /// The objects as a member sees them.
    fn view(&self, index: usize) -> Rc<Objects> {
        let member = &self.members[index];
        let at = member.cut.unwrap_or(self.now).saturating_sub(member.lag).max(member.not_before);
        let known = self.history.iter().rev().find(|(then, _)| *then <= at);
        known.map_or_else(|| Rc::clone(&self.history[0].1), |(_, objects)| Rc::clone(objects))
    }

    fn living(&self, index: usize) -> BTreeSet<String> {
        let steady = self.members[index].steady + LEASE <= self.now && self.members[index].cut.is_none();
        let stood = |member: &Member, more: Millis| member.renews || member.lease + more > self.now;
        let lives = |member: &&Member| stood(member, if steady { 0 } else { CLEARED });
        let mut living: BTreeSet<_> =
            self.members.iter().filter(lives).map(|member| member.name.clone()).collect();
        living.insert(self.members[index].name.clone());
        living
    }

    fn leads(&self, index: usize) -> bool {
        let cut = self.members[index].cut;
        self.all_lead || self.leader == Some(index) && cut.is_none_or(|cut| self.now < cut + LEADS_ON)
    }

    fn around(&self, index: usize) -> Around {
        Around { now: self.now, leading: self.leads(index), living: self.living(index), bent: self.bent }
    }
}
