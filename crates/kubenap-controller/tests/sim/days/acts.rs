//! What befalls the app and KubeNap in the course of a day, and the checks in between.

use std::rc::Rc;

use jiff::SignedDuration;
use kubenap_core::app::key;
use kubenap_core::policy::Texts;
use kubenap_core::seen::Slice;
use kubenap_core::situation::only_slices_know;

use super::cluster::Objects;
use super::member::{Millis, time};
use super::story::{Event, Story};
use crate::source::Mood;

/// Something that a person or the world does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// So many requests in a row.
    Visit(u64),
    Scale,
    OwnersZero,
    OwnersReturn,
    Rollout,
    Undo,
    Label(bool),
    Wish(&'static str),
    Garbage,
    Tidy,
    Crash,
    CrashAtWrite,
    Replace,
    Leave(usize),
    Join,
    Cut,
    Mend(usize),
    Away(bool),
    Flaky(bool),
    Broken(bool),
    Lag,
    InTime(usize),
    TwoLeaders(bool),
    Lie,
    Truth,
    /// Faults are over for today.
    Evening,
    /// It must be asleep by now, and nothing is written until the morning.
    Night,
    /// Nothing was; the first request comes.
    Dawn,
    /// It must be awake, and without a trace.
    Morning,
}

const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
pub(super) const DAY: Millis = 24 * HOUR;

/// What may befall at random, and how often a day, in sixths.
const FAULTS: [(Act, u64); 18] = [
    (Act::Crash, 9),
    (Act::CrashAtWrite, 9),
    (Act::Replace, 6),
    (Act::Join, 4),
    (Act::Cut, 9),
    (Act::Away(true), 6),
    (Act::Flaky(true), 6),
    (Act::Broken(true), 2),
    (Act::Lag, 6),
    (Act::TwoLeaders(true), 3),
    (Act::Lie, 24),
    (Act::Scale, 5),
    (Act::OwnersZero, 1),
    (Act::Rollout, 5),
    (Act::Undo, 4),
    (Act::Label(false), 3),
    (Act::Wish("nap"), 6),
    (Act::Garbage, 2),
];

impl Story {
    /// Plans a day that begins now, at midnight.
    pub(super) fn plan_day(&mut self) {
        for (act, often) in FAULTS {
            for _ in 0..often {
                if self.one_in(6) {
                    let at = self.between(6 * HOUR + 20 * MINUTE, 20 * HOUR);
                    self.at(at, Event::Act(act));
                }
            }
        }
        for _ in 0..self.between(2, 14) {
            let (at, many) = (self.between(6 * HOUR + 10 * MINUTE, 21 * HOUR), self.between(1, 30));
            self.at(at, Event::Act(Act::Visit(many)));
        }
        self.at(21 * HOUR, Event::Act(Act::Evening));
        // The next night is the next day's.
        self.at(4 * HOUR, Event::Act(Act::Night));
        self.at(6 * HOUR, Event::Act(Act::Dawn));
        self.at(6 * HOUR + 5 * MINUTE, Event::Act(Act::Morning));
    }

