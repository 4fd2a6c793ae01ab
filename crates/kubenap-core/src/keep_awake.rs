//! The reasons to stay awake, in the order in which they are asked; none relies on another.

use jiff::Timestamp;

use crate::decide::{Facts, QUERY_LAG};
use crate::policy::Weight;
use crate::seen::{HookGap, HookSeen, Phase};
use crate::why::Why;

type Question = fn(&Facts<'_>) -> Option<Why>;

/// What forbids a nap whoever asks for it.
const REFUSALS: &[Question] = &[
    bad_annotation,
    service_problem,
    ingress_missing,
    hook_problem,
    shared,
    reverted,
    unsettled,
    rollout,
    scaled_by_other,
];

/// What forbids a nap that nobody asked for.
const DOUBTS: &[Question] = &[asked, woke_recently, blind, behind, had_traffic, peer_unwilling, paced];

/// The first reason why the app stays awake; none: it may nap.
pub fn keep_awake(facts: &Facts<'_>) -> Option<Why> {
    refusal(facts).or_else(|| DOUBTS.iter().find_map(|question| question(facts)))
}

/// The first reason of the app's own, whatever its peers and the pace say: is it willing?
pub fn unwilling(facts: &Facts<'_>) -> Option<Why> {
    let doubts = [asked, woke_recently, blind, behind, had_traffic];
    refusal(facts).or_else(|| doubts.iter().find_map(|question| question(facts)))
}

/// The first reason that forbids even a nap that a person asks for.
pub fn refusal(facts: &Facts<'_>) -> Option<Why> {
    REFUSALS.iter().find_map(|question| question(facts))
}

/// Why no request could come through the app's Services while it sleeps, if so.
pub fn service_problem(facts: &Facts<'_>) -> Option<Why> {
    if let Some(name) = facts.seen.missing_services.first() {
        return Some(Why::ServiceMissing(name.clone()));
    }
    if facts.seen.services.is_empty() {
        return Some(Why::NoService);
    }
    // A proxy's error path does not care what kind of Service it is that has no pods.
    let mut services = facts.seen.services.iter().filter(|_| facts.reading.policy.substitute);
    services.find_map(|service| service.refusal.map(|why| Why::ServiceRefused(service.name.clone(), why)))
}

/// Why it cannot be told that requests find KubeNap while an app sleeps that is not substituted.
fn hook_problem(facts: &Facts<'_>) -> Option<Why> {
    if facts.reading.policy.substitute {
        return None;
    }
    match facts.seen.hook {
        HookSeen::Unknown => Some(Why::HookUnknown),
        HookSeen::Missing(gap) => Some(hook_missing(gap, facts)),
        HookSeen::Attachable | HookSeen::Declared | HookSeen::Seen => {
            (!facts.wake_address_answers).then_some(Why::WakeAddressSilent)
        }
    }
}

/// What is missing for a hook, in the words of whoever stands in the way.
pub fn hook_missing(gap: HookGap, facts: &Facts<'_>) -> Why {
    match gap {
        HookGap::Unmanaged => Why::HookUnmanaged(facts.seen.hook_refusal.clone()),
        HookGap::NoProxy | HookGap::NotShown | HookGap::NoRoute => Why::HookMissing(gap),
    }
}

fn ingress_missing(facts: &Facts<'_>) -> Option<Why> {
    facts.seen.missing_ingresses.first().map(|name| Why::IngressMissing(name.clone()))
}

fn bad_annotation(facts: &Facts<'_>) -> Option<Why> {
    let complaints = &facts.reading.complaints;
    let first = complaints.iter().find(|complaint| complaint.weight == Weight::Refuses)?;
    Some(Why::BadAnnotation(first.to_string()))
}

fn shared(facts: &Facts<'_>) -> Option<Why> {
    facts.seen.strangers.first().map(|name| Why::SharedWith(name.clone()))
}

/// The Deployment's controller has not acted on the newest version yet; for a moment only. A Deployment's generation
/// rises with its annotations too, so KubeNap's own writes are such a moment (seen on Kubernetes 1.34).
pub fn unsettled(facts: &Facts<'_>) -> Option<Why> {
    let seen = &facts.seen.deployment;
    (seen.observed_generation < seen.generation).then_some(Why::RollingOut)
}

fn rollout(facts: &Facts<'_>) -> Option<Why> {
    let seen = &facts.seen.deployment;
    if seen.paused {
        return Some(Why::Paused);
    }
    if seen.updated < seen.replicas || seen.pods > seen.replicas {
        return Some(Why::RollingOut);
    }
    (seen.ready < seen.replicas || !facts.seen.ready()).then_some(Why::NotReady)
}

fn reverted(facts: &Facts<'_>) -> Option<Why> {
    let reverts = &facts.seen.deployment.record.reverts;
    reverts.fighter(facts.now).map(|manager| Why::Reverted(manager.to_owned()))
}

fn scaled_by_other(facts: &Facts<'_>) -> Option<Why> {
    let scaler = facts.seen.scaler.as_ref().filter(|scaler| scaler.owns_zero)?;
    Some(Why::ScaledByOther(scaler.name.clone()))
}

fn asked(facts: &Facts<'_>) -> Option<Why> {
    facts.asked.then_some(Why::Asked)
}

fn woke_recently(facts: &Facts<'_>) -> Option<Why> {
    let since = awake_since(facts)?;
    // A moment in the future, by somebody's wrong clock, counts as just now.
    let awake = std::time::Duration::try_from(facts.now.duration_since(since)).unwrap_or_default();
    let left = facts.timing.min_awake.checked_sub(awake).filter(|left| !left.is_zero())?;
    Some(Why::WokeRecently(left))
}

fn blind(facts: &Facts<'_>) -> Option<Why> {
    let blind = &facts.activity.blind;
    (!blind.is_empty()).then(|| Why::Blind(blind.clone()))
}

/// The last look could not come before the nap counted as abandoned.
fn behind(facts: &Facts<'_>) -> Option<Why> {
    facts.reading.policy.query.as_ref()?;
    let lag = std::time::Duration::try_from(facts.now.duration_since(facts.activity.watermark)).ok()?;
    (lag > QUERY_LAG).then_some(Why::Behind(lag))
}

fn had_traffic(facts: &Facts<'_>) -> Option<Why> {
    let idle_after = facts.reading.policy.idle_after;
    let quiet = facts.activity.quiet_since(awake_since(facts).unwrap_or(Timestamp::MIN));
    idle_after.checked_sub(quiet).filter(|left| !left.is_zero()).map(Why::HadTraffic)
}

fn peer_unwilling(facts: &Facts<'_>) -> Option<Why> {
    let awake = |phase| matches!(phase, Phase::Awake | Phase::Waking);
    let peer = facts.seen.peers.iter().find(|peer| awake(peer.phase) && !peer.willing)?;
    Some(Why::PeerAwake(peer.id.to_string()))
}

fn paced(facts: &Facts<'_>) -> Option<Why> {
    (!facts.may_arm).then_some(Why::Paced)
}

fn awake_since(facts: &Facts<'_>) -> Option<Timestamp> {
    let record = &facts.seen.deployment.record;
    record.since.filter(|_| record.phase == Some(Phase::Awake))
}
