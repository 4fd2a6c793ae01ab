//! Some days of one app: everything that happens in order of time, with the turns of every member in between.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::rc::Rc;

use jiff::SignedDuration;
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::key;
use kubenap_core::decide::Decision;
use kubenap_core::seen::Phase;
use kubenap_core::situation::Situation;
use kubenap_core::step::{Step, writes};
use kubenap_core::write::Write;

use super::acts::Act;
use super::bite::Bent;
use super::cluster::Objects;
use super::laws::Ledger;
use super::member::{Around, Gathered, Member, Millis, span, time};
use crate::seeds::Dice;
use crate::source::Mood;

/// How often sources are asked: a setting that an administrator of sparse apps would choose.
const POLL: Millis = 60_000;
/// How long a Lease stands.
const LEASE: Millis = 15_000;
/// Who cannot renew its claim for so long leads no more.
const LEADS_ON: Millis = 10_000;
/// What a change that was made may be behind at most.
const REMEMBERED: Millis = 20_000;

/// Turns beyond this many, and beyond [`PER_SECOND`], are a loop.
const LOOP: u64 = 20_000;
/// As many as four members that each look at a waking app every 200 ms.
const PER_SECOND: u64 = 20;

/// What happens at some moment. Members are named by their index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Observe,
    Reconcile,
    Show,
    Ready(u64),
    Gone(u64),
    Turn(usize),
    Poll(usize),
    LastLook(usize),
    Arrived(usize),
    Renew(usize),
    Elect,
    Ask,
    Act(Act),
}

pub(super) struct Story {
    pub(super) now: Millis,
    heap: BinaryHeap<Reverse<(Millis, u64, Event)>>,
    serial: u64,
    pub(super) dice: Dice,
    pub(super) objects: Rc<Objects>,
    /// The objects as they were, for members that hear of it late.
    history: VecDeque<(Millis, Rc<Objects>)>,
    pub(super) members: Vec<Member>,
    leader: Option<usize>,
    /// Everybody takes itself for the leader.
    pub(super) all_lead: bool,
    pub(super) away: bool,
    pub(super) flaky: bool,
    /// New pods cannot start.
    pub(super) broken: bool,
    pub(super) mood: Mood,
    /// Nothing may change any object from then on, which had this version.
    pub(super) silent_since: Option<u64>,
    pub(super) ledger: Ledger,
    pub(super) bent: Bent,
    pub(super) told: bool,
}

impl Story {
    pub(super) fn new(seed: u64, bent: Bent, told: bool) -> Self {
        let mut dice = Dice(seed);
        let count = 1 + u32::try_from(dice.roll(3)).unwrap_or(0);
        let objects = Rc::new(Objects::new(count));
        let mut story = Self {
            now: 0,
            heap: BinaryHeap::new(),
            serial: 0,
            dice,
            history: VecDeque::from([(0, Rc::clone(&objects))]),
            objects,
            members: Vec::new(),
            leader: None,
            all_lead: false,
            away: false,
            flaky: false,
            broken: false,
            mood: Mood::Fine,
            silent_since: None,
            ledger: Ledger::new(count),
            bent,
            told,
        };
        story.at(100, Event::Observe);
        for _ in 0..=story.dice.roll(3) {
            story.join(SignedDuration::ZERO);
        }
        story
    }

    /// It happens so much later.
    pub(super) fn at(&mut self, delay: Millis, event: Event) {
        self.serial += 1;
        self.heap.push(Reverse((self.now + delay, self.serial, event)));
    }

    pub(super) fn between(&mut self, least: Millis, most: Millis) -> Millis {
        least + self.dice.roll(most - least + 1)
    }

    pub(super) fn one_in(&mut self, many: u64) -> bool {
        self.dice.roll(many) == 0
    }

