//! Which apps are to be looked at: each at most once in the queue, and never by two turns at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
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
    /// The same in order of time, without those that are busy.
    order: BTreeSet<(Instant, AppId)>,
    /// Being looked at.
    busy: BTreeSet<AppId>,
}

impl Inner {
    fn add(&mut self, app: &AppId, at: Instant) {
        let known = self.due.get(app).copied();
        if known.is_some_and(|known| known <= at) {
            return;
        }
        if let Some(known) = known {
            self.order.remove(&(known, app.clone()));
        }
        self.due.insert(app.clone(), at);
        if !self.busy.contains(app) {
            self.order.insert((at, app.clone()));
        }
    }

    fn done(&mut self, app: &AppId) {
        self.busy.remove(app);
        if let Some(at) = self.due.get(app) {
            self.order.insert((*at, app.clone()));
        }
    }

    /// The next one that is due, or when there will be one.
    fn take(&mut self) -> Result<AppId, Option<Instant>> {
        let Some((at, app)) = self.order.pop_first() else { return Err(None) };
        if at > Instant::now() {
            self.order.insert((at, app));
            return Err(Some(at));
        }
        self.due.remove(&app);
        self.busy.insert(app.clone());
        Ok(app)
    }
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
        self.lock().add(app, at);
        self.notify.notify_one();
    }

    /// The next app that is due and that nobody looks at. Give it back with [`done`](Self::done).
    pub async fn next(&self) -> AppId {
        loop {
            let notified = self.notify.notified();
            let next = self.lock().take();
            match next {
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
        self.lock().done(app);
        self.notify.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
