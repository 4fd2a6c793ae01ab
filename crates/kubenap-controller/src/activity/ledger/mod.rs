//! From looks at counters to the moment of the last activity: one set of rules for every source of counters.
//!
//! A counter tells of activity when it changed and is above zero, or is new and above zero. Counters are never
//! summed over instances, so that one replica's loss cannot hide another one's gain. What a look cannot show,
//! such as the last moments of an instance that ended, counts as activity where the instance was in use.

mod baseline;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub(super) use baseline::{Baseline, Print, Recalled, Row};

use super::preset::{ANY, DETAIL, OPEN, UNSURE};

/// All instances of one proxy, at one moment.
#[derive(Debug, Default)]
pub(super) struct Look {
    /// The instances that were read.
    pub(super) live: BTreeMap<Arc<str>, Sight>,
    /// The instances that should be there and could not be read.
    pub(super) down: BTreeSet<Arc<str>>,
}

/// What one instance showed.
#[derive(Debug)]
pub(super) struct Sight {
    /// Up to when it shows everything, on the controller's clock.
    pub(super) scraped: Timestamp,
    /// When its process started, where it says so.
    pub(super) started: Option<Timestamp>,
    /// Its counters.
    pub(super) counters: BTreeMap<Arc<str>, f64>,
}

/// What is remembered from look to look.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    floor: Timestamp,
    changed: BTreeMap<Arc<str>, Timestamp>,
    /// Every key that was ever shown, and when last.
    known: BTreeMap<Arc<str>, Timestamp>,
    instances: BTreeMap<Arc<str>, Instance>,
    /// Instances that are down and were never read.
    unseen: BTreeSet<Arc<str>>,
    down: bool,
    /// Whether something has ended since this ledger began, and with it what it showed.
    lost: bool,
    looks: u64,
}

#[derive(Clone, Debug)]
struct Instance {
    first: Timestamp,
    scraped: Timestamp,
    started: Option<Timestamp>,
    counters: BTreeMap<Arc<str>, Counter>,
    /// It was read last in a replay, whose steps are long: others may have seen more of it.
    replayed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Counter {
    value: f64,
    /// The number of the look in which it changed last.
    moved: u64,
}

/// Where a counter is shown: its instance, since when that is known and up to when it was read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    pub(super) first: Timestamp,
    pub(super) scraped: Timestamp,
}

/// An instance that ended this long after its last scrape may have served anything meanwhile.
pub(super) const BLINK: Duration = Duration::from_mins(2);

/// Envoy's uptime is as old as its last flush, so that its start seems to move to and fro.
const JITTER: SignedDuration = SignedDuration::from_secs(10);

/// Activity older than this is forgotten; nothing before it is known any more then.
const MEMORY: SignedDuration = SignedDuration::from_hours(24 * 31);

impl Ledger {
    /// A ledger whose knowledge begins at `floor`.
    pub(super) fn since(floor: Timestamp) -> Self {
        Self {
            floor,
            changed: BTreeMap::new(),
            known: BTreeMap::new(),
            instances: BTreeMap::new(),
            unseen: BTreeSet::new(),
            down: false,
            lost: false,
            looks: 0,
        }
    }

    /// Takes in one look. `at` is the latest moment at which activity it shows can have been;
    /// an instance that was not read for longer than `blink` before it ended leaves a hole in what is known.
    pub(super) fn observe(&mut self, at: Timestamp, look: Look, blink: Duration) {
        self.looks += 1;
        self.down = !look.down.is_empty();
        let blink = SignedDuration::try_from(blink).unwrap_or(SignedDuration::MAX);
        let ended: Vec<_> = self
            .instances
            .keys()
            .filter(|name| !look.live.contains_key(*name) && !look.down.contains(*name))
            .cloned()
            .collect();
        for name in ended {
            if let Some(instance) = self.instances.remove(&name) {
                self.end(&instance, at, blink);
            }
        }
        let first_seen = look.live.iter().filter(|(name, _)| self.unseen.contains(*name));
        let begun = first_seen.map(|(_, sight)| sight.started.unwrap_or(at)).max();
        // What it served before it was read first went with the process that served it.
        self.floor = self.floor.max(begun.unwrap_or(self.floor));
        if self.unseen.iter().any(|name| !look.live.contains_key(name) && !look.down.contains(name)) {
            // It went and was never read.
            self.floor = self.floor.max(at);
        }
        self.unseen = look.down.iter().filter(|name| !self.instances.contains_key(*name)).cloned().collect();
        for (name, sight) in look.live {
            self.read(name, sight, at, blink);
        }
        self.forget(at);
    }

