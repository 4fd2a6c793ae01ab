//! Times one wake, part by part, at the moments at which this member sees each part end.

use tokio::time::Instant;

use super::{Telemetry, WakePart};

/// One wake that this member was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeClock {
    asked: Instant,
    /// When the last part ended.
    since: Instant,
    /// The last part that ended.
    ended: Option<WakePart>,
}

impl WakeClock {
    /// Begins at the first ask.
    pub fn start(now: Instant) -> Self {
        Self { asked: now, since: now, ended: None }
    }

    /// A part has ended, and all before it. Those that ended unseen took no time of their own: it is counted in the
    /// first of them. Says so once for each part.
    pub fn reach(&mut self, part: WakePart, now: Instant, telemetry: &Telemetry) {
        for each in WakePart::ALL {
            if each <= part && Some(each) > self.ended {
                telemetry.observe_wake_part(each, now - self.since);
                (self.since, self.ended) = (now, Some(each));
            }
        }
    }

    /// The wake is over. Its last part is known only to a member that saw the one before it end.
    pub fn finish(mut self, now: Instant, telemetry: &Telemetry) {
        if self.ended == Some(WakePart::Ready) {
            self.reach(WakePart::Release, now, telemetry);
        }
        telemetry.observe_wake(now - self.asked);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sum(telemetry: &Telemetry, part: &str) -> Option<String> {
        let name = format!("kubenap_wake_part_duration_seconds_sum{{part=\"{part}\"}} ");
        telemetry.text().lines().find_map(|line| line.strip_prefix(&name)).map(str::to_owned)
    }

    #[tokio::test(start_paused = true)]
    async fn each_part_is_counted_once_and_all_of_them_are_the_wake() {
        let (telemetry, begin) = (Telemetry::new(), Instant::now());
        let after = |seconds| begin + Duration::from_secs(seconds);
        let mut clock = WakeClock::start(begin);
        clock.reach(WakePart::Scale, after(1), &telemetry);
        clock.reach(WakePart::Scale, after(2), &telemetry);
        clock.reach(WakePart::Start, after(4), &telemetry);
        // A pod that is replaced takes nothing back.
        clock.reach(WakePart::Schedule, after(5), &telemetry);
        clock.reach(WakePart::Ready, after(9), &telemetry);
        clock.finish(after(11), &telemetry);
        let sums: Vec<_> = WakePart::ALL.iter().filter_map(|part| sum(&telemetry, part.label())).collect();
        assert_eq!(sums, ["1.0", "3.0", "0.0", "5.0", "2.0"]);
        let text = telemetry.text();
        assert!(text.contains("kubenap_wake_duration_seconds_sum 11.0"), "{text}");
        assert_eq!(text.matches("_bucket{le=\"+Inf\",part=").count(), 5, "{text}");
        assert_eq!(text.matches("_bucket{le=\"+Inf\"").count(), 6, "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_member_that_saw_only_the_end_counts_only_the_whole() {
        let (telemetry, begin) = (Telemetry::new(), Instant::now());
        WakeClock::start(begin).finish(begin + Duration::from_secs(3), &telemetry);
        assert!(telemetry.text().contains("kubenap_wake_duration_seconds_sum 3.0"));
        assert_eq!(WakePart::ALL.iter().filter_map(|part| sum(&telemetry, part.label())).count(), 0);
    }
}
