//! The sandbox's time: a chosen start that moves with tokio's clock, which tests can pause.
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// A clock that stands still and jumps together with tokio's timers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Timestamp,
    origin: Instant,
}

impl Clock {
    pub(crate) fn starting_at(base: Timestamp) -> Self {
        Self { base, origin: Instant::now() }
    }

    pub(crate) fn now(self) -> Timestamp {
        self.at(Instant::now())
    }

    /// The time at a moment of tokio's clock.
    pub(crate) fn at(self, moment: Instant) -> Timestamp {
        let since = SignedDuration::try_from(moment.saturating_duration_since(self.origin));
        self.base.saturating_add(since.unwrap_or(SignedDuration::MAX)).unwrap_or(Timestamp::MAX)
    }

    /// Whole seconds, as object metadata has them.
    pub(crate) fn stamp(self) -> String {
        seconds(self.now())
    }
}

/// A time as Kubernetes writes it, cut to whole seconds.
pub(crate) fn seconds(time: Timestamp) -> String {
    Timestamp::from_second(time.as_second()).unwrap_or(time).to_string()
}
