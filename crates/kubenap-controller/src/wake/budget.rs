//! How fast apps may be woken, so that a scanner cannot wake a whole cluster at once, or one app again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kubenap_core::app::AppId;
use tokio::time::Instant;

/// What this member may wake for requests. A wake that a person asks for is not counted.
///
/// A wake beyond the budget is not refused but waits for its turn: an app for which somebody is waiting goes before
/// one whose asker has gone, and otherwise the first comes first. Requests are held meanwhile, so that nobody real is
/// sent away because of a scanner.
#[derive(Debug)]
pub struct WakeBudget(Mutex<Line>);

/// What becomes of a wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may go on.
    Go,
    /// It waits.
    Wait {
        /// About how long.
        wait: Duration,
        /// It is told so for the first time.
        first: bool,
    },
}

/// All apps of a member: a hundred at once, then twenty a second.
const ALL: Rate = Rate { burst: 100, every: Duration::from_millis(50) };
/// One app: ten at once, then ten a minute. `--min-awake` is the closer bound, unless it is very short.
const EACH: Rate = Rate { burst: 10, every: Duration::from_secs(6) };
/// An app that was let through is not counted again for the same nap: the write may have to be repeated.
const SAME_WAKE: Duration = Duration::from_secs(10);
/// An app in the line asks again within five seconds; one that does not was woken by somebody else, or is gone.
const LEFT_THE_LINE: Duration = Duration::from_secs(12);
/// Those in the line beyond this many are told the same time.
const FAR: usize = 2500;

#[derive(Debug)]
struct Line {
    bucket: Bucket,
    apps: BTreeMap<AppId, Own>,
    /// Nobody waits for it any more; when it came; which.
    order: BTreeSet<(bool, u64, AppId)>,
    next: u64,
}

#[derive(Debug)]
struct Own {
    bucket: Bucket,
    went: Option<(u64, Instant)>,
    /// Its place in the order, and when it last said that it still waits.
    place: Option<(bool, u64)>,
    heard: Instant,
}

impl WakeBudget {
    /// A whole budget.
    pub fn new(now: Instant) -> Self {
        let bucket = Bucket::new(ALL, now);
        Self(Mutex::new(Line { bucket, apps: BTreeMap::new(), order: BTreeSet::new(), next: 0 }))
    }

    /// Whether the wake that ends nap `epoch` of `app` may go on now. `awaited`: somebody waits for the app.
    pub fn turn(&self, app: &AppId, epoch: u64, awaited: bool, now: Instant) -> Turn {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).turn(app, epoch, awaited, now)
    }

    /// An app is gone.
    pub fn forget(&self, app: &AppId) {
        let mut line = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        line.leave(app);
        line.apps.remove(app);
    }
}

impl Line {
    fn turn(&mut self, app: &AppId, epoch: u64, awaited: bool, now: Instant) -> Turn {
        let next = self.next;
        let own = self.apps.entry(app.clone()).or_insert_with(|| Own::new(now));
        if own.went.is_some_and(|(of, at)| of == epoch && now.duration_since(at) < SAME_WAKE) {
            return Turn::Go;
        }
        own.heard = now;
        let first = own.place.is_none();
        let place = (!awaited, own.place.map_or(next, |(_, number)| number));
        if let Some((gone, number)) = own.place.replace(place) {
            self.order.remove(&(gone, number, app.clone()));
        } else {
            self.next = self.next.wrapping_add(1);
        }
        let own_wait = own.bucket.until(1, now);
        self.order.insert((place.0, place.1, app.clone()));
        let ahead = self.ahead(app, place, now);
        if own_wait.is_zero() && self.bucket.has(ahead + 1, now) {
            self.leave(app);
            self.bucket.take(now);
            if let Some(own) = self.apps.get_mut(app) {
                own.bucket.take(now);
                own.went = Some((epoch, now));
            }
            return Turn::Go;
        }
        Turn::Wait { wait: own_wait.max(self.bucket.until(ahead + 1, now)), first }
    }

    /// How many are before it; those who have left without a word are taken out.
    fn ahead(&mut self, app: &AppId, (gone, number): (bool, u64), now: Instant) -> usize {
        let before = self.order.range(..(gone, number, app.clone())).take(FAR);
        let (mut ahead, mut left) = (0, Vec::new());
        for (_, _, other) in before {
            match self.apps.get(other) {
                Some(own) if now.duration_since(own.heard) >= LEFT_THE_LINE => left.push(other.clone()),
                // It waits for its own sake, and must not hold up anybody.
                Some(own) if !own.bucket.has(1, now) => {}
                Some(_) => ahead += 1,
                None => {}
            }
        }
        for other in &left {
            self.leave(other);
        }
        ahead
    }

    fn leave(&mut self, app: &AppId) {
        if let Some((gone, number)) = self.apps.get_mut(app).and_then(|own| own.place.take()) {
            self.order.remove(&(gone, number, app.clone()));
        }
    }
}

