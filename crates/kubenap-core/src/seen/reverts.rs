//! Who scaled an app up while it slept, and when: how a tug-of-war over its replicas is noticed.

use std::time::Duration;

use jiff::Timestamp;

/// So many times within [`WITHIN`], and the app is left to whoever does it.
pub const MOST: usize = 3;
/// What is older does not count any more.
const WITHIN: Duration = Duration::from_hours(1);
/// Stands for a field manager that could not be read.
const UNKNOWN: &str = "unknown";
/// The longest name of a field manager that Kubernetes accepts.
const LONGEST_NAME: usize = 128;

/// The last times that somebody else ended a sleep by scaling up, the latest last; never more than [`MOST`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reverts(Vec<(Timestamp, String)>);

impl Reverts {
    /// Reads `2026-11-25T16:00:00Z argocd-controller,…`. What is not understood is as if it were not there.
    pub fn parse(text: &str) -> Self {
        let one = |item: &str| {
            let (at, manager) = item.trim().split_once(' ').unwrap_or((item.trim(), UNKNOWN));
            Some((at.parse().ok()?, plain(manager)))
        };
        Self::latest(text.split(',').filter_map(one).collect())
    }

    /// The annotation's value.
    pub fn text(&self) -> String {
        let items: Vec<_> = self.0.iter().map(|(at, manager)| format!("{at} {manager}")).collect();
        items.join(",")
    }

    /// These and one more, without those that do not count any more.
    #[must_use]
    pub fn and(&self, manager: Option<&str>, now: Timestamp) -> Self {
        let mut all = self.lately(now).0;
        all.push((now, plain(manager.unwrap_or(UNKNOWN))));
        Self::latest(all)
    }

    /// Those that still count.
    #[must_use]
    pub fn lately(&self, now: Timestamp) -> Self {
        // A moment in the near future is of another clock; one that is far away is nobody's.
        let counts = |at: Timestamp| now.duration_since(at).unsigned_abs() < WITHIN;
        Self(self.0.iter().filter(|(at, _)| counts(*at)).cloned().collect())
    }

    /// Who keeps scaling the app up while it sleeps, if somebody does.
    pub fn fighter(&self, now: Timestamp) -> Option<&str> {
        let (_, manager) = self.0.last()?;
        (self.lately(now).0.len() >= MOST).then_some(manager)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn latest(mut all: Vec<(Timestamp, String)>) -> Self {
        all.sort();
        let old = all.len().saturating_sub(MOST);
        all.drain(..old);
        Self(all)
    }
}

/// A manager's name without what would break the list, or a line.
fn plain(name: &str) -> String {
    let fits = |c: char| c.is_ascii_graphic() && c != ',';
    let name: String = name.chars().take(LONGEST_NAME).map(|c| if fits(c) { c } else { '_' }).collect();
    if name.is_empty() { UNKNOWN.to_owned() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minutes * 60).unwrap()
    }

    fn after(minutes: &[i64]) -> Reverts {
        minutes.iter().fold(Reverts::default(), |all, minute| all.and(Some("argocd"), at(*minute)))
    }

    #[test]
    fn three_times_within_an_hour_is_a_fight_and_it_ends_when_the_hour_is_over() {
        // Minutes at which the app was scaled up, when it is asked, whether somebody fights.
        for (minutes, now, fights) in [
            (&[][..], 0, false),
            (&[0, 1], 1, false),
            (&[0, 1, 2], 2, true),
            (&[0, 1, 2], 59, true),
            (&[0, 1, 2], 60, false),
            (&[0, 30, 61], 61, false),
            (&[0, 30, 61, 70], 70, true),
            (&[0, 30, 61, 70], 90, false),
        ] {
            assert_eq!(after(minutes).fighter(at(now)), fights.then_some("argocd"), "{minutes:?} at {now}");
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_never_more_than_three() {
        let many = after(&[0, 1, 2, 3, 4]);
        assert_eq!(many.0.len(), MOST);
        assert_eq!(Reverts::parse(&many.text()), many);
        let odd = Reverts::default().and(Some("a, b\nc"), at(0));
        assert_eq!(odd.text(), format!("{} a__b_c", at(0)));
        assert_eq!(Reverts::parse(&odd.text()), odd);
    }

    #[test]
    fn what_is_not_understood_never_counts() {
        let good = at(0);
        for (text, count) in [
            ("", 0),
            (",,,", 0),
            ("yesterday argocd", 0),
            ("9999-99-99T00:00:00Z x", 0),
            (&format!("{good}"), 1),
            (&format!("nonsense,{good} flux , {good} "), 2),
            (&format!("{good} a,").repeat(1000), MOST),
        ] {
            assert_eq!(Reverts::parse(text).0.len(), count, "{text:.60}");
        }
        let far = Reverts::parse("2999-01-01T00:00:00Z a,2999-01-01T00:00:01Z a,2999-01-01T00:00:02Z a");
        assert_eq!(far.fighter(at(0)), None, "a moment that is nobody's clock keeps no app awake for ever");
    }

    #[test]
    fn a_manager_without_a_name_is_unknown() {
        assert_eq!(Reverts::default().and(None, at(0)).text(), format!("{} unknown", at(0)));
        assert_eq!(Reverts::default().and(Some(""), at(0)).text(), format!("{} unknown", at(0)));
    }
}
