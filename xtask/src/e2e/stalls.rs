//! How long this machine stood still: so much later than it came about may be seen what a story measures.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(50);

/// Looks until this is dropped.
pub(crate) struct Stalls {
    lost_ms: Arc<AtomicU64>,
    looking: AbortHandle,
}

impl Stalls {
    /// From now on.
    pub(crate) fn since_now() -> Self {
        let lost_ms = Arc::new(AtomicU64::new(0));
        let lost = Arc::clone(&lost_ms);
        let looking = tokio::spawn(async move {
            loop {
                let begun = Instant::now();
                sleep(LOOK).await;
                lost.fetch_add(late_ms(begun.elapsed()), Ordering::Relaxed);
            }
        });
        Self { lost_ms, looking: looking.abort_handle() }
    }

    /// How long it stood still since, all in all.
    pub(crate) fn lost(&self) -> Duration {
        Duration::from_millis(self.lost_ms.load(Ordering::Relaxed))
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

/// How much longer than a timer may be late by itself a look has taken, in milliseconds.
fn late_ms(look: Duration) -> u64 {
    u64::try_from(look.saturating_sub(2 * LOOK).as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LOOK, late_ms};

    #[test]
    fn a_machine_that_stands_still_is_noticed_and_a_timer_that_is_a_little_late_is_not() {
        assert_eq!((late_ms(LOOK), late_ms(2 * LOOK)), (0, 0));
        assert_eq!(late_ms(LOOK + Duration::from_secs(5)), 4950);
    }
}
