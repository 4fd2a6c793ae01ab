//! One door: a Service port behind which requests wait, its state, and who asked.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::answer::{OwnedManners, Readiness, Way};
use kubenap_core::app::AppId;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::limits::Limits;

/// A Service port: what a wake port stands for. Its names are shared by its clones, for there may be thousands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DoorKey {
    /// The namespace of the Service.
    pub namespace: Arc<str>,
    /// The name of the Service.
    pub service: Arc<str>,
    /// The port of the Service (not of the pods).
    pub port: u16,
}

impl fmt::Display for DoorKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.service, self.port)
    }
}

/// What is behind a door, and how it wants its requests answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoorSpec {
    /// Which door.
    pub key: DoorKey,
    /// All Deployments behind the Service; one ask is an ask for each of them.
    pub apps: Vec<AppId>,
    /// How requests are answered.
    pub manners: OwnedManners,
}

/// What requests at a door have to expect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorState {
    /// Nobody is ready, and nothing was done about it yet. Requests are held.
    Waiting,
    /// A wake is under way. Requests are held, and one of them may be one that another member has sent back already.
    Waking,
    /// These addresses of pods take requests. Without any address it is as [`DoorState::Waiting`].
    Ready(Arc<[SocketAddr]>),
    /// The kubelet calls these pods ready, which every member hears at about the same time; the Service need not lead
    /// to them yet. Requests at a wake port are passed to them or sent back, for whoever is sent back and comes here
    /// once more is passed. Those from a proxy's error path, which cannot be passed, wait on.
    Up(Arc<[SocketAddr]>),
    /// These addresses of pods take requests already, and the Service does not lead to them yet: requests that are
    /// passed go there, those that are sent back wait on.
    Early(Arc<[SocketAddr]>),
    /// The app cannot start. Requests are refused quickly.
    Failed {
        /// The class of the reason, from a closed set: it goes into a header.
        reason: &'static str,
        /// The reason in words, one line; the body of the answer.
        sentence: String,
        /// When it is worth to try again.
        retry_after: Duration,
    },
}

impl DoorState {
    /// Whether a request that comes this way finds the app ready.
    pub(crate) fn readiness(&self, way: Way) -> Readiness {
        match (self, way) {
            (Self::Ready(addresses), _) | (Self::Up(addresses), Way::WakePort) if !addresses.is_empty() => {
                Readiness::Ready
            }
            _ => Readiness::NotReady,
        }
    }

    /// Where a request can be passed to. None: nowhere yet.
    pub(crate) fn pods(&self) -> Option<&Arc<[SocketAddr]>> {
        match self {
            Self::Ready(addresses) | Self::Up(addresses) | Self::Early(addresses)
                if !addresses.is_empty() =>
            {
                Some(addresses)
            }
            Self::Ready(_)
            | Self::Up(_)
            | Self::Early(_)
            | Self::Waiting
            | Self::Waking
            | Self::Failed { .. } => None,
        }
    }

    /// How many kinds of requests that a pod could get it lets go.
    fn openness(&self) -> u8 {
        u8::from(self.pods().is_some()) + u8::from(self.readiness(Way::WakePort) == Readiness::Ready)
    }

    /// Whether another member may send requests back already.
    fn is_waking(&self) -> bool {
        matches!(self, Self::Waking | Self::Early(_))
    }
}

/// Who asked for one app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AskView {
    /// Requests that wait for the app now.
    pub held: usize,
    /// Those among them that will be passed to a pod as soon as one takes them.
    pub to_pass: usize,
    /// Asks since the process started.
    pub total: u64,
    /// The latest ask.
    pub last: Option<Timestamp>,
    /// The latest ask that found pods ready: it cancels a drowsy phase, or comes from a proxy that is behind.
    pub last_while_ready: Option<Timestamp>,
}

/// The counts behind [`AskView`], shared by all doors of an app.
#[derive(Debug)]
pub(crate) struct AppAsks {
    pub(crate) app: AppId,
    pub(crate) held: AtomicUsize,
    pub(crate) to_pass: AtomicUsize,
    total: AtomicU64,
    last: Mutex<(Option<Timestamp>, Option<Timestamp>)>,
}