    pub(super) fn perform(&mut self, act: Act) {
        if self.told {
            super::say(self.now, &format!("{act:?}, {}", self.phase()));
        }
        let fault = !matches!(act, Act::Visit(_) | Act::Evening | Act::Night | Act::Dawn | Act::Morning);
        if fault {
            (self.ledger.disturbed, self.ledger.faults) = (self.now, self.ledger.faults + 1);
        }
        match act {
            Act::Visit(left) => {
                self.at(0, Event::Ask);
                let pause = self.between(500, 3 * MINUTE);
                if left > 1 {
                    self.at(pause, Event::Act(Act::Visit(left - 1)));
                }
            }
            Act::Scale if self.ledger.owners_zero => {}
            Act::Scale => {
                let count = 1 + u32::try_from(self.dice.roll(4)).unwrap_or(0);
                self.edit(Some(count), |objects| objects.replicas = count);
            }
            Act::OwnersZero if self.phase() != "awake" || self.objects.replicas == 0 => {}
            Act::OwnersZero => {
                self.edit(Some(0), |objects| objects.replicas = 0);
                self.later(HOUR, Act::OwnersReturn);
            }
            Act::OwnersReturn => self.owners_return(),
            Act::Rollout => self.edit(None, |objects| {
                objects.copies.push(objects.annotations.clone());
                objects.template += 1;
            }),
            Act::Undo => self.undo(),
            Act::Label(on) => {
                self.label(on);
                if !on {
                    self.later(20 * MINUTE, Act::Label(true));
                }
            }
            Act::Wish(_) => {
                let wish = ["nap", "forceNap", "wake"][usize::try_from(self.dice.roll(3)).unwrap_or(0)];
                self.note(key::WISH, wish);
            }
            Act::Garbage => {
                self.note("kubenap/idleAfter", "\u{0}soon, maybe");
                self.later(30 * MINUTE, Act::Tidy);
            }
            Act::Tidy => self.tidy(),
            Act::Crash => {
                if let Some(index) = self.some_member() {
                    self.crash(index);
                    self.later(MINUTE, Act::Join);
                }
            }
            Act::CrashAtWrite => {
                if let Some(index) = self.some_member() {
                    let nth = self.between(1, 4);
                    let after = self.one_in(2);
                    self.members[index].doomed = Some((nth, after));
                }
            }
            Act::Replace => {
                if let Some(index) = self.some_member() {
                    self.perform(Act::Join);
                    self.later(40_000, Act::Leave(index));
                }
            }
            Act::Leave(index) => self.leave(index),
            Act::Join => {
                if self.living_members().len() < 3 {
                    let skew = [0, 0, 0, -5, 5][usize::try_from(self.dice.roll(5)).unwrap_or(0)];
                    self.join(SignedDuration::from_mins(skew));
                }
            }
            Act::Cut => {
                if let Some(index) = self.some_member() {
                    self.cut(index);
                    self.later(10 * MINUTE, Act::Mend(index));
                }
            }
            Act::Mend(index) => self.mend(index),
            Act::Away(away) => {
                self.away = away;
                for index in self.living_members() {
                    if away { self.cut(index) } else { self.mend(index) }
                }
                if away {
                    self.later(5 * MINUTE, Act::Away(false));
                }
            }
            Act::Flaky(flaky) => {
                self.flaky = flaky;
                if flaky {
                    self.later(20 * MINUTE, Act::Flaky(false));
                }
            }
            Act::Broken(broken) => {
                self.broken = broken;
                if broken {
                    self.later(HOUR, Act::Broken(false));
                }
            }
            Act::Lag => {
                if let Some(index) = self.some_member() {
                    self.members[index].lag = self.between(500, 8_000);
                    self.later(30 * MINUTE, Act::InTime(index));
                }
            }
            Act::InTime(index) => self.members[index].lag = 5 + u64::from(self.members[index].nth),
            Act::TwoLeaders(all) => {
                self.all_lead = all;
                if all {
                    self.later(2 * HOUR, Act::TwoLeaders(false));
                }
            }
            Act::Lie => {
                self.mood = match self.dice.roll(4) {
                    0 => Mood::Down,
                    1 => Mood::Empty,
                    2 => Mood::Busy,
                    _ => Mood::Stuck(time(self.now)),
                };
                self.later(HOUR, Act::Truth);
            }
            Act::Truth => self.mood = Mood::Fine,
            Act::Evening => self.evening(),
            Act::Night => self.night(),
            Act::Dawn => self.dawn(),
            Act::Morning => self.morning(),
        }
    }

    /// Within so much time.
    fn later(&mut self, most: Millis, act: Act) {
        let at = self.between(1_000, most);
        self.at(at, Event::Act(act));
    }

