//! One decision, told everywhere in the same words: log, Event, metrics, and what the command line shows.

use std::time::Duration;

use kubenap_core::decide::Decision;
use kubenap_core::seen::Trouble;
use kubenap_core::situation::Situation;
use kubenap_core::step::Step;
use kubenap_core::why::Why;
use tokio::time::Instant;

use super::board::Row;
use super::events::Reason;
use super::gather::Gathered;
use super::{Context, label_of};
use crate::telemetry::{NapOutcome, WakeOutcome};

/// What was decided, before anything is carried out.
pub fn publish(cx: &Context, gathered: &Gathered, decision: &Decision) {
    let app = &gathered.app;
    let situation = gathered.situation();
    let phase = situation.phase();
    if gathered.opted_in() || gathered.seen.deployment.record.any {
        cx.board.put(app, row(gathered, situation, &decision.why));
        cx.telemetry.set_phase(app, label_of(phase));
    } else {
        cx.board.forget(app);
        cx.telemetry.forget(app);
    }
    count_sleep(cx, gathered, situation);
    let label = decision.why.label();
    let changed = cx.memories.with(app, |memory| {
        let line = format!("{}/{label}", phase.text());
        memory.reported.replace(line.clone()) != Some(line)
    });
    if changed {
        tracing::info!(%app, phase = phase.text(), why = label, "{}", decision.why);
    }
    if let Why::CannotStart(_) | Why::WakeDenied(_) = &decision.why {
        wake_failed(cx, gathered, &decision.why);
    }
    if cx.lead.holds() {
        complain(cx, gathered, &decision.why);
    }
}

/// A step was carried out.
pub fn carried_out(cx: &Context, gathered: &Gathered, decision: &Decision) {
    let app = &gathered.app;
    let why = &decision.why;
    let send = |reason, note: String| cx.events.send(app, &gathered.seen.deployment.uid, reason, &note);
    tracing::info!(%app, step = ?decision.step, why = why.label(), "step taken");
    match &decision.step {
        Step::Arm { epoch, .. } => {
            cx.memories.armed();
            send(Reason::Drowsy, format!("nap {epoch} begins: {why}"));
        }
        Step::ScaleDown { epoch, restore } => {
            cx.telemetry.count_nap(NapOutcome::Asleep);
            send(Reason::Asleep, format!("nap {epoch}: scaled from {restore} to 0: {why}"));
        }
        Step::Cancel { epoch } => {
            cx.telemetry.count_nap(NapOutcome::Cancelled);
            send(Reason::Awake, format!("nap {epoch} is cancelled: {why}"));
        }
        Step::Record { epoch, restore, .. } => {
            send(Reason::Asleep, format!("nap {epoch}: it wakes to {restore}: {why}"));
        }
        Step::ScaleUp { epoch, replicas } => {
            send(Reason::Waking, format!("nap {epoch} ends: scaled from 0 to {replicas}: {why}"));
        }
        Step::FinishWake { epoch } => {
            cx.telemetry.count_wake(WakeOutcome::Awake);
            send(Reason::Awake, format!("nap {epoch} is over: {why}"));
        }
        Step::ClearWish => match why {
            Why::Wished(_) => {}
            why => {
                cx.telemetry.count_nap(NapOutcome::Refused);
                send(Reason::NapRefused, format!("a person asked for a nap: {why}"));
            }
        },
        Step::Stay
        | Step::Substitute
        | Step::Attach
        | Step::Detach
        | Step::Push
        | Step::MarkLeaving
        | Step::Withdraw
        | Step::SweepDead
        | Step::WithdrawStrays
        | Step::Forget => {}
    }
}

/// How long a refusal that is not given any more counts as told: as long as the API server keeps an Event.
const TOLD: Duration = Duration::from_hours(1);

