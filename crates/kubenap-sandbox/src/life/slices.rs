//! `EndpointSlices` follow the pods of their Services, a little late; those of other makers are left alone.
use crate::life::Turn;
use crate::store::{Key, Store, object};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

pub(crate) const SERVICE: &str = "kubernetes.io/service-name";
const MAKER: &str = "endpointslice.kubernetes.io/managed-by";
const OURS: &str = "endpointslice-controller.k8s.io";
/// As many endpoints as the real controller puts into one slice.
const MOST: usize = 100;

/// The names of the Services that select a pod, in any of its states.
pub(super) fn services_of(store: &Store, namespace: &str, pods: &[&Value]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for pod in pods {
        for (label, value) in object::labels(pod) {
            let selecting = store.selecting(namespace, label, value).into_iter();
            names.extend(selecting.filter(|(_, service)| selects(service, pod)).map(|(key, _)| key.name));
        }
    }
    names
}

fn selects(service: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    let mut selector = object::strings(&service["spec"]["selector"]).peekable();
    selector.peek().is_some() && selector.all(|(key, value)| labels[key] == value)
}

pub(super) fn slices(turn: &mut Turn<'_>, namespace: &str, name: &str) {
    let Some(service) = turn.store.find("services", namespace, name).cloned() else { return };
    let Some((label, value)) = object::strings(&service["spec"]["selector"]).next() else { return };
    if object::is_terminating(&service) || service["spec"]["type"] == "ExternalName" {
        return;
    }
    let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
    for (_, pod) in turn.store.labelled("pods", namespace, label, value) {
        let is_over = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
        if is_over || !pod["status"]["podIP"].is_string() || !selects(&service, &pod) {
            continue;
        }
        let ports = ports(&service, &pod);
        let group = groups.entry(ports.to_string()).or_insert_with(|| (ports, Vec::new()));
        group.1.push(endpoint(&service, &pod));
    }
    let mut wanted: Vec<(Value, Vec<Value>)> = groups
        .into_values()
        .flat_map(|(ports, endpoints)| {
            let chunks: Vec<_> =
                endpoints.chunks(MOST).map(|chunk| (ports.clone(), chunk.to_vec())).collect();
            chunks
        })
        .collect();
    if wanted.is_empty() {
        wanted.push((json!([]), Vec::new()));
    }
    let mut existing = turn.store.labelled("endpointslices", namespace, SERVICE, name);
    existing.retain(|(_, slice)| slice["metadata"]["labels"][MAKER] == OURS);
    for (ports, endpoints) in wanted {
        let same = existing.iter().position(|(_, slice)| slice["ports"] == ports).unwrap_or(0);
        if existing.is_empty() {
            create(turn, &service, &ports, &endpoints);
        } else {
            let (key, slice) = existing.remove(same);
            let mut new = Value::clone(&slice);
            new["ports"] = ports;
            new["endpoints"] = endpoints.into();
            if new["ports"] != slice["ports"] || new["endpoints"] != slice["endpoints"] {
                new["metadata"]["generation"] =
                    (slice["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
            }
            turn.store.put(key, new);
        }
    }
    for (key, _) in existing {
        turn.store.remove(&key);
    }
}

fn create(turn: &mut Turn<'_>, service: &Value, ports: &Value, endpoints: &[Value]) {
    let namespace = service["metadata"]["namespace"].as_str().unwrap_or("");
    let prefix = format!("{}-", object::name(service));
    let name = format!("{prefix}{}", turn.store.random.tail());
    let mut labels = json!({ SERVICE: object::name(service), MAKER: OURS });
    if service["spec"]["clusterIP"] == "None" {
        labels["service.kubernetes.io/headless"] = "".into();
    }
    for (label, value) in object::labels(service) {
        labels[label] = value.into();
    }
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": name, "generateName": prefix, "namespace": namespace, "uid": turn.store.random.uid(),
            "generation": 1, "creationTimestamp": turn.store.clock.stamp(), "labels": labels,
            "ownerReferences": object::owned_by(service, true),
        },
        "endpoints": endpoints, "ports": ports,
    });
    turn.store.put(Key::new("endpointslices", namespace, &name), slice);
}

/// The Service's ports as this pod has them: a port's name stays, its number is the pod's.
fn ports(service: &Value, pod: &Value) -> Value {
    let resolved = object::list(&service["spec"]["ports"]).iter().filter_map(|port| {
        let number = match &port["targetPort"] {
            Value::Number(number) => Value::Number(number.clone()),
            Value::String(name) => container_port(pod, name)?,
            _ => port["port"].clone(),
        };
        let mut resolved = json!({
            "name": port["name"].as_str().unwrap_or(""), "protocol": port["protocol"], "port": number,
        });
        if port["appProtocol"].is_string() {
            resolved["appProtocol"] = port["appProtocol"].clone();
        }
        Some(resolved)
    });
    Value::Array(resolved.collect())
}

fn container_port(pod: &Value, name: &str) -> Option<Value> {
    object::list(&pod["spec"]["containers"])
        .iter()
        .flat_map(|container| object::list(&container["ports"]))
        .find(|port| port["name"] == name)
        .map(|port| port["containerPort"].clone())
}

fn endpoint(service: &Value, pod: &Value) -> Value {
    let is_serving = object::is_ready(pod);
    let is_terminating = object::is_terminating(pod);
    let is_published = service["spec"]["publishNotReadyAddresses"] == true;
    json!({
        "addresses": [pod["status"]["podIP"]],
        "conditions": {
            "ready": is_published || (is_serving && !is_terminating),
            "serving": is_serving, "terminating": is_terminating,
        },
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {
            "kind": "Pod", "namespace": pod["metadata"]["namespace"],
            "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
        },
    })
}
