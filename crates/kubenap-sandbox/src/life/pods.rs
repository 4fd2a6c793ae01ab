//! A pod is scheduled, starts, gets ready, is told to stop, lingers, and is gone.
use crate::life::{Task, Turn, deployments};
use crate::net::backend::Backend;
use crate::store::{Key, object};
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::net::Ipv4Addr;
use std::time::Duration;
use tokio::time::Instant;

/// The sandbox's only node; pods that name another one are run by whoever made them.
pub(crate) const NODE: &str = "sandbox";
const READY_DELAY: &str = "sandbox/readyDelay";
const BROKEN: &str = "sandbox/broken";

/// Addresses to try when something else listens on one of them.
const ATTEMPTS: usize = 8;
/// When there was no address.
const RETRY: Duration = Duration::from_secs(1);

/// What the node knows of a pod that it runs.
#[derive(Debug)]
pub(super) struct Run {
    created: Instant,
    ready: Option<Instant>,
    stop: Option<Instant>,
    /// The app that listens, when there are sockets.
    app: Option<Backend>,
}

/// Since when a pod of this node has been ready.
pub(super) fn ready_since(turn: &Turn<'_>, pod: &Value) -> Option<Instant> {
    turn.agenda.runs.get(object::uid(pod))?.ready
}

/// A pod was removed: its app ends, its address is free.
pub(super) fn gone(turn: &mut Turn<'_>, pod: &Value) {
    turn.agenda.runs.remove(object::uid(pod));
    if let Some(address) = pod["status"]["podIP"].as_str().and_then(|text| text.parse().ok()) {
        turn.store.addresses.release(address);
    }
}

pub(super) fn pod(turn: &mut Turn<'_>, namespace: &str, name: &str) {
    let key = Key::new("pods", namespace, name);
    let Some(pod) = turn.store.at(&key).cloned() else { return };
    if pod["spec"]["nodeName"].as_str().is_some_and(|node| node != NODE) {
        return;
    }
    let now = turn.now;
    let uid = object::uid(&pod).to_owned();
    turn.agenda.runs.entry(uid.clone()).or_insert(Run { created: now, ready: None, stop: None, app: None });
    if object::is_terminating(&pod) {
        stop(turn, &key, &pod, &uid);
        return;
    }
    let broken = object::annotation(&pod, BROKEN).map(str::to_owned);
    let Some(created) = turn.agenda.runs.get(&uid).map(|run| run.created) else { return };
    let mut new = Value::clone(&pod);
    if broken.as_deref() == Some("Unschedulable") {
        unschedulable(turn, &mut new);
        turn.store.put(key, new);
        return;
    }
    let delay = delay(turn, &pod);
    let (start, ready) = (created + delay / 2, created + delay);
    if !pod["spec"]["nodeName"].is_string() {
        new["spec"]["nodeName"] = NODE.into();
        conditions(&mut new, &[("PodScheduled", true)], &turn.store.clock.stamp());
    }
    if now >= start && pod["status"]["phase"] == "Pending" && !pod["status"]["podIP"].is_string() {
        begin(turn, &mut new, broken.as_deref());
    }
    if now >= ready && new["status"]["podIP"].is_string() && broken.is_none() && !object::is_ready(&new) {
        if let Some(run) = turn.agenda.runs.get_mut(&uid) {
            run.ready.get_or_insert(now);
        }
        let time = deployments::stamp_at(turn, now);
        conditions(&mut new, &[("ContainersReady", true), ("Ready", true)], &time);
        containers(&mut new, &json!({ "running": { "startedAt": time } }), true, 0);
    }
    let next = if now < start { start } else { ready };
    if next > now {
        turn.plan(Task::Pod(namespace.to_owned(), name.to_owned()), next);
    }
    turn.store.put(key, new);
}

/// How long this pod takes: its annotation, or the sandbox's setting.
fn delay(turn: &Turn<'_>, pod: &Value) -> Duration {
    object::annotation(pod, READY_DELAY)
        .and_then(|text| text.parse::<SignedDuration>().ok())
        .and_then(|delay| Duration::try_from(delay).ok())
        .unwrap_or(turn.settings.ready_delay)
}

