//! What can go wrong with a real API server, on request.
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// The faults of one sandbox; every clone speaks of the same.
#[derive(Clone, Debug, Default)]
pub struct Faults(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    frozen: AtomicBool,
    /// Wakes those who wait for the thaw, in the order in which they came, so that a run can be repeated.
    thaw: Notify,
}

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    writes_left: Option<u64>,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A write is answered 409 Conflict and does nothing.
    Conflict,
    /// A watch, or the next page of a list, is told 410: its version is too old.
    Gone,
    /// The request is carried out this much later.
    Delay(Duration),
    /// The request is not carried out; the answer has this status.
    FailBefore(u16),
    /// The request is carried out; the answer has this status all the same.
    FailAfter(u16),
    /// 429 with this many seconds of `Retry-After`.
    TooManyRequests(u32),
    /// A watch is accepted and then never says anything nor ends.
    Silent,
    /// One event of a watch is left out.
    DropEvent,
    /// One event of a watch comes twice.
    RepeatEvent,
    /// One event of a watch, and with it all that follow, comes this much later.
    DelayEvent(Duration),
    /// One event of a watch shows the object as it was before the change: a cache that is one version behind.
    StaleEvent,
    /// A list is as it was this many versions ago, and says so; watches go on from there.
    StaleList(u64),
    /// 403; and an access review for the same verb and resource says no.
    Deny,
    /// Of the resource `apis`: no group of kinds is told, as by an API server that has not read its own yet.
    NoGroups,
}

/// An effect, and which requests have it: all, until narrowed.
#[derive(Clone, Debug)]
pub struct Fault {
    effect: Effect,
    verb: Option<String>,
    resource: Option<String>,
    name: Option<String>,
    skip: u64,
    times: Option<u64>,
}

impl Fault {
    /// A fault of every request, until [`Faults::clear`].
    pub fn new(effect: Effect) -> Self {
        Self { effect, verb: None, resource: None, name: None, skip: 0, times: None }
    }

    /// Only for this verb: `get`, `list`, `watch`, `create`, `update`, `patch` or `delete`.
    #[must_use]
    pub fn verb(mut self, verb: &str) -> Self {
        self.verb = Some(verb.to_owned());
        self
    }

    /// Only for this resource, such as `deployments` or `deployments/scale`.
    #[must_use]
    pub fn resource(mut self, resource: &str) -> Self {
        self.resource = Some(resource.to_owned());
        self
    }

    /// Only for objects of this name.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Lets this many matching requests through first.
    #[must_use]
    pub fn after(mut self, requests: u64) -> Self {
        self.skip = requests;
        self
    }

    /// Ends after this many.
    #[must_use]
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn concerns(&self, verb: &str, resource: &str, name: &str) -> bool {
        self.times != Some(0)
            && self.verb.as_deref().is_none_or(|wanted| wanted == verb)
            && self.resource.as_deref().is_none_or(|wanted| wanted == resource)
            && self.name.as_deref().is_none_or(|wanted| wanted == name)
    }
}

impl Effect {
    /// It befalls one event of a watch, not a request.
    fn is_of_events(self) -> bool {
        matches!(self, Self::DropEvent | Self::RepeatEvent | Self::DelayEvent(_) | Self::StaleEvent)
    }
}

impl Faults {
    /// From now on this goes wrong.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Nothing goes wrong any more; what was frozen goes on.
    pub fn clear(&self) {
        *self.state() = State::default();
        self.thaw();
    }

    /// Every request waits and every watch is still, until [`Faults::thaw`].
    pub fn freeze(&self) {
        self.0.frozen.store(true, Ordering::SeqCst);
    }

    /// Ends a freeze.
    pub fn thaw(&self) {
        self.0.frozen.store(false, Ordering::SeqCst);
        self.0.thaw.notify_waiters();
    }

    /// After this many more successful writes every request is answered 503, until
    /// [`Faults::clear`]: for its clients, that is a crash between two writes.
    pub fn fail_after_writes(&self, writes: u64) {
        self.state().writes_left = Some(writes);
    }

    /// Returns when nothing is frozen.
    pub(crate) async fn thawed(&self) {
        loop {
            let mut thaw = pin!(self.0.thaw.notified());
            // Listed before the look, so that nothing comes between the two.
            thaw.as_mut().enable();
            if !self.0.frozen.load(Ordering::SeqCst) {
                return;
            }
            thaw.await;
        }
    }

    pub(crate) fn wrote(&self) {
        if let Some(left) = &mut self.state().writes_left {
            *left = left.saturating_sub(1);
        }
    }

    pub(crate) fn is_cut_off(&self) -> bool {
        self.state().writes_left == Some(0)
    }

    /// The effects on a request that is about to be carried out, each counted as used.
    pub(crate) fn strike(&self, verb: &str, resource: &str, name: &str) -> Vec<Effect> {
        self.take(verb, resource, name, |effect| !effect.is_of_events())
    }

    /// The effects on the event that a watch is about to send, each counted as used.
    pub(crate) fn strike_event(&self, resource: &str, name: &str) -> Vec<Effect> {
        self.take("watch", resource, name, Effect::is_of_events)
    }

    /// Whether requests like this are refused at the moment; nothing is counted.
    pub(crate) fn denies(&self, verb: &str, resource: &str, name: &str) -> bool {
        self.state().faults.iter().any(|fault| {
            fault.effect == Effect::Deny && fault.skip == 0 && fault.concerns(verb, resource, name)
        })
    }

    fn take(&self, verb: &str, resource: &str, name: &str, wanted: impl Fn(Effect) -> bool) -> Vec<Effect> {
        let mut struck = Vec::new();
        for fault in &mut self.state().faults {
            if !wanted(fault.effect) || !fault.concerns(verb, resource, name) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if let Some(times) = &mut fault.times {
                *times -= 1;
            }
            struck.push(fault.effect);
        }
        struck
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
