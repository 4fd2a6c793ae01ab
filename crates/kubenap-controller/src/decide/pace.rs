//! Holds a wake back while more apps are asked for than may wake at once.

use std::time::Duration;

use kubenap_core::decide::Decision;
use kubenap_core::step::Step;
use kubenap_core::why::Why;
use tokio::time::Instant;

use super::events::Reason;
use super::gather::Gathered;
use super::{Context, entrances};
use crate::telemetry::WakeOutcome;
use crate::wake::{DoorState, Turn};

/// The decision, or to wait for the wake budget where a request asks for more than it allows.
pub fn pace(cx: &Context, gathered: &Gathered, decision: Decision) -> Decision {
    let (Step::ScaleUp { epoch, .. }, Why::Asked) = (&decision.step, &decision.why) else { return decision };
    let app = &gathered.app;
    let awaited = cx.doors.asks(app).held > 0;
    let (wait, first) = match cx.budget.turn(app, *epoch, awaited, Instant::now()) {
        Turn::Go => return decision,
        Turn::Wait { wait, first } => (wait, first),
    };
    let why = Why::WakePaced;
    if first {
        cx.telemetry.count_wake(WakeOutcome::PutOff);
        let uid = &gathered.seen.deployment.uid;
        cx.events.send_once(app, uid, Reason::WakeFailed, &format!("its wake is put off: {why}"));
    }
    // Whoever would wait in vain is told so at once, and when to come again.
    if wait > gathered.reading.policy.wake_timeout {
        for service in &gathered.seen.services {
            for port in &service.ports {
                let state =
                    DoorState::Failed { reason: why.label(), sentence: why.to_string(), retry_after: wait };
                cx.doors.set_state(&entrances::key_of(app, service, port.number), state);
            }
        }
    }
    let again = wait.clamp(Duration::from_millis(50), Duration::from_secs(5));
    Decision { step: Step::Stay, why, look_again: Some(again) }
}
