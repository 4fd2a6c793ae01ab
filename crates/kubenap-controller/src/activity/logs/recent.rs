//! The last lines of a container's log, so that a line that comes again after a reconnection is not counted twice.

use std::collections::{HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};

/// Which lines were had of late: a log is asked for by whole seconds, and answers with some of them again.
#[derive(Debug, Default)]
pub(super) struct Recent {
    last: Option<Timestamp>,
    order: VecDeque<(Timestamp, u64)>,
    known: HashSet<(Timestamp, u64)>,
}

/// So long lines are remembered; a log is asked again from a second before its last line.
const KEPT: SignedDuration = SignedDuration::from_secs(30);
/// And no more than these. What is not remembered counts again, which keeps an app awake.
const MOST: usize = 50_000;

impl Recent {
    /// Takes in a line that the runtime wrote at this moment; false: it was had before.
    pub(super) fn is_new(&mut self, at: Timestamp, line: &[u8]) -> bool {
        let mut hasher = DefaultHasher::new();
        line.hash(&mut hasher);
        let entry = (at, hasher.finish());
        // Lines of stdout and stderr may be out of order by a little; a later one is new without looking.
        if self.last.is_some_and(|last| at <= last) && self.known.contains(&entry) {
            return false;
        }
        self.last = self.last.max(Some(at));
        self.known.insert(entry);
        self.order.push_back(entry);
        let oldest = self.last.and_then(|last| last.checked_sub(KEPT).ok()).unwrap_or(Timestamp::MIN);
        while self.order.len() > MOST || self.order.front().is_some_and(|(at, _)| *at < oldest) {
            if let Some(entry) = self.order.pop_front() {
                self.known.remove(&entry);
            }
        }
        true
    }

    /// From when on the log is asked for again: a whole second, before the last line. None: no line was had.
    pub(super) fn again_from(&self) -> Option<Timestamp> {
        let second = self.last?.as_second().saturating_sub(1);
        Timestamp::from_second(second).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millisecond(millis).unwrap()
    }

    #[test]
    fn a_line_that_comes_again_is_known_and_an_equal_one_at_another_moment_is_not() {
        let mut recent = Recent::default();
        assert!(recent.is_new(at(5_000), b"GET /"));
        assert!(recent.is_new(at(5_001), b"GET /"));
        assert!(recent.is_new(at(5_001), b"GET /other"));
        for (moment, line) in [(5_000, "GET /"), (5_001, "GET /"), (5_001, "GET /other")] {
            assert!(!recent.is_new(at(moment), line.as_bytes()), "{moment} {line}");
        }
        assert!(recent.is_new(at(4_999), b"late, from stderr"));
        assert_eq!(recent.again_from(), Some(at(4_000)), "a second before the last one, and whole");
    }

    #[test]
    fn what_is_remembered_is_bounded_by_time_and_number() {
        let mut recent = Recent::default();
        for number in 0..60_000_i64 {
            assert!(recent.is_new(at(number / 100), number.to_string().as_bytes()));
        }
        assert_eq!((recent.order.len(), recent.known.len()), (MOST, MOST));
        assert!(recent.is_new(at(1_000_000), b"much later"));
        assert_eq!(recent.order.len(), 1);
    }
}
