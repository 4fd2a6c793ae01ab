//! What traffic says about an app: a lattice in which one more source can only keep it awake.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// What one source, or several joined, know about an app's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// The last activity known, or the moment at which the source's knowledge begins.
    pub last_seen: Timestamp,
    /// Up to when the source has certainly seen everything, by the source's own evidence.
    pub watermark: Timestamp,
    /// Why the source cannot tell; anything in here forbids a nap.
    pub blind: BTreeSet<Blind>,
}

/// Why a source cannot tell whether an app is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Blind {
    /// The source did not answer, or not in a way that is understood.
    SourceDown,
    /// The source answers, but what it knows is too old.
    Stale,
    /// The source has no series for the app where it must have one.
    NoSeries,
    /// Which of the source's series are the app's cannot be told.
    NotMapped,
    /// The source says itself that its answer is partial.
    Partial,
    /// The source was not asked yet, or its history does not begin early enough.
    Starting,
    /// What the source knows is dated in the future: a clock is off, and no age can be told.
    ClockOff,
    /// No source watches this app.
    NoSource,
}

impl Activity {
    /// A source that knows nothing, and why.
    pub fn blind(why: Blind) -> Self {
        Self { last_seen: Timestamp::MIN, watermark: Timestamp::MIN, blind: BTreeSet::from([why]) }
    }

    /// A healthy source's answer.
    pub fn seen(last_seen: Timestamp, watermark: Timestamp) -> Self {
        Self { last_seen, watermark, blind: BTreeSet::new() }
    }

    /// Two sources together: the later activity, the earlier watermark, every blind spot.
    #[must_use]
    pub fn join(mut self, other: Self) -> Self {
        self.last_seen = self.last_seen.max(other.last_seen);
        self.watermark = self.watermark.min(other.watermark);
        self.blind.extend(other.blind);
        self
    }

    /// All sources together; no source at all is blind.
    pub fn join_all(sources: impl IntoIterator<Item = Self>) -> Self {
        sources.into_iter().reduce(Self::join).unwrap_or_else(|| Self::blind(Blind::NoSource))
    }

    /// How long the app was quiet at the watermark, counted from `from` at the earliest.
    /// Zero where the source is blind, or where the watermark is behind.
    pub fn quiet_since(&self, from: Timestamp) -> Duration {
        if !self.blind.is_empty() {
            return Duration::ZERO;
        }
        positive(self.watermark.duration_since(self.last_seen.max(from)))
    }
}

impl Blind {
    /// Every reason, for the reference page and for tests.
    pub const ALL: [Self; 8] = [
        Self::SourceDown,
        Self::Stale,
        Self::NoSeries,
        Self::NotMapped,
        Self::Partial,
        Self::Starting,
        Self::ClockOff,
        Self::NoSource,
    ];

    /// The reason as a metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::SourceDown => "source-down",
            Self::Stale => "stale",
            Self::NoSeries => "no-series",
            Self::NotMapped => "not-mapped",
            Self::Partial => "partial",
            Self::Starting => "starting",
            Self::ClockOff => "clock-off",
            Self::NoSource => "no-source",
        }
    }

    /// The reason as part of a sentence: "the source ...".
    pub fn sentence(self) -> &'static str {
        match self {
            Self::SourceDown => "does not answer",
            Self::Stale => "knows only old samples",
            Self::NoSeries => "has no series for it",
            Self::NotMapped => "cannot tell which series are its own",
            Self::Partial => "gives a partial answer",
            Self::Starting => "has no history yet",
            Self::ClockOff => "has data from the future: a clock is off",
            Self::NoSource => "is not there: no source watches it",
        }
    }
}

fn positive(span: SignedDuration) -> Duration {
    Duration::try_from(span).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_activity() -> impl Strategy<Value = Activity> {
        let blind = proptest::collection::btree_set(proptest::sample::select(&Blind::ALL[..]), 0..2);
        (0i64..100, 0i64..100, blind).prop_map(|(seen, mark, blind)| Activity {
            last_seen: Timestamp::from_second(seen).unwrap(),
            watermark: Timestamp::from_second(mark).unwrap(),
            blind,
        })
    }

    proptest! {
        #[test]
        fn one_more_source_never_makes_a_nap_likelier(a in any_activity(), b in any_activity(), from in 0i64..100) {
            let from = Timestamp::from_second(from).unwrap();
            let alone = a.quiet_since(from);
            prop_assert!(a.join(b).quiet_since(from) <= alone);
        }

        #[test]
        fn the_order_of_sources_does_not_matter(a in any_activity(), b in any_activity(), c in any_activity()) {
            prop_assert_eq!(a.clone().join(b.clone()), b.clone().join(a.clone()));
            prop_assert_eq!(a.clone().join(b.clone()).join(c.clone()), a.clone().join(b.join(c)));
            prop_assert_eq!(a.clone().join(a.clone()), a);
        }

        #[test]
        fn a_blind_source_is_never_quiet(a in any_activity(), why in proptest::sample::select(&Blind::ALL[..])) {
            prop_assert_eq!(a.join(Activity::blind(why)).quiet_since(Timestamp::MIN), Duration::ZERO);
        }
    }

    #[test]
    fn no_source_at_all_is_blind() {
        assert_eq!(Activity::join_all([]), Activity::blind(Blind::NoSource));
    }
}
