//! Which naps an app would have had in the past: arithmetic over what is known of its use, without a clock.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// A part of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// Its first moment.
    pub from: Timestamp,
    /// Its last moment; not before the first.
    pub to: Timestamp,
}

/// What is known of an app's use over some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// The time that is looked at. What was before it is not known.
    pub whole: Span,
    /// When the app was used, or may have been: a use that is known only to lie between two looks is a span from the
    /// one to the other.
    pub used: Vec<Span>,
    /// Of which time nothing is known.
    pub unknown: Vec<Span>,
}

/// The naps that an app would have had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Naps {
    /// When it would have slept, in order.
    pub asleep: Vec<Span>,
    /// How many of these naps a request would have ended. One that goes on at the end of the time is none of them.
    pub wakes: usize,
}

impl Span {
    /// A span between two moments, in whichever order they come.
    pub fn new(one: Timestamp, other: Timestamp) -> Self {
        Self { from: one.min(other), to: one.max(other) }
    }

    /// How long it is.
    pub fn length(&self) -> Duration {
        Duration::try_from(self.to.duration_since(self.from)).unwrap_or(Duration::ZERO)
    }

    /// What both have in common; none if they do not even touch.
    #[must_use]
    pub fn and(self, other: Self) -> Option<Self> {
        let (from, to) = (self.from.max(other.from), self.to.min(other.to));
        (from <= to).then_some(Self { from, to })
    }
}

impl Past {
    /// The naps with this `idleAfter`.
    ///
    /// The app naps when it has been quiet for so long since its last use, since the last time of which nothing is
    /// known, and since the beginning. It wakes where the next use begins. Where nothing is known it counts as awake;
    /// whether a request came is then told by the next use that is known.
    pub fn naps(&self, idle_after: Duration) -> Naps {
        let idle_after = SignedDuration::try_from(idle_after).unwrap_or(SignedDuration::MAX);
        let later = |moment: Timestamp| moment.checked_add(idle_after).unwrap_or(Timestamp::MAX);
        let used = self.used.iter().map(|span| (*span, true));
        let unknown = self.unknown.iter().map(|span| (*span, false));
        let mut spans: Vec<_> =
            used.chain(unknown).filter_map(|(span, used)| Some((span.and(self.whole)?, used))).collect();
        spans.sort_by_key(|(span, used)| (span.from, !used));

        let mut naps = Naps::default();
        let mut awake_until = later(self.whole.from);
        // Whether it slept when what is known ended.
        let mut slept = false;
        for (span, used) in spans {
            if span.from > awake_until {
                naps.asleep.push(Span { from: awake_until, to: span.from });
                slept = true;
            }
            if used && slept {
                naps.wakes += 1;
                slept = false;
            }
            awake_until = awake_until.max(later(span.to));
        }
        if self.whole.to > awake_until {
            naps.asleep.push(Span { from: awake_until, to: self.whole.to });
        }
        naps
    }

    /// Of how much of the time nothing is known.
    pub fn unknown_for(&self) -> Duration {
        let inside = self.unknown.iter().filter_map(|span| span.and(self.whole));
        merged(inside.collect()).iter().map(Span::length).sum()
    }
}

impl Naps {
    /// How long it would have slept.
    pub fn slept(&self) -> Duration {
        self.asleep.iter().map(Span::length).sum()
    }

    /// The hours of replicas that would not have run, with so many replicas.
    pub fn replica_hours(&self, replicas: u32) -> f64 {
        self.slept().as_secs_f64() / 3600.0 * f64::from(replicas)
    }
}

/// The same time in as few spans as it takes, in order.
pub fn merged(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort();
    let mut few: Vec<Span> = Vec::new();
    for span in spans {
        match few.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => few.push(span),
        }
    }
    few
}

