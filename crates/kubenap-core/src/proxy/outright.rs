//! Which rules of a route take every request for their host and path, and by which way requests come to it.

use serde_json::Value;

use super::routes::{self, Rule};

/// The rules that ask for nothing besides host and path, of a route that is no Ingress and to which requests come from
/// outside. Sorted. What leads elsewhere than to a Service of the route's own namespace is there too, with a `/` in
/// the Service's name, which no Service has: such a rule leads to nobody's app.
pub fn rules(object: &Value) -> Vec<Rule> {
    let (own, spec) = (&object["metadata"]["namespace"], &object["spec"]);
    let is_ingress_route = spec["routes"].is_array();
    // Who delegates to a VirtualService without hosts says for which.
    let is_a_part = spec["http"].is_array() && spec["hosts"].as_array().is_none_or(Vec::is_empty);
    if is_a_part || (!is_ingress_route && routes::gateways(object).is_empty()) {
        return Vec::new();
    }
    let mut plain = object.clone();
    let Some(spec) = plain.get_mut("spec") else { return Vec::new() };
    for route in each(spec, "routes") {
        if !is_plain(route["match"].as_str().unwrap_or_default()) {
            *route = Value::Null;
        }
        each(route, "services").for_each(|service| mark(service, own));
    }
    for rule in each(spec, "rules") {
        keep_plain(rule, "matches", &["path"]);
        each(rule, "backendRefs").for_each(|backend| mark(backend, own));
    }
    for rule in each(spec, "http") {
        keep_plain(rule, "match", &["uri", "name"]);
        let hosts = each(rule, "route").filter_map(|route| route.pointer_mut("/destination/host"));
        for host in hosts {
            let mut parts = host.as_str().unwrap_or_default().split('.');
            let (service, namespace) = (parts.next().unwrap_or_default(), parts.next());
            if namespace.is_some_and(|namespace| own != namespace) {
                *host = format!("{service}/").into();
            }
        }
    }
    routes::rules(&plain)
}

/// By which way requests come to a route: two that say the same are asked for the same requests.
pub fn entrance(object: &Value) -> String {
    let (kind, spec) = (object["kind"].as_str().unwrap_or_default(), &object["spec"]);
    let own = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let parent = |parent: &Value| {
        let namespace = parent["namespace"].as_str().unwrap_or(own);
        format!(
            "{}/{namespace}/{}/{}/{}",
            parent["kind"], parent["name"], parent["sectionName"], parent["port"]
        )
    };
    let gateway = |name: &Value| match name.as_str().unwrap_or_default() {
        name if name.contains('/') => name.to_owned(),
        name => format!("{own}/{name}"),
    };
    let mut ways: Vec<_> = list(&spec["entryPoints"]).iter().map(Value::to_string).collect();
    ways.extend(list(&spec["parentRefs"]).iter().map(parent));
    ways.extend(list(&spec["gateways"]).iter().map(gateway));
    ways.sort();
    format!("{kind} {}", ways.join(" "))
}

/// Leaves the matches that ask for nothing but these fields; a rule of which none is left leads nowhere.
fn keep_plain(rule: &mut Value, matches: &str, fields: &[&str]) {
    let Some(all) = rule.get_mut(matches).and_then(Value::as_array_mut) else { return };
    let had_some = !all.is_empty();
    let asks_more = |one: &Value| {
        let mut asked = one.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        asked.any(|(field, _)| !fields.contains(&field.as_str()))
    };
    all.retain(|one| !asks_more(one));
    if had_some && all.is_empty() {
        *rule = Value::Null;
    }
}

/// A backend that is no Service of this namespace gets a name that none of them has.
fn mark(backend: &mut Value, own: &Value) {
    let is_service = backend["kind"].is_null() || backend["kind"] == "Service";
    let is_own = backend["namespace"].is_null() || backend["namespace"] == *own;
    if !(is_service && is_own) && backend.is_object() {
        let name = backend["name"].as_str().unwrap_or_default();
        *backend = serde_json::json!({ "name": format!("{name}/") });
    }
}

/// Whether an expression of Traefik's speaks of hosts and paths alone, and denies nothing.
fn is_plain(expression: &str) -> bool {
    // What is not quoted.
    let bare: String = expression.split(['`', '"']).step_by(2).collect();
    let mut words = bare.split(|sign: char| !sign.is_alphanumeric()).filter(|word| !word.is_empty());
    !bare.contains('!') && words.all(|word| ["Host", "PathPrefix", "Path"].contains(&word))
}

