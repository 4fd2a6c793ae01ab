//! The time, from one place: the wall clock, or in tests one that stands still and jumps with tokio's.

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Where the time comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// The system's wall clock.
    System,
    /// A moment that moves on with tokio's clock, which tests can pause.
    Anchored {
        /// The time at `origin`.
        base: Timestamp,
        /// The moment on tokio's clock that stands for `base`.
        origin: Instant,
    },
}

impl Clock {
    /// A clock that shows `base` now and follows tokio's clock from here.
    pub fn starting_at(base: Timestamp) -> Self {
        Self::Anchored { base, origin: Instant::now() }
    }

    /// The time.
    pub fn now(self) -> Timestamp {
        match self {
            Self::System => system_now(),
            Self::Anchored { base, origin } => {
                let passed = SignedDuration::try_from(origin.elapsed()).unwrap_or(SignedDuration::MAX);
                base.checked_add(passed).unwrap_or(Timestamp::MAX)
            }
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that asks the system for the time")]
fn system_now() -> Timestamp {
    Timestamp::now()
}
