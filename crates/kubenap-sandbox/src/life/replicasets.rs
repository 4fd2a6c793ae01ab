//! A ReplicaSet has as many pods as it is asked for.
use crate::kinds;
use crate::life::{Task, Turn, pods};
use crate::store::{Key, object};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// On a namespace: nothing may make a pod there, and this is what is said.
const NO_PODS: &str = "sandbox/noPods";
/// The condition that says so.
pub(super) const FAILURE: &str = "ReplicaFailure";
/// When it is tried again though nothing changes; a real one doubles its pauses up to a quarter of an hour.
const RETRY: Duration = Duration::from_mins(5);

pub(super) fn replica_set(turn: &mut Turn<'_>, namespace: &str, name: &str) {
    let key = Key::new("replicasets", namespace, name);
    let Some(set) = turn.store.at(&key).cloned() else { return };
    if object::is_terminating(&set) {
        return;
    }
    let wanted = usize::try_from(set["spec"]["replicas"].as_u64().unwrap_or(1)).unwrap_or(usize::MAX);
    let active = active(turn, &set);
    let forbidden = forbidden(turn, namespace).filter(|_| active.len() < wanted);
    if forbidden.is_some() {
        // Until then only a change of the ReplicaSet makes it try again.
        turn.plan(Task::ReplicaSet(namespace.to_owned(), name.to_owned()), turn.now + RETRY);
    } else {
        for _ in active.len()..wanted {
            create_pod(turn, &set, namespace);
        }
    }
    if active.len() > wanted {
        shrink(turn, active, wanted);
    }
    report(turn, key, &set, forbidden.as_deref());
}

/// Why no pod may be made in a namespace: what a quota or an admission rule would say.
fn forbidden(turn: &Turn<'_>, namespace: &str) -> Option<String> {
    let space = turn.store.find("namespaces", "", namespace)?;
    object::annotation(space, NO_PODS).map(|why| format!("pods is forbidden: {why}"))
}

/// The pods that count: not leaving, not ended.
fn active(turn: &Turn<'_>, set: &Value) -> Vec<(Key, Arc<Value>)> {
    let mut owned = turn.store.owned(Some("pods"), object::uid(set));
    owned.retain(|(_, pod)| {
        !object::is_terminating(pod)
            && !matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"))
    });
    owned
}

/// Those that serve least go first: not ready, then the youngest.
fn shrink(turn: &mut Turn<'_>, mut active: Vec<(Key, Arc<Value>)>, wanted: usize) {
    active.sort_by_key(|(key, pod)| {
        let created = pod["metadata"]["creationTimestamp"].as_str().unwrap_or("").to_owned();
        (!object::is_ready(pod), std::cmp::Reverse(key.clone()), created)
    });
    active.sort_by_key(|(_, pod)| !object::is_ready(pod));
    let Some(kind) = kinds::called("pods") else { return };
    for (key, _) in active.iter().skip(wanted) {
        crate::api::end(turn.store, kind, key, None);
    }
}

fn create_pod(turn: &mut Turn<'_>, set: &Value, namespace: &str) {
    let template = &set["spec"]["template"];
    let prefix = format!("{}-", object::name(set));
    let name = format!("{prefix}{}", turn.store.random.tail());
    let mut metadata = json!({
        "name": name, "generateName": prefix, "namespace": namespace, "uid": turn.store.random.uid(),
        "creationTimestamp": turn.store.clock.stamp(), "generation": 1,
        "labels": template["metadata"]["labels"], "ownerReferences": object::owned_by(set, true),
    });
    if let Some(annotations) = template["metadata"].get("annotations") {
        metadata["annotations"] = annotations.clone();
    }
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"],
        "status": { "phase": "Pending", "qosClass": "BestEffort" },
    });
    turn.store.put(Key::new("pods", namespace, &name), pod);
}

fn report(turn: &mut Turn<'_>, key: Key, set: &Value, forbidden: Option<&str>) {
    let active = active(turn, set);
    let ready: Vec<&Arc<Value>> =
        active.iter().map(|(_, pod)| pod).filter(|pod| object::is_ready(pod)).collect();
    let steady = Duration::from_secs(set["spec"]["minReadySeconds"].as_u64().unwrap_or(0));
    let mut available = 0;
    for pod in &ready {
        // A pod that somebody else runs counts from the first look.
        let due = pods::ready_since(turn, pod).map(|since| since + steady).filter(|due| *due > turn.now);
        match due {
            None => available += 1,
            Some(due) => turn.plan(Task::ReplicaSet(key.namespace.clone(), key.name.clone()), due),
        }
    }
    let count = |number: usize| u64::try_from(number).unwrap_or(0);
    let Some(found) = turn.store.at(&key).cloned() else { return };
    let mut new = Value::clone(&found);
    new["status"]["observedGeneration"] = found["metadata"]["generation"].clone();
    new["status"]["replicas"] = count(active.len()).into();
    object::count(&mut new["status"], "fullyLabeledReplicas", count(active.len()));
    object::count(&mut new["status"], "readyReplicas", count(ready.len()));
    object::count(&mut new["status"], "availableReplicas", available);
    let failure = forbidden.map(|why| {
        // Its time changes only when it does.
        let same = object::condition(&found, FAILURE).filter(|before| before["message"] == why);
        same.cloned().unwrap_or_else(|| {
            json!({ "type": FAILURE, "status": "True", "reason": "FailedCreate", "message": why,
                "lastTransitionTime": turn.store.clock.stamp() })
        })
    });
    object::set_condition(&mut new["status"], FAILURE, failure);
    turn.store.put(key, new);
}