/// The pod gets an address, and its containers run, or fail as they were told to.
fn begin(turn: &mut Turn<'_>, pod: &mut Value, broken: Option<&str>) {
    let time = turn.store.clock.stamp();
    let Some(address) = address(turn, pod, broken.is_none()) else {
        let (namespace, name) = (pod["metadata"]["namespace"].as_str().unwrap_or(""), object::name(pod));
        let again = Task::Pod(namespace.to_owned(), name.to_owned());
        return turn.plan(again, turn.now + RETRY);
    };
    let status = &mut pod["status"];
    status["podIP"] = address.to_string().into();
    status["podIPs"] = json!([{ "ip": address.to_string() }]);
    status["hostIP"] = "127.0.0.1".into();
    status["startTime"] = time.clone().into();
    let waiting =
        |reason: &str, message: &str| json!({ "waiting": { "reason": reason, "message": message } });
    match broken {
        Some("ImagePullBackOff") => {
            let image = pod["spec"]["containers"][0]["image"].as_str().unwrap_or("").to_owned();
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: not found");
            containers(pod, &waiting("ImagePullBackOff", &message), false, 0);
        }
        Some(reason @ "CreateContainerConfigError") => {
            containers(pod, &waiting(reason, "configmap \"settings\" not found"), false, 0);
        }
        Some(_) => {
            pod["status"]["phase"] = "Running".into();
            let message = "back-off 10s restarting failed container";
            containers(pod, &waiting("CrashLoopBackOff", message), false, 3);
            for container in pod["status"]["containerStatuses"].as_array_mut().into_iter().flatten() {
                container["lastState"] = json!({ "terminated": {
                    "exitCode": 1, "reason": "Error", "startedAt": time, "finishedAt": time,
                } });
            }
        }
        None => {
            pod["status"]["phase"] = "Running".into();
            containers(pod, &json!({ "running": { "startedAt": time } }), false, 0);
        }
    }
    let all = [("Initialized", true), ("ContainersReady", false), ("Ready", false)];
    conditions(pod, &all, &time);
    for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
        if condition["status"] == "False" {
            condition["reason"] = "ContainersNotReady".into();
        }
    }
}

/// An address for the pod, on which its app listens already; none while all are taken.
fn address(turn: &mut Turn<'_>, pod: &Value, runs: bool) -> Option<Ipv4Addr> {
    for _ in 0..ATTEMPTS {
        let address = turn.store.addresses.pod()?;
        if !(turn.settings.sockets && runs) {
            return Some(address);
        }
        match Backend::listen(pod, address) {
            Ok(app) => {
                turn.agenda.runs.get_mut(object::uid(pod))?.app = Some(app);
                return Some(address);
            }
            Err(_) => turn.store.addresses.release(address),
        }
    }
    None
}

fn unschedulable(turn: &Turn<'_>, pod: &mut Value) {
    conditions(pod, &[("PodScheduled", false)], &turn.store.clock.stamp());
    for condition in pod["status"]["conditions"].as_array_mut().into_iter().flatten() {
        condition["reason"] = "Unschedulable".into();
        condition["message"] = "0/1 nodes are available: 1 Insufficient cpu.".into();
    }
}

/// The pod serves on for a while after it was told to stop.
fn stop(turn: &mut Turn<'_>, key: &Key, pod: &Value, uid: &str) {
    let grace = Duration::from_secs(pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30));
    let lingers = turn.settings.stop_delay.min(grace);
    let now = turn.now;
    let Some(run) = turn.agenda.runs.get_mut(uid) else { return };
    let end = *run.stop.get_or_insert(now + lingers);
    if now < end {
        turn.plan(Task::Pod(key.namespace.clone(), key.name.clone()), end);
    } else if object::list(&pod["metadata"]["finalizers"]).is_empty() {
        turn.store.remove(key);
    }
}

/// Sets conditions; the time of one changes only when its status does.
fn conditions(pod: &mut Value, wanted: &[(&str, bool)], time: &str) {
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = pod["status"]["conditions"].as_array_mut() else { return };
    for (kind, answer) in wanted {
        let answer = if *answer { "True" } else { "False" };
        match conditions.iter_mut().find(|condition| condition["type"] == *kind) {
            Some(condition) if condition["status"] == answer => {}
            Some(condition) => {
                *condition = json!({ "type": kind, "status": answer, "lastTransitionTime": time });
            }
            None => conditions.push(json!({ "type": kind, "status": answer, "lastTransitionTime": time })),
        }
    }
}

fn containers(pod: &mut Value, state: &Value, is_ready: bool, restarts: u64) {
    let statuses: Vec<Value> = object::list(&pod["spec"]["containers"])
        .iter()
        .map(|container| {
            json!({
                "name": container["name"], "image": container["image"], "imageID": "", "state": state,
                "lastState": {}, "ready": is_ready, "restartCount": restarts,
                "started": state.get("running").is_some(),
            })
        })
        .collect();
    pod["status"]["containerStatuses"] = statuses.into();
}
