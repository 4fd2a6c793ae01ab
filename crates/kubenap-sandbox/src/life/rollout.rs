//! A rollout: the new ReplicaSet grows and the old ones shrink, within what may be missing or too much.
use crate::kinds;
use crate::life::Turn;
use crate::life::deployments::Set;
use crate::store::object;
use serde_json::Value;

/// How far a rollout may stray from the desired count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) surge: u64,
    pub(super) unavailable: u64,
}

/// What a Deployment's strategy allows for a count.
pub(super) fn limits(deployment: &Value, desired: u64) -> Limits {
    let strategy = &deployment["spec"]["strategy"];
    if strategy["type"] == "Recreate" {
        return Limits { surge: 0, unavailable: 0 };
    }
    let rolling = &strategy["rollingUpdate"];
    let surge = resolve(&rolling["maxSurge"], desired, Round::Up);
    let unavailable = resolve(&rolling["maxUnavailable"], desired, Round::Down);
    if surge == 0 && unavailable == 0 {
        return Limits { surge: 0, unavailable: 1 };
    }
    Limits { surge, unavailable: unavailable.min(desired) }
}

#[derive(Clone, Copy)]
enum Round {
    Up,
    Down,
}

/// A number, or a percentage of the desired count.
fn resolve(value: &Value, desired: u64, round: Round) -> u64 {
    let Some(percent) = value.as_str().and_then(|text| text.strip_suffix('%')?.parse::<u64>().ok()) else {
        return value.as_u64().unwrap_or(0);
    };
    match round {
        Round::Up => (desired * percent).div_ceil(100),
        Round::Down => desired * percent / 100,
    }
}

/// Sets the ReplicaSets' sizes, one step.
pub(super) fn scale(turn: &mut Turn<'_>, deployment: &Value, current: Option<&Set>, old: &[Set]) {
    let desired = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let active: Vec<&Set> = old.iter().filter(|set| set.wanted() > 0).collect();
    if deployment["spec"]["paused"] == true {
        let newest_first: Vec<&Set> = current.into_iter().chain(active).collect();
        hold(turn, &newest_first, desired);
        return;
    }
    let Some(current) = current else { return };
    if deployment["spec"]["strategy"]["type"] == "Recreate" {
        recreate(turn, current, old, desired);
    } else if active.is_empty() {
        // Nothing to roll: a plain change of the count.
        resize(turn, current, desired);
    } else {
        roll(turn, deployment, current, &active, desired);
    }
}

/// Only the count changes: the newest takes what is added, the oldest give first.
fn hold(turn: &mut Turn<'_>, newest_first: &[&Set], desired: u64) {
    let total: u64 = newest_first.iter().map(|set| set.wanted()).sum();
    if let Some(newest) = newest_first.first().filter(|_| total < desired) {
        resize(turn, newest, newest.wanted() + desired - total);
    }
    let mut surplus = total.saturating_sub(desired);
    for set in newest_first.iter().rev() {
        let given = set.wanted().min(surplus);
        surplus -= given;
        resize(turn, set, set.wanted() - given);
    }
}

/// The last old pod is gone before the first new one comes.
fn recreate(turn: &mut Turn<'_>, current: &Set, old: &[Set], desired: u64) {
    for set in old {
        resize(turn, set, 0);
    }
    let has_pods = |set: &Set| !turn.store.owned(Some("pods"), object::uid(&set.object)).is_empty();
    if !old.iter().any(has_pods) {
        resize(turn, current, desired);
    }
}

fn roll(turn: &mut Turn<'_>, deployment: &Value, current: &Set, active: &[&Set], desired: u64) {
    let limits = limits(deployment, desired);
    let total = current.wanted() + active.iter().map(|set| set.wanted()).sum::<u64>();
    let room = (desired + limits.surge).saturating_sub(total);
    let grown = if current.wanted() > desired {
        desired
    } else {
        current.wanted() + room.min(desired - current.wanted())
    };
    resize(turn, current, grown);
    let least = desired.saturating_sub(limits.unavailable);
    let not_there = current.wanted().saturating_sub(current.status("availableReplicas"));
    // Pods of the old kind that do not serve are no loss.
    let mut spare = total.saturating_sub(least).saturating_sub(not_there);
    let mut available = current.status("availableReplicas")
        + active.iter().map(|set| set.status("availableReplicas")).sum::<u64>();
    for set in active {
        let broken = set.wanted().saturating_sub(set.status("availableReplicas")).min(spare);
        spare -= broken;
        let serving = (set.wanted() - broken).min(available.saturating_sub(least)).min(spare);
        spare -= serving;
        available = available.saturating_sub(serving);
        resize(turn, set, set.wanted() - broken - serving);
    }
}

fn resize(turn: &mut Turn<'_>, set: &Set, replicas: u64) {
    if set.wanted() == replicas {
        return;
    }
    let mut object = Value::clone(&set.object);
    object["spec"]["replicas"] = replicas.into();
    if let Some(kind) = kinds::called("replicasets") {
        crate::api::count_generation(kind, &set.object, &mut object);
    }
    turn.store.put(set.key.clone(), object);
}