impl Own {
    fn new(now: Instant) -> Self {
        Self { bucket: Bucket::new(EACH, now), went: None, place: None, heard: now }
    }
}

/// So many at once, and one more each `every`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) every: Duration,
}

/// A token bucket, as the one moment at which it is, or was, full.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    rate: Rate,
    full: Instant,
}

impl Bucket {
    pub(crate) fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, full: now }
    }

    /// How long until it has so many. More than it can ever hold at once are counted as if they were taken one by one.
    pub(crate) fn until(&self, count: usize, now: Instant) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let missing = self.full.saturating_duration_since(now) + self.rate.every.saturating_mul(count);
        missing.saturating_sub(self.rate.every.saturating_mul(self.rate.burst))
    }

    fn has(&self, count: usize, now: Instant) -> bool {
        self.until(count, now).is_zero()
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let has = self.has(1, now);
        if has {
            self.full = self.full.max(now) + self.rate.every;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn app(number: usize) -> AppId {
        AppId::new("shop", format!("web{number}"))
    }

    /// Asks for `apps` each half second until all of them went; says when each did, and how many went each second.
    fn flood(
        budget: &WakeBudget,
        apps: usize,
        awaited: impl Fn(usize) -> bool,
        begin: Instant,
    ) -> Vec<Duration> {
        let mut went = vec![None; apps];
        for round in 0..2000 {
            let now = begin + Duration::from_millis(500) * round;
            for (number, when) in went.iter_mut().enumerate() {
                if when.is_none() && budget.turn(&app(number), 1, awaited(number), now) == Turn::Go {
                    *when = Some(now.duration_since(begin));
                }
            }
            if went.iter().all(Option::is_some) {
                break;
            }
        }
        went.into_iter().map(|when| when.expect("it never went")).collect()
    }

    #[test]
    fn a_scanner_wakes_no_more_than_the_budget_and_everybody_in_the_end() {
        let begin = Instant::now();
        let budget = WakeBudget::new(begin);
        let went = flood(&budget, 400, |_| false, begin);
        for second in 0..60_u64 {
            let until = Duration::from_secs(second);
            let count = went.iter().filter(|when| **when <= until).count() as u64;
            assert!(count <= 100 + 20 * second, "{count} within {second} s");
        }
        assert!(went.iter().max() <= Some(&Duration::from_secs(17)), "{:?}", went.iter().max());
    }

    #[test]
    fn an_app_that_somebody_waits_for_goes_before_all_whose_askers_have_gone() {
        let begin = Instant::now();
        let budget = WakeBudget::new(begin);
        let went = flood(&budget, 400, |number| number == 399, begin);
        assert!(went[399] <= Duration::from_millis(500), "{:?}", went[399]);
    }

    #[test]
    fn one_app_cannot_be_woken_again_and_again() {
        let begin = Instant::now();
        let budget = WakeBudget::new(begin);
        let mut wakes = 0;
        for epoch in 0..600 {
            let now = begin + Duration::from_secs(1) * epoch;
            wakes += u32::from(budget.turn(&app(0), u64::from(epoch), true, now) == Turn::Go);
            assert_eq!(budget.turn(&app(1), 1, true, begin), Turn::Go, "others do not notice");
        }
        assert!((100..=111).contains(&wakes), "{wakes} in ten minutes");
    }

    #[test]
    fn a_write_that_is_repeated_is_counted_once_and_who_left_holds_up_nobody() {
        let begin = Instant::now();
        let budget = WakeBudget::new(begin);
        for _ in 0..1000 {
            assert_eq!(budget.turn(&app(0), 1, true, begin), Turn::Go);
        }
        for number in 1..400 {
            budget.turn(&app(number), 1, true, begin);
        }
        // Three hundred wait; none of them comes again.
        let later = begin + LEFT_THE_LINE;
        assert_eq!(budget.turn(&app(1000), 1, false, later), Turn::Go);
        let Line { order, .. } = &*budget.0.lock().unwrap();
        assert!(order.is_empty(), "{} are still in the line", order.len());
    }

    proptest! {
        #[test]
        fn a_bucket_never_gives_more_than_its_rate(waits in proptest::collection::vec(0u64..400, 1..300)) {
            let rate = Rate { burst: 5, every: Duration::from_millis(100) };
            let begin = Instant::now();
            let mut bucket = Bucket::new(rate, begin);
            let (mut now, mut given) = (begin, 0_u128);
            for wait in waits {
                now += Duration::from_millis(wait);
                let said = bucket.until(1, now);
                let took = bucket.take(now);
                prop_assert_eq!(took, said.is_zero());
                given += u128::from(took);
                prop_assert!(given <= 5 + now.duration_since(begin).as_millis() / 100);
            }
        }
    }
}