    fn living_members(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|index| self.members[*index].alive).collect()
    }

    fn some_member(&mut self) -> Option<usize> {
        let living = self.living_members();
        let at = usize::try_from(self.dice.roll(living.len().max(1) as u64)).ok()?;
        living.get(at).copied()
    }

    /// Somebody who is not KubeNap writes on the Deployment.
    fn edit(&mut self, replicas: Option<u32>, edit: impl FnOnce(&mut Objects)) {
        self.ledger.edited(self.now, replicas);
        self.change(|objects| {
            edit(objects);
            objects.edited();
        });
    }

    fn note(&mut self, name: &str, value: &str) {
        let (name, value) = (name.to_owned(), value.to_owned());
        self.edit(None, |objects| drop(objects.annotations.insert(name, value)));
    }

    /// `kubectl rollout undo`: the last but one template, and the annotations that its ReplicaSet has.
    fn undo(&mut self) {
        let objects = Rc::clone(&self.objects);
        // With no slice and no copy there is nothing left to know the sleep by.
        if objects.copies.len() < 2 || objects.replicas == 0 && objects.slices.is_empty() {
            return;
        }
        self.edit(None, |objects| {
            let old: Texts = objects.copies.remove(objects.copies.len() - 2);
            objects.annotations.clone_from(&old);
            objects.copies.push(old);
            objects.template += 1;
        });
    }

    /// Ends a member as SIGTERM does.
    fn leave(&mut self, index: usize) {
        if !self.members[index].alive {
            return;
        }
        if self.members[index].cut.is_none() {
            let name = self.members[index].name.clone();
            let deployment = self.objects.seen().deployment;
            let needed =
                |slice: &Slice| slice.apps.values().any(|stamp| only_slices_know(&deployment, *stamp));
            self.change(|objects| {
                objects.slices.retain(|_, slice| slice.member != name || needed(slice));
                for slice in objects.slices.values_mut().filter(|slice| slice.member == name) {
                    slice.addresses.clear();
                    slice.resource_version = (objects.clock + 1).to_string();
                }
            });
        }
        self.crash(index);
        if self.members[index].cut.is_none() {
            self.members[index].lease = self.now;
        }
    }

    fn cut(&mut self, index: usize) {
        if self.members[index].alive && self.members[index].cut.is_none() {
            self.members[index].cut = Some(self.now);
            self.lapse(index);
        }
    }

    fn mend(&mut self, index: usize) {
        if !self.away && self.members[index].cut.take().is_some() {
            self.ledger.disturbed = self.now;
            self.members[index].steady = self.now;
            let soon = self.between(1, 5_000);
            self.at(soon, Event::Renew(index));
        }
    }

    fn label(&mut self, on: bool) {
        self.edit(None, |objects| drop(objects.labels.insert(key::ENABLED.to_owned(), on.to_string())));
    }

    /// For good.
    pub(super) fn opt_out(&mut self) {
        self.label(false);
    }

    fn tidy(&mut self) {
        if self.objects.annotations.contains_key("kubenap/idleAfter") {
            self.edit(None, |objects| drop(objects.annotations.remove("kubenap/idleAfter")));
        }
    }

    fn evening(&mut self) {
        // Also what an undo brought back.
        self.tidy();
        (self.flaky, self.broken, self.all_lead, self.mood) = (false, false, false, Mood::Fine);
        self.away = false;
        for index in self.living_members() {
            self.mend(index);
            self.members[index].doomed = None;
            self.members[index].lag = 5 + u64::from(self.members[index].nth);
        }
        if self.living_members().is_empty() {
            self.join(SignedDuration::ZERO);
        }
        self.owners_return();
    }

    /// The owner ends the zero that is the owner's.
    fn owners_return(&mut self) {
        if self.ledger.owners_zero {
            let count = self.ledger.wanted;
            self.edit(Some(count), |objects| objects.replicas = count);
        }
    }
}
