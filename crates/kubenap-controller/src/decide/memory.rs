//! What a member remembers of an app: only how long it has watched something, never what the app's state is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::app::AppId;
use kubenap_core::breaker::Breaker;
use kubenap_core::seen::{Phase, Pieces, Stamp};
use kubenap_core::step::Step;
use tokio::time::Instant;

use super::hook::Look;
use super::patience::Forbidden;
use super::undone::Remembered;
use crate::telemetry::WakeClock;

/// What is remembered of every app. Losing it costs a little time, nothing else.
#[derive(Debug, Default)]
pub struct Memories {
    apps: Mutex<BTreeMap<AppId, Kept>>,
    arms: Mutex<Vec<Instant>>,
}

/// As it is kept. In boxes, so that the tree's empty places cost little.
#[derive(Debug)]
enum Kept {
    /// Of an app that is awake and well: thousands are.
    Plain(Box<Plain>),
    /// Of any other.
    Whole(Box<Memory>),
}

/// What is remembered of an app to which nothing happens; all else is as in [`Memory::default`].
#[derive(Debug)]
struct Plain {
    first: Option<Timestamp>,
    opted_in: Option<Timestamp>,
    phase: Option<(Phase, u64, Instant)>,
    asks_before: u64,
    arrivals_before: u64,
    reported: Option<String>,
    newest: u64,
}

/// What is remembered of one app.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// When this member saw it first, by its own clock.
    pub first: Option<Timestamp>,
    /// Since when it is opted in, where that was seen to happen.
    pub opted_in: Option<Timestamp>,
    /// The phase and epoch it was last seen in, and since when.
    pub phase: Option<(Phase, u64, Instant)>,
    /// When it woke, or its nap was cancelled, where that was seen to happen: by this member's clock.
    pub awoke: Option<Timestamp>,
    /// How many asks there were when that phase was first seen.
    pub asks_before: u64,
    /// How many connections had arrived when that phase was first seen.
    pub arrivals_before: u64,
    /// Since when enough members' slices of an epoch are there.
    pub substituted: Option<(u64, Instant)>,
    /// The generation of the Deployment at which it sleeps without any pod that stays; none in every other phase.
    pub emptied: Option<i64>,
    /// The wake whose pods are known to be its own.
    pub confirmed: Option<Wake>,
    /// The wake in which a pod took a connection.
    pub connected: Option<Wake>,
    /// Which pods of a wake are asked, and which have said that they are ready.
    pub eager: Option<Box<Eager>>,
    /// The epoch for which the path is being proved, or was.
    pub proving: Option<u64>,
    /// The wake that this member was asked for, from the first ask on.
    pub wake: Option<Box<WakeClock>>,
    /// The reason that was reported last.
    pub reported: Option<String>,
    /// Messages that became Events already, and until when each is remembered though nothing says it any more.
    pub told: BTreeMap<String, Instant>,
    /// Failed wakes that became Events already, and until when each counts as told.
    pub failures_told: BTreeMap<String, Instant>,
    /// Failures in a row, for the pause before the next try.
    pub failures: u32,
    /// When something last said why the app cannot start.
    pub troubled: Option<Instant>,
    /// The step that could not be carried out last, and until when it is not tried again.
    pub refused: Option<Box<(Step, Instant)>>,
    /// That its wake is forbidden, and since when that is waited for.
    pub forbidden: Option<Forbidden>,
    /// Since when scheduler or controllers say that it cannot start.
    pub hearsay: Option<Instant>,
    /// Opens when a wake fails.
    pub breaker: Breaker,
    /// How many asks there were when the breaker opened last.
    pub asks_then: u64,
    /// What its ReplicaSets remember, where that was asked.
    pub remembered: Option<Box<Remembered>>,
    /// What its proxy's objects were seen to show, and when.
    pub hook: Option<Box<Look>>,
    /// What its proxy was told, and which whole objects it is yet to be told; and since when that is so.
    pub proxy_told: Option<Box<((Pieces, Pieces), Instant)>>,
    /// The newest version of its Deployment that was read live.
    pub newest: u64,
    /// When the stores were last read anew because what they show of it led nowhere.
    pub doubted: Option<Instant>,
    /// Until when its time asleep was counted.
    pub counted: Option<Instant>,
}

/// The pods of one wake that are asked whether they are ready, by their uids.
#[derive(Clone, Debug)]
pub struct Eager {
    /// The wake.
    pub wake: Wake,
    /// They are being asked, or were.
    pub asked: BTreeSet<String>,
    /// They said yes.
    pub ready: BTreeSet<String>,
}

/// One wake: its epoch, and since when. The epoch alone may come twice, where `kubectl rollout undo` took the
/// annotations back to an older one.
pub type Wake = (u64, Option<Timestamp>);

/// A phase that should pass lasts this long, or writes are refused again and again: then what watches show may lack an
/// event that never came. An API server sends each once, and a cache in between may be behind.
const DOUBT: Duration = Duration::from_secs(20);

impl Memory {
    /// What the ReplicaSets of this very Deployment said, if they were asked.
    pub fn remembered(&self, uid: &str, generation: i64) -> Option<Option<Stamp>> {
        self.remembered.as_ref()?.of(uid, generation)
    }

