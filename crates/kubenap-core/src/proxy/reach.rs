//! By which hosts, and through which gateways, a route is reached.

use std::collections::BTreeSet;

use serde_json::Value;

use super::expression::{Covered, covered};
use super::routes::{list, shape, text, texts_or_any};

/// The hosts of each rule of a route, in lower case; none where it also serves hosts that it does not spell out, or does not
/// say so plainly. One list alone is for all its rules; no list for an Ingress.
pub fn hosts(object: &Value) -> Vec<Vec<String>> {
    let spec = &object["spec"];
    match object["kind"].as_str().or_else(|| shape(spec)) {
        Some("HTTPRoute" | "GRPCRoute") => vec![spelled_out(&texts_or_any(&spec["hostnames"]))],
        Some("VirtualService") => vec![spelled_out(&texts_or_any(&spec["hosts"]))],
        Some("IngressRoute") => {
            let hosts = list(&spec["routes"]).iter().map(|rule| {
                let Covered { places, whole } = covered(text(&rule["match"]).unwrap_or_default());
                let hosts: Vec<_> = places.iter().map(|(host, ..)| host.as_str()).collect();
                if whole { spelled_out(&hosts) } else { Vec::new() }
            });
            hosts.collect()
        }
        _ => Vec::new(),
    }
}

/// A name without a dot is a Service's, which gateways know by a longer one.
fn spelled_out(hosts: &[&str]) -> Vec<String> {
    if hosts.iter().any(|host| host.contains('*') || !host.contains('.')) {
        return Vec::new();
    }
    hosts.iter().map(|host| host.to_ascii_lowercase()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The gateways that a route of the Gateway API, or a VirtualService, names, with their namespaces. A Service as its parent,
/// and the mesh, are what callers inside go by: nothing comes in by them. An empty name stands for gateways that another
/// object names.
pub fn gateways(object: &Value) -> BTreeSet<String> {
    let spec = &object["spec"];
    let own = text(&object["metadata"]["namespace"]).unwrap_or_default();
    if object["kind"].as_str().or_else(|| shape(spec)) == Some("VirtualService") {
        let named = list(&spec["gateways"]).iter().filter_map(text).filter(|name| *name != "mesh");
        let whole = |name: &str| if name.contains('/') { name.to_owned() } else { format!("{own}/{name}") };
        // One without hosts is a part of others, which name the gateways.
        let unnamed = list(&spec["hosts"]).is_empty().then(String::new);
        return named.map(whole).chain(unnamed).collect();
    }
    let parents = list(&spec["parentRefs"]).iter().filter(|parent| parent["kind"] != "Service");
    let parents = parents.map(|parent| {
        let namespace = text(&parent["namespace"]).unwrap_or(own);
        let name = text(&parent["name"]).unwrap_or_default();
        match text(&parent["kind"]) {
            None | Some("Gateway") => format!("{namespace}/{name}"),
            Some(kind) => format!("{kind} {namespace}/{name}"),
        }
    });
    parents.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_route_s_hosts_are_told_where_it_spells_all_of_them_out() {
        let route = |kind: &str, field: &str, names: Value| {
            hosts(&json!({ "kind": kind, "spec": { (field): names, "rules": [{}, {}] } }))
        };
        assert_eq!(
            route("HTTPRoute", "hostnames", json!(["B.example", "a.example"])),
            [["a.example", "b.example"]]
        );
        assert_eq!(route("GRPCRoute", "hostnames", json!(["a.example"])), [["a.example"]]);
        for open in [json!([]), json!(["a.example", "*.example"]), Value::Null] {
            assert_eq!(route("HTTPRoute", "hostnames", open.clone()), [[""; 0]], "{open}");
        }
        assert_eq!(route("VirtualService", "hosts", json!(["web.example"])), [["web.example"]]);
        assert_eq!(route("VirtualService", "hosts", json!(["web"])), [[""; 0]], "a Service's name");
        let rule = |text: &str| json!({ "match": text });
        let object = json!({ "kind": "IngressRoute", "spec": { "routes": [
            rule("Host(`a.example`) || Host(`b.example`) && PathPrefix(`/x`)"),
            rule("Host(`a.example`) || HostRegexp(`.*`)"),
            rule("PathPrefix(`/x`)"),
            rule("(Host(`a.example`) || Host(`b.example`)) && Path(`/`)"),
        ] } });
        let nothing = Vec::<String>::new;
        let first = vec!["a.example".to_owned(), "b.example".to_owned()];
        assert_eq!(hosts(&object), [first.clone(), nothing(), nothing(), first]);
    }
}