impl AppAsks {
    pub(crate) fn new(app: AppId) -> Self {
        Self {
            app,
            held: AtomicUsize::new(0),
            to_pass: AtomicUsize::new(0),
            total: AtomicU64::new(0),
            last: Mutex::default(),
        }
    }

    pub(crate) fn note(&self, now: Timestamp, readiness: Readiness) {
        self.total.fetch_add(1, Ordering::Relaxed);
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.0 = last.0.max(Some(now));
        if readiness == Readiness::Ready {
            last.1 = last.1.max(Some(now));
        }
    }

    pub(crate) fn view(&self) -> AskView {
        let (last, last_while_ready) = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        AskView {
            held: self.held.load(Ordering::Relaxed),
            to_pass: self.to_pass.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            last,
            last_while_ready,
        }
    }
}

/// What all requests at one door share.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) key: Arc<DoorKey>,
    behind: RwLock<Behind>,
    state: watch::Sender<DoorState>,
    release: Release,
    /// Bounds attempts to connect, so that a pod that just started is not flooded.
    pub(crate) connecting: Semaphore,
    turn: AtomicUsize,
}

/// What may change about a door while it is in use.
#[derive(Clone, Debug)]
pub(crate) struct Behind {
    pub(crate) manners: Arc<OwnedManners>,
    pub(crate) apps: Arc<[Arc<AppAsks>]>,
}

impl Door {
    pub(crate) fn new(key: DoorKey, limits: &Limits) -> Self {
        Self {
            key: Arc::new(key),
            behind: RwLock::new(Behind { manners: Arc::default(), apps: Arc::default() }),
            state: watch::Sender::new(DoorState::Waiting),
            release: Release::default(),
            connecting: Semaphore::new(limits.connecting),
            turn: AtomicUsize::new(0),
        }
    }

    pub(crate) fn behind(&self) -> Behind {
        self.behind.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_behind(&self, behind: Behind) {
        *self.behind.write().unwrap_or_else(PoisonError::into_inner) = behind;
    }

    pub(crate) fn set_state(&self, state: DoorState) {
        self.state.send_if_modified(|current| {
            if *current == state {
                return false;
            }
            if state.openness() > current.openness() {
                self.release.begin();
            }
            *current = state;
            true
        });
    }

    /// Notes a request that comes now.
    pub(crate) fn arrive(&self) -> Arrival {
        Arrival { at: Instant::now(), waking: self.state.borrow().is_waking() }
    }

    /// Whether a request may be one that another member has sent back: that member has seen the app ready a little
    /// earlier than this one.
    pub(crate) fn may_have_come_back(&self, arrival: Arrival, limits: &Limits) -> bool {
        let waited = self.release.since().map(|ready| ready.saturating_duration_since(arrival.at));
        arrival.waking && waited.is_some_and(|waited| waited < limits.lag)
    }

    pub(crate) fn watch(&self) -> watch::Receiver<DoorState> {
        self.state.subscribe()
    }

    pub(crate) fn readiness(&self, way: Way) -> Readiness {
        self.state.borrow().readiness(way)
    }

    /// How long somebody who was held has to go on waiting now that the app is ready.
    pub(crate) fn release_delay(&self, limits: &Limits) -> Duration {
        self.release.delay(limits)
    }

    /// A number that grows by one, to take addresses in turn.
    pub(crate) fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }
}

/// When a request came, and what its app was doing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    at: Instant,
    waking: bool,
}

/// Spreads those who were held over time, so that the first pod is not flooded.
#[derive(Debug, Default)]
struct Release {
    /// When the app became ready, and how many were let go since.
    since: Mutex<(Option<Instant>, usize)>,
}

