//! A Deployment has one ReplicaSet for each pod template, and tells how far it has come.
use crate::clock;
use crate::life::replicasets::FAILURE;
use crate::life::{Task, Turn, rollout};
use crate::store::{Key, object};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub(super) const HASH: &str = "pod-template-hash";
const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotations that a Deployment and its ReplicaSets each have their own of.
const NOT_COPIED: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// A ReplicaSet, and what of it counts in a rollout.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) key: Key,
    pub(super) object: Arc<Value>,
}

impl Set {
    pub(super) fn wanted(&self) -> u64 {
        self.object["spec"]["replicas"].as_u64().unwrap_or(0)
    }

    pub(super) fn status(&self, field: &str) -> u64 {
        self.object["status"][field].as_u64().unwrap_or(0)
    }

    fn revision(&self) -> u64 {
        object::annotation(&self.object, REVISION).and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

pub(super) fn deployment(turn: &mut Turn<'_>, namespace: &str, name: &str) {
    let key = Key::new("deployments", namespace, name);
    let Some(deployment) = turn.store.at(&key).cloned() else { return };
    if object::is_terminating(&deployment) {
        return;
    }
    let hash = template_hash(&deployment["spec"]["template"]);
    let mut sets = sets(turn, &deployment);
    let is_paused = deployment["spec"]["paused"] == true;
    let current = sets.iter().position(|set| set.object["metadata"]["labels"][HASH] == *hash);
    let current = match current {
        Some(place) => Some(sets.remove(place)),
        None if is_paused => None,
        None => Some(create_set(turn, &deployment, &hash, &sets)),
    };
    let current = current.map(|set| annotate(turn, &deployment, set, &sets));
    rollout::scale(turn, &deployment, current.as_ref(), &sets);
    tidy(turn, &deployment, &sets);
    report(turn, key, current.as_ref().map(Set::revision));
}

/// The ReplicaSets of a Deployment.
fn sets(turn: &Turn<'_>, deployment: &Value) -> Vec<Set> {
    let owned = turn.store.owned(Some("replicasets"), object::uid(deployment));
    owned.into_iter().map(|(key, object)| Set { key, object }).collect()
}

fn create_set(turn: &mut Turn<'_>, deployment: &Value, hash: &str, others: &[Set]) -> Set {
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH] = hash.into();
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][HASH] = hash.into();
    let (namespace, name) =
        (deployment["metadata"]["namespace"].as_str().unwrap_or(""), object::name(deployment));
    let name = format!("{name}-{hash}");
    let revision = others.iter().map(Set::revision).max().unwrap_or(0) + 1;
    let set = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": name, "namespace": namespace, "uid": turn.store.random.uid(), "generation": 1,
            "creationTimestamp": turn.store.clock.stamp(), "labels": template["metadata"]["labels"],
            "annotations": { REVISION: revision.to_string() },
            "ownerReferences": object::owned_by(deployment, true),
        },
        "spec": {
            "replicas": 0, "selector": selector, "template": template,
            "minReadySeconds": deployment["spec"]["minReadySeconds"].as_u64().unwrap_or(0),
        },
        "status": { "replicas": 0 },
    });
    let key = Key::new("replicasets", namespace, &name);
    let object = turn.store.put(key.clone(), set);
    Set { key, object }
}

/// Copies the Deployment's annotations to its current ReplicaSet, from which `kubectl rollout undo` takes them back.
fn annotate(turn: &mut Turn<'_>, deployment: &Value, set: Set, others: &[Set]) -> Set {
    let newest = others.iter().map(Set::revision).max().unwrap_or(0);
    let mut object = Value::clone(&set.object);
    if set.revision() <= newest {
        object["metadata"]["annotations"][REVISION] = (newest + 1).to_string().into();
    }
    for (name, value) in object::strings(&deployment["metadata"]["annotations"]) {
        if !NOT_COPIED.contains(&name) {
            object["metadata"]["annotations"][name] = value.into();
        }
    }
    Set { object: turn.store.put(set.key.clone(), object), key: set.key }
}

/// Old ReplicaSets beyond the history limit go.
fn tidy(turn: &mut Turn<'_>, deployment: &Value, old: &[Set]) {
    let limit = deployment["spec"]["revisionHistoryLimit"].as_u64().unwrap_or(10);
    let mut empty: Vec<&Set> =
        old.iter().filter(|set| set.wanted() == 0 && set.status("replicas") == 0).collect();
    empty.sort_by_key(|set| set.revision());
    let kept = usize::try_from(limit).unwrap_or(usize::MAX);
    for set in empty.iter().take(empty.len().saturating_sub(kept)) {
        turn.store.remove(&set.key);
    }
}

