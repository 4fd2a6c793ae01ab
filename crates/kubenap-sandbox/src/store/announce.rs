//! Tells everybody who listens that something was written, in the order in which they began to wait.
//!
//! tokio's watch channel wakes its receivers in an order that it draws by lot; then of two clients who hear of the same
//! change now one would be first and now the other, and a run could not be repeated.
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Where versions are announced. Clones are the same place.
#[derive(Clone, Debug, Default)]
pub(crate) struct Announce(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    version: AtomicU64,
    notify: Notify,
}

/// One who listens.
#[derive(Debug)]
pub(crate) struct Changes {
    announce: Announce,
    seen: u64,
}

impl Announce {
    /// There is a new version.
    pub(crate) fn send(&self, version: u64) {
        self.0.version.store(version, Ordering::SeqCst);
        self.0.notify.notify_waiters();
    }

    pub(crate) fn subscribe(&self) -> Changes {
        Changes { announce: self.clone(), seen: self.version() }
    }

    fn version(&self) -> u64 {
        self.0.version.load(Ordering::SeqCst)
    }
}

impl Changes {
    /// Whatever there is by now is known.
    pub(crate) fn mark_seen(&mut self) {
        self.seen = self.announce.version();
    }

    /// Waits until there is something that is not known.
    pub(crate) async fn changed(&mut self) {
        loop {
            let mut notified = pin!(self.announce.0.notify.notified());
            // Listed before the look, so that nothing comes between the two.
            notified.as_mut().enable();
            if self.announce.version() != self.seen {
                break;
            }
            notified.await;
        }
        self.mark_seen();
    }
}