fn each<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(kind: &str, spec: &Value) -> Vec<String> {
        let object = json!({ "kind": kind, "metadata": { "namespace": "shop" }, "spec": spec });
        rules(&object)
            .into_iter()
            .map(|rule| format!("{}{} {}", rule.host, rule.path, rule.service))
            .collect()
    }

    #[test]
    fn a_rule_that_asks_for_more_than_host_and_path_takes_not_every_request_for_them() {
        let to = json!([{ "name": "api", "port": 80 }]);
        let expressions = [
            "Host(`a.example`) && PathPrefix(`/plain`)",
            "Host(`a.example`) && PathPrefix(`/head`) && Header(`X`, `y`)",
            "Host(`a.example`) && PathPrefix(`/post`) && Method(`POST`)",
            "Host(`a.example`) && !PathPrefix(`/not`)",
            "Host(`Header.example`)",
        ];
        let routes: Vec<_> =
            expressions.iter().map(|text| json!({ "match": text, "services": to })).collect();
        let expected = ["Header.example/ api", "a.example/plain api"];
        assert_eq!(shown("IngressRoute", &json!({ "routes": routes })), expected);
        let path = |path: &str| json!({ "type": "PathPrefix", "value": path });
        let spec = json!({ "parentRefs": [{ "name": "gw" }], "hostnames": ["a.example"], "rules": [
            { "matches": [{ "path": path("/plain") }, { "path": path("/post"), "method": "POST" }], "backendRefs": to },
            { "matches": [{ "headers": [{ "name": "x", "value": "y" }] }], "backendRefs": to },
            { "backendRefs": to },
        ] });
        assert_eq!(shown("HTTPRoute", &spec), ["a.example/ api", "a.example/plain api"]);
        let route = json!([{ "destination": { "host": "api" } }]);
        let spec = json!({ "gateways": ["gw"], "hosts": ["a.example"], "http": [
            { "match": [{ "uri": { "prefix": "/plain" } }, { "uri": { "prefix": "/x" }, "port": 8080 }], "route": route },
            { "match": [{ "authority": { "exact": "b" } }], "route": route },
        ] });
        assert_eq!(shown("VirtualService", &spec), ["a.example/plain api"]);
    }

    #[test]
    fn what_leads_to_no_service_of_its_namespace_has_a_name_that_none_has() {
        let spec = json!({ "routes": [{ "match": "Host(`a`)", "services": [{ "name": "t", "kind": "TraefikService" }] }] });
        assert_eq!(shown("IngressRoute", &spec), ["a/ t/"]);
        let to = json!([{ "name": "web" }, { "name": "away", "namespace": "other" }]);
        let spec = json!({ "parentRefs": [{ "name": "gw" }], "rules": [{ "backendRefs": to }] });
        assert_eq!(shown("HTTPRoute", &spec), ["*/ away/", "*/ web"]);
        let to = json!([{ "destination": { "host": "away.other.svc.cluster.local" } }]);
        let spec = json!({ "gateways": ["gw"], "hosts": ["a"], "http": [{ "route": to }] });
        assert_eq!(shown("VirtualService", &spec), ["a/ away/"]);
    }

    #[test]
    fn a_route_by_which_nothing_comes_from_outside_takes_nothing() {
        let route = json!([{ "route": [{ "destination": { "host": "web" } }] }]);
        assert!(shown("VirtualService", &json!({ "hosts": ["a"], "http": route })).is_empty());
        assert!(shown("VirtualService", &json!({ "gateways": ["gw"], "http": route })).is_empty());
        let service = json!([{ "name": "web", "kind": "Service" }]);
        let spec = json!({ "parentRefs": service, "rules": [{ "backendRefs": [{ "name": "web" }] }] });
        assert!(shown("HTTPRoute", &spec).is_empty());
        for spec in [Value::Null, json!("text"), json!([1]), json!({ "routes": ["x", null], "rules": 7 })] {
            assert!(shown("IngressRoute", &spec).is_empty());
        }
    }

    #[test]
    fn two_routes_come_by_the_same_way_if_they_name_the_same_gateways_or_entry_points() {
        let of = |kind: &str, space: &str, spec: Value| {
            entrance(&json!({ "kind": kind, "metadata": { "namespace": space }, "spec": spec }))
        };
        let plain = |space: &str| of("HTTPRoute", space, json!({ "parentRefs": [{ "name": "gw" }] }));
        let named = of("HTTPRoute", "edge", json!({ "parentRefs": [{ "name": "gw", "namespace": "shop" }] }));
        assert_eq!(plain("shop"), named);
        assert_ne!(plain("shop"), plain("edge"));
        let virtual_service =
            |space: &str, name: &str| of("VirtualService", space, json!({ "gateways": [name] }));
        assert_eq!(virtual_service("infra", "gw"), virtual_service("shop", "infra/gw"));
        let entry = |points: Value| of("IngressRoute", "shop", json!({ "entryPoints": points }));
        assert_eq!(entry(json!(["a", "b"])), entry(json!(["b", "a"])));
        assert_ne!(entry(json!(["a"])), entry(Value::Null));
        assert_ne!(entry(Value::Null), plain("shop"));
    }
}
