//! Waiting for an app: one watch shared by everybody at its door, no call to anybody for a held request.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::ask::{Ask, Goal};
use super::crowd::Slot;
use super::door::{Door, DoorState};
use super::doors::Shared;

/// How the waiting ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// The app is ready.
    Ready,
    /// The app cannot start.
    Failed { reason: &'static str, sentence: String, retry_after: Duration },
    /// The time is over.
    TooLong,
    /// Somebody else needs the place.
    Shed,
    /// This member leaves.
    Leaving,
}

/// What leaving means for somebody who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLeave {
    /// It can be sent back to where it came from, each at a moment of its own.
    ComeAgain,
    /// It can only be told to try later, so it may wait a little longer for its app.
    WaitOn,
}

/// Who waits, and for what.
pub(crate) struct Hold<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) door: &'a Door,
    pub(crate) slot: &'a Slot,
    pub(crate) ask: &'a Ask,
    pub(crate) goal: Goal,
}

impl Hold<'_> {
    /// Waits until the app is ready or will not be, but not past `until`.
    pub(crate) async fn until(&self, until: Instant, on_leave: OnLeave) -> Held {
        let mut states = self.door.watch();
        match judge(&states.borrow_and_update(), self.goal) {
            Some(held) => return held,
            None if until <= Instant::now() => return Held::TooLong,
            None => {}
        }
        let waiting = self.ask.wait(self.goal);
        let ended = tokio::select! {
            biased;
            ready = states.wait_for(|state| judge(state, self.goal).is_some()) => {
                // The door lives as long as this, so its state cannot end.
                ready.ok().and_then(|state| judge(&state, self.goal)).unwrap_or(Held::TooLong)
            }
            () = self.slot.shed().cancelled() => Held::Shed,
            () = sleep_until(until) => Held::TooLong,
            () = leave(self.shared, on_leave) => Held::Leaving,
        };
        if ended == Held::Ready {
            sleep(self.door.release_delay(&self.shared.limits)).await;
        }
        drop(waiting);
        ended
    }
}

fn judge(state: &DoorState, goal: Goal) -> Option<Held> {
    match (state, goal) {
        (DoorState::Early(_), Goal::SendBack | Goal::SendOn) | (DoorState::Up(_), Goal::SendOn) => None,
        (
            DoorState::Ready(_)
            | DoorState::Up(_)
            | DoorState::Early(_)
            | DoorState::Waiting
            | DoorState::Waking,
            _,
        ) => state.pods().is_some().then_some(Held::Ready),
        (DoorState::Failed { reason, sentence, retry_after }, _) => {
            Some(Held::Failed { reason, sentence: sentence.clone(), retry_after: *retry_after })
        }
    }
}

/// Ends when somebody who still waits has to be told that this member leaves.
async fn leave(shared: &Shared, on_leave: OnLeave) {
    shared.leaving.cancelled().await;
    match on_leave {
        OnLeave::WaitOn => sleep(shared.limits.leave_patience).await,
        OnLeave::ComeAgain => {
            let number = shared.told_to_leave.fetch_add(1, Ordering::Relaxed);
            let all = shared.held().max(number.saturating_add(1));
            let part = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            sleep(shared.limits.leave_spread / part(all) * part(number)).await;
        }
    }
}