impl Release {
    fn begin(&self) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = (Some(Instant::now()), 0);
    }

    fn since(&self) -> Option<Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn delay(&self, limits: &Limits) -> Duration {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(ready), count) = *since else { return Duration::ZERO };
        since.1 = count.saturating_add(1);
        if count < limits.release_first {
            return Duration::ZERO;
        }
        let batch = (count - limits.release_first) / limits.release_batch.max(1) + 1;
        let due = limits.release_every.saturating_mul(u32::try_from(batch).unwrap_or(u32::MAX));
        due.saturating_sub(ready.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kubenap_core::proxy::Reach;

    fn door() -> Door {
        Door::new(DoorKey { namespace: "shop".into(), service: "web".into(), port: 80 }, &Limits::default())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_fifty_go_at_once_and_the_rest_in_batches() {
        let (door, limits) = (door(), Limits::default());
        door.set_state(DoorState::Ready(Arc::from([SocketAddr::from(([127, 0, 0, 1], 80))])));
        let delays: Vec<_> = (0..500).map(|_| door.release_delay(&limits).as_millis()).collect();
        assert!(delays[..50].iter().all(|ms| *ms == 0));
        assert!(delays[50..250].iter().all(|ms| *ms == 100));
        assert!(delays[250..450].iter().all(|ms| *ms == 200));
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(door.release_delay(&limits), Duration::ZERO);
    }

    #[test]
    fn ready_without_an_address_is_not_ready() {
        let door = door();
        door.set_state(DoorState::Ready(Arc::from([])));
        assert_eq!(door.readiness(Way::WakePort), Readiness::NotReady);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_during_a_wake_and_shortly_before_its_end_may_have_come_back() {
        let (door, limits) = (door(), Limits::default());
        let came_back = |arrival| door.may_have_come_back(arrival, &limits);
        let first = door.arrive();
        door.set_state(DoorState::Waking);
        let early = door.arrive();
        tokio::time::advance(limits.lag).await;
        let late = door.arrive();
        tokio::time::advance(limits.lag / 2).await;
        let pods: Arc<[SocketAddr]> = Arc::from([SocketAddr::from(([127, 0, 0, 1], 80))]);
        door.set_state(DoorState::Up(Arc::clone(&pods)));
        // However long it takes until it is its turn.
        tokio::time::advance(limits.lag * 10).await;
        assert_eq!([first, early, late].map(came_back), [false, false, true]);
        // The Service follows; that begins no new wake.
        door.set_state(DoorState::Ready(pods));
        assert_eq!([first, early, late].map(came_back), [false, false, true]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_starts_the_wake_is_sent_back_however_short_it_is() {
        let (door, limits) = (door(), Limits::default());
        let first = door.arrive();
        door.set_state(DoorState::Waking);
        door.set_state(DoorState::Up(Arc::from([SocketAddr::from(([127, 0, 0, 1], 80))])));
        assert!(!door.may_have_come_back(first, &limits));
    }

    #[test]
    fn a_pod_that_the_service_does_not_lead_to_yet_is_ready_at_wake_ports_only() {
        let door = door();
        let pods: Arc<[SocketAddr]> = Arc::from([SocketAddr::from(([127, 0, 0, 1], 80))]);
        for (state, at_wake_port, on_error_path) in [
            (DoorState::Early(Arc::clone(&pods)), Readiness::NotReady, Readiness::NotReady),
            (DoorState::Up(Arc::clone(&pods)), Readiness::Ready, Readiness::NotReady),
            (DoorState::Ready(pods), Readiness::Ready, Readiness::Ready),
        ] {
            door.set_state(state);
            assert_eq!(
                (door.readiness(Way::WakePort), door.readiness(Way::ErrorPath(Reach::Here))),
                (at_wake_port, on_error_path)
            );
        }
    }

    #[test]
    fn the_latest_ask_never_goes_back() {
        let asks = AppAsks::new(AppId::new("shop", "web"));
        let (early, late) = (Timestamp::from_second(1).unwrap(), Timestamp::from_second(2).unwrap());
        asks.note(late, Readiness::Ready);
        asks.note(early, Readiness::NotReady);
        assert_eq!(asks.view().last, Some(late));
        assert_eq!(asks.view().last_while_ready, Some(late));
        assert_eq!(asks.view().total, 2);
    }
}
