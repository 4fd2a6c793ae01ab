//! What a ledger's next owner needs to go on from it: each counter's fingerprint, and when it moved last.
//!
//! A counter that shows the very number it showed before, on a process that is still the same one, did not move
//! meanwhile: nobody has to have looked.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use super::{Ledger, OPEN, key_of, restarted};

/// The beginning of a SHA-256 sum: names and numbers need as little room as they can.
pub(in crate::activity) type Print = [u8; 6];

/// What is kept of a ledger. Made by [`Ledger::baseline`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::activity) struct Baseline {
    /// Where the knowledge begins.
    pub(in crate::activity) floor: Timestamp,
    /// Every instance, and when its process started.
    pub(in crate::activity) instances: BTreeMap<String, Timestamp>,
    /// Every key that was ever active and is shown, by its name's print.
    pub(in crate::activity) rows: BTreeMap<Print, Row>,
    /// Counters that were active and are not shown any more.
    pub(in crate::activity) gone: BTreeMap<String, Timestamp>,
}

/// One key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::activity) struct Row {
    /// Of all its counters, on every instance.
    pub(in crate::activity) counts: Print,
    /// When one of them moved last.
    pub(in crate::activity) moved: Timestamp,
}

/// What came of a baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::activity) enum Recalled {
    /// Not every instance could be read: to be tried again.
    NotYet,
    /// A process has ended since, or a counter is gone: what it counted last nobody can tell.
    Nothing,
    /// So many keys have not moved since.
    Keys(usize),
}

/// The counters of one key, while they are gone through.
#[derive(Default)]
struct Counts {
    /// Does not depend on the order.
    sum: u64,
    /// One of them is above zero and open, or is no number of a counter.
    is_restless: bool,
}

impl Ledger {
    /// What its next owner needs, unless some instance does not say when it started, or was never read.
    pub(in crate::activity) fn baseline(&self) -> Option<Baseline> {
        let started =
            |(name, instance): (&Arc<str>, &super::Instance)| Some((name.to_string(), instance.started?));
        let instances = self.instances.iter().map(started).collect::<Option<BTreeMap<_, _>>>()?;
        let complete = !instances.is_empty() && self.unseen.is_empty();
        let counts = self.counts();
        let (floor, rows, gone) = (self.floor, BTreeMap::new(), BTreeMap::new());
        let mut baseline = Baseline { floor, instances, rows, gone };
        for (identity, moved) in &self.changed {
            let Some(counts) = counts.get(key_of(identity)) else {
                baseline.gone.insert(identity.to_string(), *moved);
                continue;
            };
            let row = Row { counts: short(counts.sum), moved: *moved };
            let known = baseline.rows.entry(print(key_of(identity))).or_insert(row);
            known.moved = known.moved.max(*moved);
        }
        complete.then_some(baseline)
    }

    /// Takes over what the one before knew, as far as it still holds. `at` is the moment of the last look.
    pub(in crate::activity) fn recall(&mut self, baseline: &Baseline, at: Timestamp) -> Recalled {
        if self.down || !self.unseen.is_empty() {
            return Recalled::NotYet;
        }
        let lives = |(name, started): (&String, &Timestamp)| {
            let now = self.instances.get(name.as_str()).and_then(|instance| instance.started);
            restarted(Some(*started), now) == Some(false)
        };
        let counts = self.counts();
        let shown: BTreeMap<Print, (&str, &Counts)> =
            counts.iter().map(|(key, counts)| (print(key), (*key, counts))).collect();
        if !baseline.instances.iter().all(lives) || !baseline.rows.keys().all(|key| shown.contains_key(key)) {
            self.begin_again(at);
            return Recalled::Nothing;
        }
        let stands = |(key, row): (&Print, &Row)| {
            let (name, counts) = shown.get(key)?;
            let same = short(counts.sum) == row.counts && !counts.is_restless;
            same.then(|| ((*name).to_owned(), row.moved.min(at)))
        };
        let stood: BTreeMap<String, Timestamp> = baseline.rows.iter().filter_map(stands).collect();
        if !self.lost {
            // Of a process that nobody knew, what ran in its place before it is not known.
            let is_new = |name: &&Arc<str>| !baseline.instances.contains_key(&***name);
            let new = self.instances.iter().filter(|(name, _)| is_new(name));
            let begun = new.map(|(_, instance)| instance.started.unwrap_or(at)).max();
            self.floor = begun.unwrap_or(Timestamp::MIN).max(baseline.floor).min(self.floor);
        }
        for (identity, moved) in &mut self.changed {
            if let Some(before) = stood.get(key_of(identity)) {
                *moved = *before;
            }
        }
        for (identity, moved) in &baseline.gone {
            self.changed.entry(Arc::from(identity.as_str())).or_insert(*moved.min(&at));
        }
        Recalled::Keys(stood.len())
    }

    /// Every key that is shown, with what its counters show.
    fn counts(&self) -> BTreeMap<&str, Counts> {
        let mut all: BTreeMap<&str, Counts> = BTreeMap::new();
        for (name, instance) in &self.instances {
            for (identity, counter) in &instance.counters {
                let counts = all.entry(key_of(identity)).or_default();
                let value = counter.value;
                let text = format!("{name}\n{identity}\n{:016x}", value.to_bits());
                counts.sum = counts.sum.wrapping_add(number(text.as_bytes()));
                counts.is_restless |= !value.is_finite() || (value > 0.0 && identity.ends_with(OPEN));
            }
        }
        all
    }
}

fn number(bytes: &[u8]) -> u64 {
    let sum = digest(&SHA256, bytes);
    let first = sum.as_ref().first_chunk().copied().unwrap_or_default();
    u64::from_be_bytes(first)
}

fn print(key: &str) -> Print {
    short(number(key.as_bytes()))
}

fn short(number: u64) -> Print {
    let [print @ .., _, _] = number.to_be_bytes();
    print
}