/// Events about what a person has to mend: each message once.
fn complain(cx: &Context, gathered: &Gathered, why: &Why) {
    let mut messages: Vec<(Reason, String)> = Vec::new();
    // A label whose value is not understood opts nothing in, but somebody meant it to.
    if gathered.opted_in() || gathered.reading.refuses() {
        let complaints = gathered.reading.complaints.iter();
        messages.extend(complaints.map(|complaint| (Reason::BadAnnotation, complaint.to_string())));
    }
    // What the annotations say is known in every turn. But a reason to refuse shows only
    // while none comes before it, such as new traffic: that it is not given does not mean that it is mended.
    let mut lasting = None;
    match why {
        Why::ServiceMissing(_) | Why::IngressMissing(_) => {
            lasting = Some(why.to_string());
            messages.push((Reason::BadAnnotation, why.to_string()));
        }
        Why::NoService
        | Why::ServiceRefused(..)
        | Why::HookMissing(_)
        | Why::HookUnmanaged(_)
        | Why::WakeAddressSilent
        | Why::SharedWith(_)
        | Why::ScaledByOther(_)
        | Why::Reverted(_)
        | Why::NoPorts => {
            lasting = Some(why.to_string());
            messages.push((Reason::NapRefused, why.to_string()));
        }
        _ => {}
    }
    let now = Instant::now();
    let fresh = cx.memories.with(&gathered.app, |memory| {
        memory.told.retain(|told, until| *until > now || messages.iter().any(|(_, message)| message == told));
        messages.retain(|(_, message)| {
            let until = if lasting.as_ref() == Some(message) { now + TOLD } else { now };
            memory.told.insert(message.clone(), until).is_none()
        });
        messages
    });
    for (reason, message) in fresh {
        cx.events.send_once(&gathered.app, &gathered.seen.deployment.uid, reason, &message);
    }
}

/// A wake that fails is told once for each nap and class of trouble: between two falls a pod may look well. Waking needs
/// no leader, so each member tells it, and the API server takes it once; the leader counts it.
fn wake_failed(cx: &Context, gathered: &Gathered, why: &Why) {
    let epoch = gathered.seen.epoch(&gathered.app.name);
    let note = format!("nap {epoch} does not end: {why}");
    let now = Instant::now();
    let fresh = cx.memories.with(&gathered.app, |memory| {
        memory.failures_told.retain(|_, until| *until > now);
        let fresh = !memory.failures_told.contains_key(&note);
        memory.failures_told.entry(note.clone()).or_insert(now + TOLD);
        fresh
    });
    if !fresh {
        return;
    }
    cx.events.send_once(&gathered.app, &gathered.seen.deployment.uid, Reason::WakeFailed, &note);
    if cx.lead.holds() {
        cx.telemetry.count_wake(match why {
            Why::CannotStart(Trouble::NotReady) => WakeOutcome::TimedOut,
            _ => WakeOutcome::Failed,
        });
    }
}

fn count_sleep(cx: &Context, gathered: &Gathered, situation: Situation) {
    let now = Instant::now();
    let restore = match situation {
        // Members would count the same sleep twice.
        Situation::Asleep { restore, .. } if cx.lead.holds() => Some(restore),
        _ => None,
    };
    let before = cx
        .memories
        .with(&gathered.app, |memory| std::mem::replace(&mut memory.counted, restore.map(|_| now)));
    if let (Some(restore), Some(before)) = (restore, before) {
        cx.telemetry.count_sleep(&gathered.app, now - before, restore);
    }
}

/// What people are shown of an app.
fn row(gathered: &Gathered, situation: Situation, why: &Why) -> Row {
    let activity = &gathered.activity;
    let deployment = &gathered.seen.deployment;
    let restore_replicas = match situation {
        Situation::Asleep { restore, .. } => Some(restore),
        Situation::Waking { .. } => deployment.record.restore,
        Situation::Awake | Situation::Drowsy { .. } | Situation::OwnersZero => None,
    };
    let mut complaints: Vec<_> = gathered.reading.complaints.iter().map(ToString::to_string).collect();
    if let Why::ServiceMissing(_)
    | Why::IngressMissing(_)
    | Why::ServiceRefused(..)
    | Why::HookMissing(_)
    | Why::HookUnmanaged(_)
    | Why::WakeAddressSilent
    | Why::NoService
    | Why::SharedWith(_)
    | Why::ScaledByOther(_) = why
    {
        complaints.push(why.to_string());
    }
    if let Some(manager) = deployment.record.reverts.fighter(gathered.now()) {
        complaints.push(Why::Reverted(manager.to_owned()).to_string());
    }
    Row {
        phase: situation.phase(),
        replicas: deployment.replicas,
        restore_replicas,
        idle_after: gathered.reading.policy.idle_after,
        last_seen: activity.last_seen,
        watermark: activity.watermark,
        why: why.clone(),
        complaints: complaints.into(),
    }
}