    /// Whether a process has ended since the last look, and with it what it had counted until then.
    pub(super) fn loses(&self, look: &Look) -> bool {
        self.instances.iter().any(|(name, known)| match look.live.get(name) {
            Some(sight) => restarted(known.started, sight.started).unwrap_or(false),
            None => !look.down.contains(name),
        })
    }

    fn read(&mut self, name: Arc<str>, sight: Sight, at: Timestamp, blink: SignedDuration) {
        let mut before = self.instances.remove(&name);
        if let Some(known) = &before {
            let named = restarted(known.started, sight.started);
            // Without a start time, a counter that lost something after a long silence tells of a restart.
            let lost = || {
                known
                    .counters
                    .iter()
                    .any(|(key, was)| sight.counters.get(key).is_none_or(|is| *is < was.value))
            };
            let silent = at.duration_since(known.scraped) > blink;
            if named.unwrap_or_else(|| silent && lost()) {
                self.end(known, at, blink);
                before = before.map(|known| Instance { counters: BTreeMap::new(), ..known });
            }
        }
        let first = before.as_ref().map_or(at, |known| known.first);
        let mut counters = BTreeMap::new();
        for (key, value) in sight.counters {
            let was = before.as_ref().and_then(|known| known.counters.get(&key)).copied();
            // Compared as they are: a counter that stands still shows the very same number.
            let same = was.is_some_and(|was| was.value.to_bits() == value.to_bits());
            // A number that no counter can have is no proof of silence.
            let absurd = !value.is_finite() || value < 0.0;
            let moved = absurd || (value > 0.0 && (!same || key.ends_with(OPEN)));
            if moved {
                self.changed.insert(Arc::clone(&key), at);
            }
            if was.is_none() || moved {
                self.know(key_of(&key), at);
            }
            let moved = if moved { self.looks } else { was.map_or(0, |was| was.moved) };
            counters.insert(key, Counter { value, moved });
        }
        self.instances.insert(
            name,
            Instance { first, scraped: sight.scraped, started: sight.started, counters, replayed: false },
        );
    }

    /// What the instance did between its last scrape and its end is not known.
    fn end(&mut self, instance: &Instance, at: Timestamp, blink: SignedDuration) {
        self.lost = true;
        if instance.replayed || at.duration_since(instance.scraped) > blink {
            self.floor = self.floor.max(at);
        }
        for (key, counter) in &instance.counters {
            if counter.moved > 0 && counter.moved + 2 >= self.looks {
                self.changed.insert(Arc::clone(key), at);
            }
        }
    }

    fn forget(&mut self, at: Timestamp) {
        let Ok(oldest) = at.checked_sub(MEMORY) else { return };
        let before = self.changed.len();
        self.changed.retain(|_, moment| *moment >= oldest);
        if self.changed.len() != before {
            self.floor = self.floor.max(oldest);
        }
        self.known.retain(|_, moment| *moment >= oldest);
    }

    fn know(&mut self, key: &str, at: Timestamp) {
        if let Some(known) = self.known.get_mut(key) {
            *known = at;
        } else {
            self.known.insert(Arc::from(key), at);
        }
    }