    /// The little that there is, if there is no more; then nothing is left of it here.
    fn plain(&mut self) -> Option<Plain> {
        // Every field is named, so that a new one is not forgotten here.
        let Self {
            first,
            opted_in,
            phase,
            awoke: None,
            asks_before,
            arrivals_before,
            substituted: None,
            emptied: None,
            confirmed: None,
            connected: None,
            eager: None,
            proving: None,
            wake: None,
            reported,
            told,
            failures_told,
            failures: 0,
            troubled: None,
            refused: None,
            forbidden: None,
            hearsay: None,
            breaker,
            asks_then: 0,
            remembered: None,
            hook: None,
            proxy_told: None,
            newest,
            doubted: None,
            counted: None,
        } = self
        else {
            return None;
        };
        let plain = told.is_empty() && failures_told.is_empty() && *breaker == Breaker::default();
        plain.then(|| Plain {
            first: *first,
            opted_in: *opted_in,
            phase: *phase,
            asks_before: *asks_before,
            arrivals_before: *arrivals_before,
            reported: reported.take(),
            newest: *newest,
        })
    }

    /// Whether what watches show is to be read anew. Counts as done: not more often than each twenty seconds.
    pub fn doubts(&mut self) -> bool {
        let passing = |phase| matches!(phase, Phase::Drowsy | Phase::Waking);
        let lasts = self.phase.is_some_and(|(phase, _, since)| passing(phase) && since.elapsed() > DOUBT);
        let lately = self.doubted.is_some_and(|at| at.elapsed() < DOUBT);
        let doubts = (self.failures > 3 || lasts) && !lately;
        if doubts {
            self.doubted = Some(Instant::now());
        }
        doubts
    }
}

impl Plain {
    fn whole(&mut self) -> Memory {
        Memory {
            first: self.first,
            opted_in: self.opted_in,
            phase: self.phase,
            asks_before: self.asks_before,
            arrivals_before: self.arrivals_before,
            reported: self.reported.take(),
            newest: self.newest,
            ..Memory::default()
        }
    }
}

impl Memories {
    /// Looks at or changes what is remembered of an app.
    pub fn with<T>(&self, app: &AppId, look: impl FnOnce(&mut Memory) -> T) -> T {
        let mut apps = self.apps();
        let kept = apps.entry(app.clone()).or_insert_with(|| Kept::Whole(Box::default()));
        match kept {
            Kept::Whole(memory) => {
                let answer = look(memory);
                if let Some(plain) = memory.plain() {
                    *kept = Kept::Plain(Box::new(plain));
                }
                answer
            }
            Kept::Plain(plain) => {
                let mut memory = plain.whole();
                let answer = look(&mut memory);
                match memory.plain() {
                    Some(new) => **plain = new,
                    None => *kept = Kept::Whole(Box::new(memory)),
                }
                answer
            }
        }
    }

    /// An app is gone.
    pub fn forget(&self, app: &AppId) {
        self.apps().remove(app);
    }

    /// One more nap began.
    pub fn armed(&self) {
        self.arms.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
    }

    /// How many naps began within the last minute.
    pub fn armed_lately(&self) -> usize {
        let mut arms = self.arms.lock().unwrap_or_else(PoisonError::into_inner);
        arms.retain(|at| at.elapsed() < Duration::from_secs(60));
        arms.len()
    }

    fn apps(&self) -> MutexGuard<'_, BTreeMap<AppId, Kept>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_of_a_quiet_app_takes_little_room_and_nothing_is_lost_when_more_happens() {
        let (memories, app) = (Memories::default(), AppId::new("shop", "web"));
        let (first, now) = (Timestamp::from_second(1).unwrap(), Instant::now());
        memories.with(&app, |memory| {
            (memory.first, memory.newest, memory.reported) = (Some(first), 7, Some("used".to_owned()));
            memory.opted_in = Some(first);
            (memory.phase, memory.asks_before) = (Some((Phase::Awake, 3, now)), 5);
        });
        assert!(matches!(memories.apps().get(&app), Some(Kept::Plain(_))));
        assert!(size_of::<Plain>() * 5 / 2 < size_of::<Memory>(), "{} bytes", size_of::<Plain>());
        let known = |memory: &mut Memory| {
            (memory.first, memory.newest, memory.reported.clone(), memory.phase, memory.asks_before)
        };
        let expected = (Some(first), 7, Some("used".to_owned()), Some((Phase::Awake, 3, now)), 5);
        assert_eq!(memories.with(&app, known), expected);
        memories.with(&app, |memory| memory.proving = Some(4));
        assert!(matches!(memories.apps().get(&app), Some(Kept::Whole(_))));
        assert_eq!(
            memories.with(&app, |memory| (known(memory), memory.proving)),
            (expected.clone(), Some(4))
        );
        memories.with(&app, |memory| memory.proving = None);
        assert!(matches!(memories.apps().get(&app), Some(Kept::Plain(_))));
        assert_eq!(memories.with(&app, known), expected);
    }
}