    /// Goes on until then.
    pub(super) fn until(&mut self, end: Millis) {
        let (turns, from) = (self.ledger.turns, self.now);
        while let Some(Reverse((at, _, event))) = self.heap.peek().copied() {
            if at > end || !self.ledger.broken.is_empty() {
                break;
            }
            self.heap.pop();
            self.now = at;
            self.happens(event);
            if self.ledger.turns > turns + LOOP + (at - from) / 1000 * PER_SECOND {
                self.ledger.break_law(at, "I18: turn after turn, and nothing gained");
            }
        }
        self.now = end;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Turn(index) => self.turn(index),
            Event::Poll(index) => {
                if self.members[index].alive {
                    self.at(POLL, event);
                    self.poll(index);
                    self.turn(index);
                }
            }
            Event::LastLook(index) => {
                self.poll(index);
                self.turn(index);
            }
            Event::Arrived(index) => {
                self.members[index].arrivals += 1;
                self.turn(index);
            }
            Event::Renew(index) => self.renew(index),
            Event::Elect => self.elect(),
            Event::Ask => self.ask(),
            Event::Act(act) => self.perform(act),
            Event::Observe | Event::Reconcile | Event::Show | Event::Ready(_) | Event::Gone(_) => {
                self.kubernetes(event);
            }
        }
    }

    /// Changes objects, with all that follows from it.
    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut Objects) -> T) -> T {
        let before = Rc::clone(&self.objects);
        let objects = Rc::make_mut(&mut self.objects);
        let result = change(objects);
        objects.clock += 1;
        if before.version != objects.version {
            let late = self.between(10, 300);
            self.at(late, Event::Observe);
        }
        self.history.push_back((self.now, Rc::clone(&self.objects)));
        while self.history.len() > 1 && self.history[1].0 + REMEMBERED < self.now {
            self.history.pop_front();
        }
        for index in 0..self.members.len() {
            if self.members[index].alive && self.members[index].cut.is_none() {
                let lag = self.members[index].lag;
                self.at(lag, Event::Turn(index));
            }
        }
        let excused = !self.members.iter().any(|member| member.alive && self.now > member.born + 20_000);
        self.ledger.judge(self.now, &self.objects, &self.members, excused);
        result
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
        let lives = |member: &&Member| member.renews || member.lease > self.now || !steady;
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

    fn turn(&mut self, index: usize) {
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
        let all = self.bent.bend(&decision, writes(&gathered.facts(), &decision));
        if all.is_empty() {
            return;
        }
        for write in all {
            if !self.carry_out(index, &write, &decision) {
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
    fn carry_out(&mut self, index: usize, write: &Write, decision: &Decision) -> bool {
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
            let before = Rc::clone(&self.objects);
            let healthy = self.ledger.evidence(&self.members[index].name);
            done = self.change(|objects| objects.write(write.clone())).is_ok();
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
    fn poll(&mut self, index: usize) {
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

    /// Starts a member, whose clock is this far ahead.
    pub(super) fn join(&mut self, skew: SignedDuration) -> usize {
        let nth = u8::try_from(self.members.len() + 1).unwrap_or(u8::MAX);
        let mut member = Member::new(nth, format!("m{nth}"), self.now, skew);
        member.cut = self.away.then_some(self.now);
        self.members.push(member);
        let index = self.members.len() - 1;
        self.at(20, Event::Turn(index));
        let first = self.between(50, 1_000);
        self.at(first, Event::Poll(index));
        self.at(2_000, Event::Elect);
        self.ledger.disturbed = self.now;
        index
    }

    /// Ends it as SIGKILL does; its clients ask again.
    pub(super) fn crash(&mut self, index: usize) {
        let member = &mut self.members[index];
        if !member.alive {
            return;
        }
        member.alive = false;
        (member.doomed, member.activity) = (None, Activity::blind(Blind::Starting));
        let waiting = std::mem::take(&mut member.held).len();
        for _ in 0..waiting {
            self.at(2_000, Event::Ask);
        }
        self.lapse(index);
    }

    /// From here on it cannot renew its Lease.
    pub(super) fn lapse(&mut self, index: usize) {
        let rest = self.between(LEASE - 5_000, LEASE);
        let member = &mut self.members[index];
        if member.renews {
            (member.renews, member.lease) = (false, self.now + rest);
        }
        self.ledger.disturbed = self.now;
        for other in 0..self.members.len() {
            self.at(rest + 1_000, Event::Turn(other));
        }
        self.at(LEASE + 2_000, Event::Elect);
    }

    fn renew(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.alive && member.cut.is_none() {
            (member.renews, member.steady) = (true, self.now);
            self.at(1, Event::Turn(index));
            self.at(LEASE + 1, Event::Turn(index));
            self.at(2_000, Event::Elect);
        }
    }

    fn elect(&mut self) {
        let held = self.leader.is_some_and(|index| {
            let member = &self.members[index];
            member.renews || member.lease > self.now
        });
        let able: Vec<usize> = (0..self.members.len())
            .filter(|index| self.members[*index].alive && self.members[*index].cut.is_none())
            .collect();
        if !held && !able.is_empty() {
            let chosen = able[usize::try_from(self.dice.roll(able.len() as u64)).unwrap_or(0)];
            self.leader = Some(chosen);
            self.at(1, Event::Turn(chosen));
        }
    }

    /// A request comes through the Service: to a pod that is shown, or to a member that stands in.
    fn ask(&mut self) {
        self.ledger.requests += 1;
        self.ledger.visits.push(time(self.now));
        let objects = Rc::clone(&self.objects);
        let there = |pod: &&super::cluster::Pod| pod.ready && objects.shown.contains(&pod.uid);
        let pods = objects.pods.iter().filter(there).count() as u64;
        let open: Vec<usize> = (0..self.members.len())
            .filter(|index| {
                let member = &self.members[*index];
                let own = |slice: &kubenap_core::seen::Slice| slice.member == member.name && slice.is_open();
                member.alive && objects.slices.values().any(own)
            })
            .collect();
        if pods + open.len() as u64 == 0 {
            // Its client asks again.
            if self.ledger.is_ours(&objects) {
                self.at(5_000, Event::Ask);
            }
            return;
        }
        let one = self.dice.roll(pods + open.len() as u64);
        if one < pods {
            self.ledger.answered += 1;
            return;
        }
        let index = open[usize::try_from(one - pods).unwrap_or(0)];
        let (now, at) = (self.now, self.members[index].time(self.now));
        let member = &mut self.members[index];
        member.held.push(now);
        member.asks += 1;
        member.arrivals += 1;
        member.last_ask = Some(at);
        self.at(1, Event::Turn(index));
    }

    /// What the annotations say.
    pub(super) fn phase(&self) -> &str {
        self.objects.annotations.get(key::PHASE).map_or("awake", String::as_str)
    }

    pub(super) fn show(&self) -> String {
        format!(
            "after {:?}: {:?}\nleader {:?}, members {:?}",
            span(self.now),
            self.objects,
            self.leader,
            self.members.iter().filter(|member| member.alive).collect::<Vec<_>>()
        )
    }
}