    /// Takes in activity that was seen as such, and not as a counter that changed.
    pub(super) fn mark(&mut self, key: &str, at: Timestamp) {
        self.know(key_of(key), at);
        match self.changed.get_mut(key) {
            Some(known) => *known = at.max(*known),
            None => {
                self.changed.insert(Arc::from(key), at);
            }
        }
    }

    /// Takes in that there is a series of this key.
    pub(super) fn meet(&mut self, key: &str, at: Timestamp) {
        self.know(key_of(key), at);
    }

    /// All looks so far were steps of a replay.
    pub(super) fn end_replay(&mut self) {
        for instance in self.instances.values_mut() {
            instance.replayed = true;
        }
    }

    /// Nothing from before this moment is known.
    pub(super) fn begin_again(&mut self, at: Timestamp) {
        self.lost = true;
        self.floor = self.floor.max(at);
    }

    /// How many keys were ever shown.
    pub(super) fn known_keys(&self) -> usize {
        self.known.len()
    }

    /// Whether a series of this key was ever shown, or one that begins so.
    pub(super) fn has_known(&self, key: &str) -> bool {
        let Some(prefix) = key.strip_suffix(ANY) else { return self.known.contains_key(key) };
        let mut from = self.known.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        from.next().is_some_and(|(known, _)| known.starts_with(prefix))
    }

    /// Where the knowledge begins.
    pub(super) fn floor(&self) -> Timestamp {
        self.floor
    }

    /// When any counter of this key showed activity last; those of answers that may come from no pod count only if
    /// `unsure`.
    pub(super) fn changed(&self, key: &str, unsure: bool) -> Option<Timestamp> {
        if let Some(prefix) = key.strip_suffix(ANY) {
            return self.changed_from(prefix).map(|(_, moment)| moment).max();
        }
        let details = self.changed_from(key).filter(|(own, _)| {
            own.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with(DETAIL))
                && (unsure || !own.ends_with(UNSURE))
        });
        details.map(|(_, moment)| moment).max()
    }

    /// The counters that showed activity in the look of this moment.
    pub(super) fn changed_at(&self, at: Timestamp) -> impl Iterator<Item = &Arc<str>> {
        self.changed.iter().filter(move |(_, moment)| **moment == at).map(|(key, _)| key)
    }

    /// The counters with this prefix that ever showed activity.
    pub(super) fn changed_from<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, Timestamp)> {
        self.changed
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .map(|(key, moment)| (&**key, *moment))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// Up to when every instance was read; `None` when one never was, or when there is none.
    pub(super) fn watermark(&self) -> Option<Timestamp> {
        let oldest = self.instances.values().map(|instance| instance.scraped).min();
        oldest.filter(|_| self.unseen.is_empty())
    }

    /// Whether an instance that should be there could not be read.
    pub(super) fn is_down(&self) -> bool {
        self.down
    }

    /// Whether the instance is known.
    pub(super) fn knows(&self, instance: &str) -> bool {
        self.instances.contains_key(instance)
    }

    /// Whether the instance should be there and was never read.
    pub(super) fn misses(&self, instance: &str) -> bool {
        self.unseen.contains(instance)
    }

    /// Every counter there is now, and the instances that show it.
    pub(super) fn index(&self) -> BTreeMap<&str, Vec<Shown>> {
        let mut index: BTreeMap<&str, Vec<Shown>> = BTreeMap::new();
        for instance in self.instances.values() {
            let shown = Shown { first: instance.first, scraped: instance.scraped };
            for key in instance.counters.keys() {
                index.entry(key_of(key)).or_default().push(shown);
            }
        }
        index
    }
}

/// Whether these are the starts of two processes; none: they do not say.
fn restarted(then: Option<Timestamp>, now: Option<Timestamp>) -> Option<bool> {
    then.zip(now).map(|(then, now)| then.duration_since(now).abs() > JITTER)
}

/// The key without what tells series of it apart.
fn key_of(identity: &str) -> &str {
    identity.split_once(DETAIL).map_or(identity, |(key, _)| key)
}
