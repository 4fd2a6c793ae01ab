//! A breaker for each app: how soon a wake that failed may be tried again, and what those who ask are told meanwhile.
//!
//! Open, nothing is tried; when its time is over it is half open: one try may go through, and either closes it or opens
//! it for twice as long. It lives in a member's memory, so that a restart costs one try.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::seen::Trouble;
use crate::why::Why;

/// The time after the first failure.
const FIRST: Duration = Duration::from_secs(2);
/// However often it failed, it is tried again after this long.
const LONGEST: Duration = Duration::from_secs(60);

/// The breaker of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker(Option<Box<Failure>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Failure {
    /// Tries in a row that failed.
    times: u32,
    /// No try before this moment.
    until: Timestamp,
    trouble: Trouble,
    said: Option<String>,
}

/// Why a wake is not tried now, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Barred {
    /// What the last try met.
    pub trouble: Trouble,
    /// What the API server said, where it refused the wake itself; one line.
    pub said: Option<String>,
    /// How much longer.
    pub left: Duration,
}

impl Breaker {
    /// A try failed: open, for twice as long as the last time.
    pub fn failed(&mut self, trouble: Trouble, said: Option<String>, now: Timestamp) {
        let times = self.0.as_ref().map_or(0, |failure| failure.times).saturating_add(1);
        let span = SignedDuration::try_from(pause(times)).unwrap_or(SignedDuration::ZERO);
        let until = now.checked_add(span).unwrap_or(Timestamp::MAX);
        self.0 = Some(Box::new(Failure { times, until, trouble, said }));
    }

    /// The app is well: closed.
    pub fn close(&mut self) {
        self.0 = None;
    }

    /// Open: no try now.
    pub fn barred(&self, now: Timestamp) -> Option<Barred> {
        let failure = self.0.as_ref()?;
        // A clock that was set back must not bar it for longer than a pause.
        let left = Duration::try_from(failure.until.duration_since(now)).ok()?.min(pause(failure.times));
        (!left.is_zero()).then(|| Barred { trouble: failure.trouble, said: failure.said.clone(), left })
    }

    /// Half open: it failed before, and one try may go through.
    pub fn is_half_open(&self, now: Timestamp) -> bool {
        self.0.is_some() && self.barred(now).is_none()
    }

    /// What `Retry-After` says: it grows with each failure, up to a minute.
    pub fn retry_after(&self) -> Duration {
        pause(self.0.as_ref().map_or(1, |failure| failure.times))
    }
}

impl Barred {
    /// The reason, as everywhere.
    pub fn why(&self) -> Why {
        match &self.said {
            Some(said) => Why::WakeDenied(said.clone()),
            None => Why::CannotStart(self.trouble),
        }
    }
}

/// How long it is open after so many failures in a row.
fn pause(times: u32) -> Duration {
    let doubled = 1_u32.checked_shl(times.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST.saturating_mul(doubled).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// Seconds, whether a try at that moment fails or does well, whether it may be made, what `Retry-After` says then.
    type Row = (i64, Option<bool>, bool, u64);

    fn tell(rows: &[Row]) {
        let mut breaker = Breaker::default();
        for (second, well, may, retry_after) in rows.iter().copied() {
            let now = at(second);
            assert_eq!(breaker.barred(now).is_none(), may, "at {second} s: {breaker:?}");
            match well {
                Some(true) => breaker.close(),
                Some(false) => breaker.failed(Trouble::Image, None, now),
                None => {}
            }
            assert_eq!(breaker.retry_after().as_secs(), retry_after, "at {second} s: {breaker:?}");
        }
    }

    #[test]
    fn each_failure_doubles_the_pause_up_to_a_minute() {
        tell(&[
            (0, None, true, 2),
            (0, Some(false), true, 2),
            (1, None, false, 2),
            (2, Some(false), true, 4),
            (5, None, false, 4),
            (6, Some(false), true, 8),
            (14, Some(false), true, 16),
            (30, Some(false), true, 32),
            (62, Some(false), true, 60),
            (121, None, false, 60),
            (122, Some(false), true, 60),
            (181, None, false, 60),
            (182, None, true, 60),
        ]);
    }

    #[test]
    fn a_try_that_does_well_closes_it_and_the_next_failure_begins_anew() {
        tell(&[
            (0, Some(false), true, 2),
            (2, Some(false), true, 4),
            (6, Some(true), true, 2),
            (6, Some(false), true, 2),
            (7, None, false, 2),
            (8, None, true, 2),
        ]);
    }

    #[test]
    fn it_is_half_open_only_after_a_failure_whose_pause_is_over() {
        let mut breaker = Breaker::default();
        assert!(!breaker.is_half_open(at(0)));
        breaker.failed(Trouble::Quota, None, at(0));
        assert_eq!([0, 1, 2, 600].map(|second| breaker.is_half_open(at(second))), [false, false, true, true]);
    }

    #[test]
    fn a_clock_that_is_set_back_bars_no_longer_than_a_pause_and_no_count_overflows() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            breaker.failed(Trouble::Quota, None, at(1_000_000));
        }
        assert_eq!(breaker.barred(at(0)).map(|barred| barred.left), Some(LONGEST));
        breaker.failed(Trouble::Quota, None, Timestamp::MAX);
        assert!(breaker.barred(Timestamp::MAX).is_none());
    }

    #[test]
    fn what_the_api_server_said_is_part_of_the_reason() {
        let mut breaker = Breaker::default();
        breaker.failed(Trouble::Denied, Some("no more replicas on Fridays".to_owned()), at(0));
        let why = breaker.barred(at(1)).map(|barred| barred.why());
        assert_eq!(why, Some(Why::WakeDenied("no more replicas on Fridays".to_owned())));
    }
}
