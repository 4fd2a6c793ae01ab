//! What is waited for because it may pass by itself: a cluster whose API server was away a moment ago is not itself yet.
//!
//! An API server that starts forbids everything until it has read its rights. Controllers look for it again only after
//! pauses that grow to a minute, and judge meanwhile by what they knew: a node whose heartbeats nobody saw takes no pod.

use std::time::Duration;

use kubenap_core::app::AppId;
use kubenap_core::seen::{Seen, Trouble};
use kubenap_core::step::Step;
use tokio::time::Instant;

use super::Context;
use super::memory::Memory;

/// A wake that is forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// Since when it is waited whether that passes.
    since: Instant,
    /// When it was forbidden last.
    last: Instant,
}

/// Whether a wake that was forbidden is tried once more before those who wait are told; then that is set up.
pub fn may_be_allowed(cx: &Context, app: &AppId, step: &Step) -> bool {
    let (now, away) = (Instant::now(), cx.cluster.away().last);
    cx.memories.with(app, |memory| {
        let forbidden = Forbidden::again(memory.forbidden, away, now);
        memory.forbidden = Some(forbidden);
        let waits = forbidden.waits(away, now);
        if waits {
            memory.refused = Some(Box::new((step.clone(), now + AGAIN)));
            cx.queue.add_after(app, AGAIN);
        }
        waits
    })
}

/// A wake that is forbidden is tried again after this long.
const AGAIN: Duration = Duration::from_millis(500);
/// So long it is waited whether that passes.
const PASSES: Duration = Duration::from_secs(1);
/// So long where the API server was away: it has read its rights this long after it answers, at most.
const STARTS: Duration = Duration::from_secs(10);
/// An API server that was away within this time may still be starting.
const LATELY: Duration = Duration::from_secs(30);
/// Who waits is not made to wait again for the same within this time, however often the API server is away.
const SPARED: Duration = Duration::from_secs(30);
/// What was forbidden this long ago says nothing of now. Longer than the breaker's longest pause: what stays forbidden is
/// waited for once, and not with each try.
const FORGOTTEN: Duration = Duration::from_secs(120);

impl Forbidden {
    /// It is forbidden now, and was so before, or not. `away`: when the API server was last found to be away.
    fn again(before: Option<Self>, away: Option<Instant>, now: Instant) -> Self {
        let still = before.filter(|before| {
            let other = now - before.last >= FORGOTTEN || away.is_some_and(|away| away > before.last);
            !other || now - before.since < SPARED
        });
        Self { since: still.map_or(now, |before| before.since), last: now }
    }

    fn waits(self, away: Option<Instant>, now: Instant) -> bool {
        let starts = away.is_some_and(|away| now - away < LATELY);
        now - self.since < if starts { STARTS } else { PASSES }
    }
}

/// Takes out of what is seen why the app cannot start, where scheduler or controllers say so who may not have heard of
/// everything yet. `outage`: when the last one ended, as far as is known.
pub fn doubt(memory: &mut Memory, seen: &mut Seen, outage: Option<Instant>, now: Instant) {
    if !seen.trouble().is_some_and(Trouble::is_of_controllers) {
        memory.hearsay = None;
        return;
    }
    let since = *memory.hearsay.get_or_insert(now);
    let behind = outage.is_some_and(|outage| since.saturating_duration_since(outage) < BEHIND);
    if behind && now - since < BELIEVED {
        for pod in &mut seen.pods {
            pod.trouble = pod.trouble.filter(|trouble| !trouble.is_of_controllers());
        }
        seen.deployment.refused = None;
    }
}

/// So long after an API server was away may controllers be behind: their pauses grow to a minute, and to a node that
/// nobody heard of for fifty seconds they give no pod.
const BEHIND: Duration = Duration::from_secs(120);
/// What they say for so long is believed: all have looked again by then.
const BELIEVED: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    /// When it is forbidden, when the API server was found away last, whether that is waited for; in milliseconds.
    fn tell(rows: &[(u64, Option<u64>, bool)]) {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut known = None;
        for (moment, away, waits) in rows.iter().copied() {
            let (now, away) = (at(moment), away.map(at));
            let forbidden = Forbidden::again(known, away, now);
            assert_eq!(forbidden.waits(away, now), waits, "at {moment} ms");
            known = Some(forbidden);
        }
    }

    #[test]
    fn what_stays_forbidden_is_waited_for_once_and_not_with_each_try_of_the_breaker() {
        tell(&[(0, None, true), (500, None, true), (1000, None, false)]);
        tell(&[(0, None, true), (1000, None, false), (61_000, None, false), (121_000, None, false)]);
    }

    #[test]
    fn what_was_forbidden_an_hour_ago_is_waited_for_anew() {
        tell(&[(0, None, true), (1000, None, false), (3_600_000, None, true), (3_601_000, None, false)]);
    }

    #[test]
    fn an_api_server_that_was_away_since_is_waited_for_anew_and_longer() {
        tell(&[
            (0, None, true),
            (1000, None, false),
            (60_000, Some(55_000), true),
            (69_500, Some(55_000), true),
            (70_000, Some(55_000), false),
            (84_000, Some(55_000), false),
        ]);
    }

    #[test]
    fn one_that_is_away_again_and_again_makes_nobody_wait_ten_seconds_each_time() {
        tell(&[
            (0, Some(0), true),
            (9_500, Some(9_000), true),
            (10_000, Some(9_900), false),
            (20_000, Some(19_000), false),
            (29_000, Some(28_900), false),
            (30_000, Some(29_900), true),
            (40_000, Some(39_900), false),
        ]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_controllers_say_is_believed_at_once_but_where_the_api_server_was_away() {
        let begin = Instant::now();
        let at = |seconds: u64| begin + Duration::from_secs(seconds);
        let told = |memory: &mut Memory, trouble, outage: Option<u64>, now: u64| {
            let mut seen = Seen::default();
            seen.deployment.refused = Some(trouble);
            doubt(memory, &mut seen, outage.map(at), at(now));
            seen.trouble()
        };
        let quota = Trouble::Quota;
        assert_eq!(told(&mut Memory::default(), quota, None, 500), Some(quota), "nobody was away");
        assert_eq!(told(&mut Memory::default(), quota, Some(100), 500), Some(quota), "that was long ago");
        let mut memory = Memory::default();
        for (now, expected) in [(160, None), (219, None), (220, Some(quota)), (500, Some(quota))] {
            assert_eq!(told(&mut memory, quota, Some(100), now), expected, "at {now} s");
        }
        assert_eq!(told(&mut Memory::default(), Trouble::Image, Some(100), 101), Some(Trouble::Image));
    }
}
