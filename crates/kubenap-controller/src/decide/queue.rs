//! Which apps are to be looked at: each at most once in the queue, and never by two turns at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kubenap_core::app::AppId;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

/// A queue of apps. Cheap to clone. Its size is bounded by the number of apps.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    inner: Arc<Mutex<Inner>>,
    notify: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    /// To be looked at, and since which moment.
    due: BTreeMap<AppId, Instant>,
    /// Being looked at.
    busy: BTreeSet<AppId>,
}

impl Queue {
    /// Nothing to do.
    pub fn new() -> Self {
        Self::default()
    }

    /// Look at the app as soon as possible.
    pub fn add(&self, app: &AppId) {
        self.add_after(app, Duration::ZERO);
    }

    /// Look at the app after this long, or sooner if it is due sooner.
    pub fn add_after(&self, app: &AppId, delay: Duration) {
        let at = Instant::now() + delay;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let due = inner.due.entry(app.clone()).or_insert(at);
        *due = at.min(*due);
        drop(inner);
        self.notify.notify_one();
    }

    /// The next app that is due and that nobody looks at. Give it back with [`done`](Self::done).
    pub async fn next(&self) -> AppId {
        loop {
            let notified = self.notify.notified();
            match self.take() {
                Ok(app) => {
                    // Another worker may find the next one.
                    self.notify.notify_one();
                    return app;
                }
                Err(None) => notified.await,
                Err(Some(at)) => {
                    tokio::select! {
                        () = notified => {}
                        () = sleep_until(at) => {}
                    }
                }
            }
        }
    }

    /// The turn of an app is over.
    pub fn done(&self, app: &AppId) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).busy.remove(app);
        self.notify.notify_one();
    }

    fn take(&self) -> Result<AppId, Option<Instant>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let free = |inner: &Inner, app: &AppId| !inner.busy.contains(app);
        let next = inner.due.iter().filter(|(app, _)| free(&inner, app)).min_by_key(|(_, at)| **at);
        match next.map(|(app, at)| (app.clone(), *at)) {
            Some((app, at)) if at <= now => {
                inner.due.remove(&app);
                inner.busy.insert(app.clone());
                Ok(app)
            }
            Some((_, at)) => Err(Some(at)),
            None => Err(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_app_is_never_given_to_two_turns_at_a_time() {
        let queue = Queue::new();
        let app = AppId::new("shop", "web");
        queue.add(&app);
        queue.add(&app);
        assert_eq!(queue.next().await, app);
        queue.add(&app);
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.next()).await.is_err());
        queue.done(&app);
        assert_eq!(queue.next().await, app);
    }

    #[tokio::test(start_paused = true)]
    async fn the_sooner_of_two_moments_counts() {
        let queue = Queue::new();
        let app = AppId::new("shop", "web");
        let start = Instant::now();
        queue.add_after(&app, Duration::from_secs(60));
        queue.add_after(&app, Duration::from_secs(5));
        queue.next().await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
