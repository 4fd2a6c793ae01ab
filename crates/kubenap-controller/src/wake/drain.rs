//! Leaving: what is held is answered, what is being passed is finished, nothing new is taken.

use std::time::Duration;

use tokio::time::Instant;

use super::doors::Doors;

impl Doors {
    /// Listens on nothing from now on, without a word to anybody who waits.
    pub fn slam(&self) {
        self.shared.closed.cancel();
    }

    /// Leaves. For `propagation` everything goes on, so that proxies hear that this member's addresses are
    /// gone; then nothing is accepted any more, and what is held is answered: by a 307 to the same URL where
    /// the client may follow one, spread over [`Limits::leave_spread`](super::Limits::leave_spread), otherwise
    /// by 503 if its app is not ready within [`Limits::leave_patience`](super::Limits::leave_patience). What is
    /// being passed goes on. Returns when all is done, or at `deadline`; says how many connections are left.
    pub async fn drain(&self, propagation: Duration, deadline: Instant) -> usize {
        let tasks = &self.shared.tasks;
        tokio::time::sleep_until(deadline.min(Instant::now() + propagation)).await;
        self.shared.closed.cancel();
        self.shared.leaving.cancel();
        tasks.close();
        if tokio::time::timeout_at(deadline, tasks.wait()).await.is_err() {
            tracing::warn!(connections = tasks.len(), "leaves with connections that have not ended");
        }
        tasks.len()
    }
}
