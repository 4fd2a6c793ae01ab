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
                let late = begun.elapsed().saturating_sub(2 * LOOK);
                lost.fetch_add(u64::try_from(late.as_millis()).unwrap_or(0), Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{advance, sleep};

    use super::Stalls;

    #[tokio::test(start_paused = true)]
    async fn a_machine_that_stands_still_is_noticed_and_one_that_goes_on_is_not() {
        let stalls = Stalls::since_now();
        sleep(Duration::from_secs(3)).await;
        assert_eq!(stalls.lost(), Duration::ZERO);
        advance(Duration::from_secs(5)).await;
        sleep(Duration::from_secs(1)).await;
        assert!((4800..=5000).contains(&stalls.lost().as_millis()), "{:?}", stalls.lost());
    }
}