/// The time of `whole` that none of the spans covers.
pub fn without(whole: Span, spans: Vec<Span>) -> Vec<Span> {
    let mut rest = Vec::new();
    let mut from = whole.from;
    for span in merged(spans) {
        if span.from > from {
            rest.push(Span { from, to: span.from.min(whole.to) });
        }
        from = from.max(span.to);
        if from >= whole.to {
            return rest;
        }
    }
    rest.push(Span { from, to: whole.to });
    rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(minute * 60).unwrap()
    }

    fn span(from: i64, to: i64) -> Span {
        Span::new(at(from), at(to))
    }

    fn past(used: &[(i64, i64)], unknown: &[(i64, i64)]) -> Past {
        let spans = |of: &[(i64, i64)]| of.iter().map(|(from, to)| span(*from, *to)).collect();
        Past { whole: span(0, 100), used: spans(used), unknown: spans(unknown) }
    }

    const TEN: Duration = Duration::from_mins(10);

    #[test]
    fn it_naps_after_the_quiet_and_wakes_with_the_next_use() {
        let naps = past(&[(30, 31), (50, 60)], &[]).naps(TEN);
        assert_eq!(naps.asleep, [span(10, 30), span(41, 50), span(70, 100)]);
        assert_eq!((naps.wakes, naps.slept()), (2, Duration::from_mins(59)));
        assert!((naps.replica_hours(2) - 59.0 / 30.0).abs() < 1e-9);
    }

    #[test]
    fn an_app_that_nobody_ever_uses_sleeps_through_without_a_wake() {
        assert_eq!(past(&[], &[]).naps(TEN), Naps { asleep: vec![span(10, 100)], wakes: 0 });
    }

    #[test]
    fn an_app_that_is_used_all_the_time_never_naps() {
        let uses: Vec<_> = (0..50).map(|use_| (use_ * 2, use_ * 2 + 1)).collect();
        assert_eq!(past(&uses, &[]).naps(TEN), Naps::default());
    }

    #[test]
    fn quiet_of_exactly_idle_after_is_no_nap_that_saves_anything() {
        assert_eq!(past(&[(10, 10), (20, 100)], &[]).naps(TEN), Naps::default());
    }

    #[test]
    fn where_nothing_is_known_it_counts_as_awake_and_not_as_woken() {
        let naps = past(&[], &[(30, 50)]).naps(TEN);
        assert_eq!(naps, Naps { asleep: vec![span(10, 30), span(60, 100)], wakes: 0 });
        let woken = past(&[(45, 46)], &[(30, 50)]).naps(TEN);
        assert_eq!(woken, Naps { asleep: vec![span(10, 30), span(60, 100)], wakes: 1 });
        assert_eq!(past(&[], &[(0, 100)]).naps(TEN), Naps::default());
        assert_eq!(past(&[], &[(-50, 20), (10, 30)]).unknown_for(), Duration::from_mins(30));
    }

    #[test]
    fn what_is_covered_and_what_is_not_make_the_whole() {
        assert_eq!(merged(vec![span(5, 7), span(1, 2), span(2, 4)]), [span(1, 4), span(5, 7)]);
        assert_eq!(without(span(0, 9), vec![span(3, 5), span(1, 4)]), [span(0, 1), span(5, 9)]);
        assert_eq!(without(span(0, 9), vec![span(-3, 50)]), []);
        assert_eq!(without(span(0, 9), vec![]), [span(0, 9)]);
    }

    fn any_spans() -> impl Strategy<Value = Vec<(i64, i64)>> {
        proptest::collection::vec((-10i64..110, 0i64..20).prop_map(|(from, for_)| (from, from + for_)), 0..12)
    }

    proptest! {
        #[test]
        fn it_sleeps_only_after_idle_after_of_known_quiet(used in any_spans(), unknown in any_spans(), idle in 1i64..40) {
            let past = past(&used, &unknown);
            let naps = past.naps(Duration::from_secs(60 * idle.unsigned_abs()));
            let mut last = at(0);
            for nap in &naps.asleep {
                prop_assert!(nap.from < nap.to && nap.from >= last && nap.to <= at(100));
                prop_assert!(nap.from >= at(idle));
                for awake in past.used.iter().chain(&past.unknown) {
                    let until = awake.to.checked_add(SignedDuration::from_mins(idle)).unwrap();
                    prop_assert!(awake.to < at(0) || nap.to <= awake.from || nap.from >= until, "{nap:?} {awake:?}");
                }
                last = nap.to;
            }
            prop_assert!(naps.wakes <= naps.asleep.len());
        }

        #[test]
        fn one_more_use_never_makes_it_sleep_longer(used in any_spans(), unknown in any_spans(), more in (0i64..100, 0i64..20)) {
            let fewer = past(&used, &unknown).naps(TEN).slept();
            let mut all = used.clone();
            all.push((more.0, more.0 + more.1));
            prop_assert!(past(&all, &unknown).naps(TEN).slept() <= fewer);
        }
    }
}