/// Writes the status: what the ReplicaSets say, added up.
fn report(turn: &mut Turn<'_>, key: Key, revision: Option<u64>) {
    let Some(deployment) = turn.store.at(&key).cloned() else { return };
    let mut new = Value::clone(&deployment);
    if let Some(revision) = revision {
        new["metadata"]["annotations"][REVISION] = revision.to_string().into();
    }
    let hash = template_hash(&deployment["spec"]["template"]);
    let sets = sets(turn, &deployment);
    let sum = |field: &str| sets.iter().map(|set| set.status(field)).sum::<u64>();
    let wanted: u64 = sets.iter().map(Set::wanted).sum();
    let current = sets.iter().find(|set| set.object["metadata"]["labels"][HASH] == *hash);
    let updated = current.map_or(0, |set| set.status("replicas"));
    let (total, available) = (sum("replicas"), sum("availableReplicas"));
    let status = &mut new["status"];
    status["observedGeneration"] = deployment["metadata"]["generation"].clone();
    object::count(status, "replicas", total);
    object::count(status, "updatedReplicas", updated);
    object::count(status, "readyReplicas", sum("readyReplicas"));
    object::count(status, "availableReplicas", available);
    object::count(status, "unavailableReplicas", wanted.saturating_sub(available));
    let desired = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let enough = available >= desired.saturating_sub(rollout::limits(&deployment, desired).unavailable);
    let (answer, reason, message) = if enough {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    let time = turn.store.clock.stamp();
    condition(status, "Available", answer, reason, message, &time);
    let failing = sets.iter().find_map(|set| object::condition(&set.object, FAILURE)).cloned();
    object::set_condition(status, FAILURE, failing);
    let is_complete = updated == desired && total == desired && available == desired;
    progress(turn, &deployment, &key, status, is_complete);
    turn.store.put(key, new);
}

/// A rollout is done, goes on, or has not moved for too long; a finished one stays finished when it is scaled.
fn progress(turn: &mut Turn<'_>, deployment: &Value, key: &Key, status: &mut Value, is_complete: bool) {
    let time = turn.store.clock.stamp();
    let hash = template_hash(&deployment["spec"]["template"]);
    let set = format!("{}-{hash}", key.name);
    let before = object::condition(deployment, "Progressing").cloned().unwrap_or_default();
    let said_for = |reason: &str| {
        before["reason"] == reason && before["message"].as_str().is_some_and(|text| text.contains(&set))
    };
    if is_complete || said_for("NewReplicaSetAvailable") {
        let message = format!("ReplicaSet \"{set}\" has successfully progressed.");
        condition(status, "Progressing", "True", "NewReplicaSetAvailable", &message, &time);
        return;
    }
    let moved = |field: &str| deployment["status"][field] != status[field];
    let has_moved = ["updatedReplicas", "readyReplicas", "availableReplicas"].into_iter().any(moved);
    let limit = Duration::from_secs(deployment["spec"]["progressDeadlineSeconds"].as_u64().unwrap_or(600));
    let since = before["lastUpdateTime"].as_str().and_then(|text| text.parse::<Timestamp>().ok());
    let quiet = since.map(|since| turn.store.clock.now().duration_since(since));
    let is_late = quiet.is_some_and(|quiet| quiet >= limit.try_into().unwrap_or(jiff::SignedDuration::MAX));
    let is_known = said_for("ReplicaSetUpdated") || said_for("ProgressDeadlineExceeded");
    if is_known && !has_moved && is_late {
        let message = format!("ReplicaSet \"{set}\" has timed out progressing.");
        condition(status, "Progressing", "False", "ProgressDeadlineExceeded", &message, &time);
        return;
    }
    let message = format!("ReplicaSet \"{set}\" is progressing.");
    condition(status, "Progressing", "True", "ReplicaSetUpdated", &message, &time);
    if has_moved || !is_known {
        touch(status, &time);
    }
    turn.plan(
        Task::Deployment(key.namespace.clone(), key.name.clone()),
        turn.now + limit + Duration::from_secs(1),
    );
}

fn touch(status: &mut Value, time: &str) {
    let conditions = status["conditions"].as_array_mut().into_iter().flatten();
    for condition in conditions.filter(|condition| condition["type"] == "Progressing") {
        condition["lastUpdateTime"] = time.into();
    }
}

/// Sets one condition; its times change only when it does.
fn condition(status: &mut Value, kind: &str, answer: &str, reason: &str, message: &str, time: &str) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let before = conditions.iter().find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
    if before["status"] == answer && before["reason"] == reason && before["message"] == message {
        return;
    }
    let transition =
        if before["status"] == answer { before["lastTransitionTime"].clone() } else { time.into() };
    conditions.retain(|condition| condition["type"] != kind);
    conditions.push(json!({
        "type": kind, "status": answer, "reason": reason, "message": message,
        "lastUpdateTime": time, "lastTransitionTime": transition,
    }));
}

/// The same template has the same hash, in letters that names may have.
pub(super) fn template_hash(template: &Value) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in template.to_string().bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    crate::store::spell(hash, 10)
}

/// The time of a moment of tokio's clock, as conditions write it.
pub(super) fn stamp_at(turn: &Turn<'_>, moment: tokio::time::Instant) -> String {
    clock::seconds(turn.store.clock.at(moment))
}
