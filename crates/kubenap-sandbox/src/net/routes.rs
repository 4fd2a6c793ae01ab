//! Which Service an Ingress leads a request to.
use crate::net::endpoints::endpoints;
use crate::store::{Store, object};
use serde_json::Value;
use std::net::SocketAddr;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// `<namespace>-<service>-<port as the Ingress writes it>`.
    pub(crate) label: String,
    /// The ready endpoints.
    pub(crate) addresses: Vec<SocketAddr>,
}

/// The route of a host and path: the closest host first, then an exact path, then the longest.
pub(crate) fn route(store: &Store, host: &str, path: &str) -> Option<Route> {
    let mut best: Option<((u8, u8, usize), &str, &Value)> = None;
    for (key, ingress) in store.all("ingresses", None) {
        let spec = &ingress["spec"];
        if spec["defaultBackend"].is_object() && best.is_none() {
            best = Some(((0, 0, 0), &key.namespace, &spec["defaultBackend"]));
        }
        for rule in object::list(&spec["rules"]) {
            let Some(close) = host_closeness(rule["host"].as_str().unwrap_or(""), host) else { continue };
            for entry in object::list(&rule["http"]["paths"]) {
                let Some((exact, length)) = path_closeness(entry, path) else { continue };
                let rank = (close, exact, length);
                if best.is_none_or(|(so_far, _, _)| rank > so_far) {
                    best = Some((rank, &key.namespace, &entry["backend"]));
                }
            }
        }
    }
    let (_, namespace, backend) = best?;
    resolve(store, namespace, &backend["service"])
}

/// Above zero when a rule's host takes the request in.
fn host_closeness(rule: &str, host: &str) -> Option<u8> {
    if rule.is_empty() {
        return Some(1);
    }
    if rule == host {
        return Some(3);
    }
    // A wildcard stands for exactly one label.
    let (first, rest) = host.split_once('.')?;
    (rule.strip_prefix("*.") == Some(rest) && !first.is_empty()).then_some(2)
}

fn path_closeness(entry: &Value, path: &str) -> Option<(u8, usize)> {
    let wanted = entry["path"].as_str().unwrap_or("/");
    match entry["pathType"].as_str() {
        Some("Exact") => (wanted == path).then_some((1, wanted.len())),
        Some("Prefix") => {
            let stem = wanted.trim_end_matches('/');
            let rest = path.strip_prefix(stem)?;
            (rest.is_empty() || rest.starts_with('/')).then_some((0, wanted.len()))
        }
        _ => path.starts_with(wanted).then_some((0, wanted.len())),
    }
}

fn resolve(store: &Store, namespace: &str, backend: &Value) -> Option<Route> {
    let name = backend["name"].as_str()?;
    let service = store.find("services", namespace, name)?;
    let (written, port) = match (&backend["port"]["name"], &backend["port"]["number"]) {
        (Value::String(port), _) if !port.is_empty() => {
            (port.clone(), port_with(service, "name", &backend["port"]["name"]))
        }
        (_, number) => (number.to_string(), port_with(service, "port", number)),
    };
    let port = port?["name"].as_str().unwrap_or("");
    let addresses = endpoints(store, namespace, name, port).ready;
    Some(Route { label: format!("{namespace}-{name}-{written}"), addresses })
}

fn port_with<'a>(service: &'a Value, field: &str, value: &Value) -> Option<&'a Value> {
    object::list(&service["spec"]["ports"]).iter().find(|port| port[field] == *value)
}
