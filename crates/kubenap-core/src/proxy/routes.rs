//! Which hosts and paths an Ingress, IngressRoute, HTTPRoute or VirtualService sends to which Service.

use std::collections::BTreeSet;

use serde_json::Value;

use super::expression::covered;
pub use super::reach::{gateways, hosts};

/// One host and path that leads to a Service of the object's own namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// A host name, `*.example.com`, or `*` for every host.
    pub host: String,
    /// A path; a prefix by whole segments unless it is exact.
    pub path: String,
    /// The path covers itself alone.
    pub exact: bool,
    /// The Service.
    pub service: String,
    /// Its port's number or name; nothing where the object does not say.
    pub port: String,
}

/// A kind of route, and where the API has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteKind {
    /// As objects name it.
    pub kind: &'static str,
    /// The API's group.
    pub group: &'static str,
    /// The versions that are understood, the one that is best first: what is read here is the same in all of them.
    pub versions: &'static [&'static str],
    /// The name in paths and rights.
    pub plural: &'static str,
}

const fn of(
    kind: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
) -> RouteKind {
    RouteKind { kind, group, versions, plural }
}

const GATEWAY: &str = "gateway.networking.k8s.io";

/// The kinds that are understood.
pub const KINDS: [RouteKind; 4] = [
    of("Ingress", "networking.k8s.io", &["v1"], "ingresses"),
    of("IngressRoute", "traefik.io", &["v1alpha1"], "ingressroutes"),
    of("HTTPRoute", GATEWAY, &["v1", "v1beta1"], "httproutes"),
    of("VirtualService", "networking.istio.io", &["v1", "v1beta1", "v1alpha3"], "virtualservices"),
];

/// The kinds besides them that lead to Services, too: read for that alone, so that what comes by them is not taken for silence.
pub const OTHERS: [RouteKind; 4] = [
    of("GRPCRoute", GATEWAY, &["v1", "v1alpha2"], "grpcroutes"),
    of("TLSRoute", GATEWAY, &["v1", "v1alpha3", "v1alpha2"], "tlsroutes"),
    of("TCPRoute", GATEWAY, &["v1", "v1alpha2"], "tcproutes"),
    of("IngressRouteTCP", "traefik.io", &["v1alpha1"], "ingressroutetcps"),
];

/// All rules of an object. What is not understood leads nowhere: a rule too few costs a 404, one too many an app its nap.
pub fn rules(object: &Value) -> Vec<Rule> {
    let spec = &object["spec"];
    let mut rules = match object["kind"].as_str().or_else(|| shape(spec)) {
        Some("Ingress") => ingress(spec),
        Some("IngressRoute") => ingress_route(spec, &object["metadata"]["namespace"]),
        Some("HTTPRoute") => http_route(spec, &object["metadata"]["namespace"]),
        Some("VirtualService") => virtual_service(spec, &object["metadata"]["namespace"]),
        _ => Vec::new(),
    };
    rules.retain(|rule| !rule.service.is_empty() && rule.path.starts_with('/'));
    rules.sort();
    rules.dedup();
    rules
}

/// A Service to which a rule of a route that is no Ingress leads, in whichever namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backend {
    /// The rule's place in the route.
    pub rule: usize,
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// What goes there are connections, of which nobody counts the requests.
    pub raw: bool,
}

/// Every Service to which a route leads; none for an Ingress.
pub fn backends(object: &Value) -> Vec<Backend> {
    let (spec, own) = (&object["spec"], text(&object["metadata"]["namespace"]).unwrap_or_default());
    let (rules, to, raw) = match object["kind"].as_str().or_else(|| shape(spec)) {
        Some("HTTPRoute" | "GRPCRoute") => (&spec["rules"], "backendRefs", false),
        Some("TLSRoute" | "TCPRoute") => (&spec["rules"], "backendRefs", true),
        Some("IngressRoute") => (&spec["routes"], "services", false),
        Some("IngressRouteTCP") => (&spec["routes"], "services", true),
        Some("VirtualService") => return destinations(spec, own),
        _ => return Vec::new(),
    };
    let mut backends = Vec::new();
    for (rule, one) in list(rules).iter().enumerate() {
        for backend in list(&one[to]) {
            let namespace = text(&backend["namespace"]).unwrap_or(own);
            if let Some(service) = text(&backend["name"])
                && (backend["kind"].is_null() || backend["kind"] == "Service")
            {
                let (namespace, service) = (namespace.to_owned(), service.to_owned());
                backends.push(Backend { rule, namespace, service, raw });
            }
        }
    }
    backends.sort();
    backends.dedup();
    backends
}

/// Where a VirtualService sends what comes in. A host is a Service's name, alone or with its namespace, or the whole of it.
fn destinations(spec: &Value, own: &str) -> Vec<Backend> {
    let mut backends = Vec::new();
    for (rules, raw) in [(&spec["http"], false), (&spec["tls"], true), (&spec["tcp"], true)] {
        for (rule, one) in list(rules).iter().enumerate() {
            let to =
                list(&one["route"]).iter().chain(list(&one["mirrors"])).map(|route| &route["destination"]);
            for to in to.chain([&one["mirror"]]) {
                let host = text(&to["host"]).unwrap_or_default();
                let mut parts = host.split('.');
                let (service, namespace) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(own));
                if parts.next().is_none_or(|part| part == "svc") && !service.is_empty() {
                    let (namespace, service) = (namespace.to_owned(), service.to_owned());
                    backends.push(Backend { rule, namespace, service, raw });
                }
            }
        }
    }
    backends.sort();
    backends.dedup();
    backends
}

/// What each rule of an IngressRoute matches, as it is written; none for other kinds.
pub fn matches(object: &Value) -> Vec<&str> {
    let spec = &object["spec"];
    if object["kind"].as_str().or_else(|| shape(spec)) != Some("IngressRoute") {
        return Vec::new();
    }
    list(&spec["routes"]).iter().map(|rule| text(&rule["match"]).unwrap_or_default()).collect()
}

/// What those rules of an IngressRoute match that lead to one of the namespace's `own` Services, and of which it is not
/// understood which hosts and paths that are.
pub(super) fn unread<'a>(object: &'a Value, namespace: &str, own: impl Fn(&str) -> bool) -> Vec<&'a str> {
    let leads_here = |to: Backend| (to.namespace.is_empty() || to.namespace == namespace) && own(&to.service);
    let here: BTreeSet<_> = backends(object)
        .into_iter()
        .filter_map(|to| {
            let rule = to.rule;
            leads_here(to).then_some(rule)
        })
        .collect();
    let rules = matches(object).into_iter().enumerate().filter(|(rule, _)| here.contains(rule));
    rules.map(|(_, text)| text).filter(|text| !covered(text).whole).collect()
}

/// Everything that an Ingress leads to, as it stands there.
pub(super) fn ingress_backends(object: &Value) -> Vec<&Value> {
    let spec = &object["spec"];
    let paths = list(&spec["rules"]).iter().flat_map(|rule| list(&rule["http"]["paths"]));
    let backends = paths.map(|path| &path["backend"]).chain([&spec["defaultBackend"]]);
    backends.filter(|backend| !backend.is_null()).collect()
}

/// The kind of an object that does not say so, as items of a list need not.
pub(super) fn shape(spec: &Value) -> Option<&'static str> {
    let kinds = [
        ("routes", "IngressRoute"),
        ("http", "VirtualService"),
        ("parentRefs", "HTTPRoute"),
        ("rules", "Ingress"),
        ("tls", "VirtualService"),
        ("tcp", "VirtualService"),
    ];
    kinds.into_iter().find(|(field, _)| spec[*field].is_array()).map(|(_, kind)| kind)
}

fn ingress(spec: &Value) -> Vec<Rule> {
    let rule = |host: &Value, path: &Value, exact: bool, backend: &Value| {
        let service = &backend["service"];
        let (number, name) = (&service["port"]["number"], &service["port"]["name"]);
        Rule {
            host: text(host).filter(|host| !host.is_empty()).unwrap_or("*").to_owned(),
            path: text(path).unwrap_or("/").to_owned(),
            exact,
            service: text(&service["name"]).unwrap_or_default().to_owned(),
            port: number
                .as_u64()
                .map(|n| n.to_string())
                .or(text(name).map(str::to_owned))
                .unwrap_or_default(),
        }
    };
    let mut rules = vec![rule(&Value::Null, &Value::Null, false, &spec["defaultBackend"])];
    for one in list(&spec["rules"]) {
        for path in list(&one["http"]["paths"]) {
            rules.push(rule(&one["host"], &path["path"], path["pathType"] == "Exact", &path["backend"]));
        }
    }
    rules
}

fn http_route(spec: &Value, namespace: &Value) -> Vec<Rule> {
    let hosts = texts_or_any(&spec["hostnames"]);
    let mut rules = Vec::new();
    for one in list(&spec["rules"]) {
        let paths: Vec<_> = match list(&one["matches"]) {
            [] => vec![("/", false)],
            matches => matches.iter().filter_map(|one| gateway_path(&one["path"])).collect(),
        };
        for backend in list(&one["backendRefs"]) {
            let is_service = backend["kind"].is_null() || backend["kind"] == "Service";
            let own = backend["namespace"].is_null() || backend["namespace"] == *namespace;
            if is_service && own {
                let port = backend["port"].as_u64().map(|port| port.to_string()).unwrap_or_default();
                rules.extend(cross(&hosts, &paths, text(&backend["name"]).unwrap_or_default(), &port));
            }
        }
    }
    rules
}

fn gateway_path(path: &Value) -> Option<(&str, bool)> {
    let value = text(&path["value"]).unwrap_or("/");
    match text(&path["type"]).unwrap_or("PathPrefix") {
        "PathPrefix" => Some((value, false)),
        "Exact" => Some((value, true)),
        _ => None,
    }
}

fn virtual_service(spec: &Value, namespace: &Value) -> Vec<Rule> {
    let hosts = texts_or_any(&spec["hosts"]);
    let mut rules = Vec::new();
    for one in list(&spec["http"]) {
        let paths: Vec<_> = match list(&one["match"]) {
            [] => vec![("/", false)],
            matches => matches.iter().filter_map(|one| mesh_path(&one["uri"])).collect(),
        };
        for route in list(&one["route"]) {
            let host = text(&route["destination"]["host"]).unwrap_or_default();
            let mut parts = host.split('.');
            let service = parts.next().unwrap_or_default();
            if parts.next().is_none_or(|part| namespace == part) {
                let port = route["destination"]["port"]["number"].as_u64().map(|port| port.to_string());
                rules.extend(cross(&hosts, &paths, service, &port.unwrap_or_default()));
            }
        }
    }
    rules
}

fn mesh_path(uri: &Value) -> Option<(&str, bool)> {
    if uri.is_null() {
        return Some(("/", false));
    }
    let prefix = text(&uri["prefix"]).map(|path| (path, false));
    prefix.or_else(|| text(&uri["exact"]).map(|path| (path, true)))
}

fn ingress_route(spec: &Value, namespace: &Value) -> Vec<Rule> {
    let mut rules = Vec::new();
    for route in list(&spec["routes"]) {
        let places = covered(text(&route["match"]).unwrap_or_default()).places;
        for service in list(&route["services"]) {
            let is_service = service["kind"].is_null() || service["kind"] == "Service";
            let own = service["namespace"].is_null() || service["namespace"] == *namespace;
            if !(is_service && own) {
                continue;
            }
            let port = &service["port"];
            let port =
                port.as_u64().map(|n| n.to_string()).or(text(port).map(str::to_owned)).unwrap_or_default();
            for (host, path, exact) in &places {
                let paths = [(path.as_str(), *exact)];
                rules.extend(cross(&[host], &paths, text(&service["name"]).unwrap_or_default(), &port));
            }
        }
    }
    rules
}

fn cross(hosts: &[&str], paths: &[(&str, bool)], service: &str, port: &str) -> Vec<Rule> {
    let rule = |host: &str, (path, exact): &(&str, bool)| Rule {
        host: host.to_owned(),
        path: (*path).to_owned(),
        exact: *exact,
        service: service.to_owned(),
        port: port.to_owned(),
    };
    hosts.iter().flat_map(|host| paths.iter().map(|path| rule(host, path))).collect()
}

pub(super) fn texts_or_any(value: &Value) -> Vec<&str> {
    let hosts: Vec<_> = list(value).iter().filter_map(text).collect();
    if hosts.is_empty() { vec!["*"] } else { hosts }
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn text(value: &Value) -> Option<&str> {
    value.as_str()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(object: &Value) -> Vec<String> {
        let line = |rule: Rule| {
            let exact = if rule.exact { "=" } else { "" };
            format!("{}{exact}{} {}:{}", rule.host, rule.path, rule.service, rule.port)
        };
        rules(object).into_iter().map(line).collect()
    }

    #[test]
    fn an_ingress_leads_where_its_rules_say() {
        let path = |path: &str, kind: &str| json!({ "path": path, "pathType": kind, "backend": { "service": { "name": "web", "port": { "name": "http" } } } });
        let object = json!({ "kind": "Ingress", "spec": {
            "defaultBackend": { "service": { "name": "rest", "port": { "number": 80 } } },
            "rules": [{ "host": "web.example", "http": { "paths": [path("/a", "Exact"), path("/b", "Prefix")] } }],
        } });
        assert_eq!(shown(&object), ["*/ rest:80", "web.example=/a web:http", "web.example/b web:http"]);
    }

    #[test]
    fn an_expression_of_traefik_is_read_as_far_as_it_is_plain() {
        let route = |text: &str, service: Value| json!({ "match": text, "services": [service] });
        let web = || json!({ "name": "web", "port": 80 });
        let object = json!({ "kind": "IngressRoute", "metadata": { "namespace": "shop" }, "spec": { "routes": [
            route("Host(`web.example`, `www.example`) && PathPrefix(`/a`)", web()),
            route("Host(`one.example`) || (Host(`two.example`))", web()),
            route("Host(`head.example`) && Header(`X`, `y`)", web()),
            route("(Path(`/x`) || Path(`/y`) || Path(`/z`)) && Host(`group.example`)", web()),
            route("!Host(`not.example`)", web()),
            route("HostRegexp(`.*`)", web()),
            route("Host(`away.example`)", json!({ "name": "web", "namespace": "other", "port": 80 })),
            route("Host(`made.example`)", json!({ "name": "web", "kind": "TraefikService" })),
        ] } });
        assert_eq!(
            shown(&object),
            [
                "group.example=/x web:80",
                "group.example=/y web:80",
                "group.example=/z web:80",
                "head.example/ web:80",
                "one.example/ web:80",
                "two.example/ web:80",
                "web.example/a web:80",
                "www.example/a web:80",
            ]
        );
        let unread = |namespace| unread(&object, namespace, |name| name == "web");
        assert_eq!(unread("shop"), ["!Host(`not.example`)", "HostRegexp(`.*`)"]);
        assert!(unread("other").is_empty());
    }

    #[test]
    fn a_route_of_a_gateway_crosses_its_hosts_with_its_paths() {
        let object = json!({ "kind": "HTTPRoute", "metadata": { "namespace": "shop" }, "spec": {
            "hostnames": ["a.example", "*.b.example"],
            "rules": [
                { "matches": [{ "path": { "type": "Exact", "value": "/x" } }, { "path": { "type": "RegularExpression", "value": ".*" } }],
                  "backendRefs": [{ "name": "web", "port": 80 }, { "name": "away", "namespace": "other" }, { "name": "k", "kind": "Backend" }] },
                { "backendRefs": [{ "name": "rest", "port": 81 }] },
            ],
        } });
        assert_eq!(
            shown(&object),
            ["*.b.example/ rest:81", "*.b.example=/x web:80", "a.example/ rest:81", "a.example=/x web:80"]
        );
    }

    fn named(object: &Value) -> Vec<String> {
        gateways(object).into_iter().collect()
    }

    #[test]
    fn the_backends_of_an_httproute_are_told_by_rule_also_in_other_namespaces() {
        let object = json!({ "kind": "HTTPRoute", "metadata": { "namespace": "shop" }, "spec": {
            "parentRefs": [{ "name": "gw", "sectionName": "a" }, { "name": "gw", "namespace": "shop" }, { "name": "gw", "namespace": "infra" }, { "name": "web", "kind": "Service", "group": "" }],
            "rules": [
                { "backendRefs": [{ "name": "web" }, { "name": "api", "namespace": "other" }, { "name": "k", "kind": "Backend" }] },
                {},
                { "backendRefs": [{ "name": "web", "kind": "Service", "weight": 0 }, { "name": "web" }] },
            ],
        } });
        let shown: Vec<_> =
            backends(&object).iter().map(|b| format!("{} {}/{}", b.rule, b.namespace, b.service)).collect();
        assert_eq!(shown, ["0 other/api", "0 shop/web", "2 shop/web"]);
        assert_eq!(named(&object), ["infra/gw", "shop/gw"]);
        assert!(backends(&json!({ "kind": "Ingress", "spec": object["spec"] })).is_empty());
        for RouteKind { kind, .. } in OTHERS {
            let spec = json!({
                "rules": [{ "backendRefs": [{ "name": "web", "port": 80 }] }],
                "routes": [{ "services": [{ "name": "web", "port": 80 }] }],
            });
            let other = json!({ "kind": kind, "metadata": { "namespace": "shop" }, "spec": spec });
            assert_eq!(backends(&other).len(), 1, "{kind}");
            assert!(rules(&other).is_empty(), "{kind}");
        }
        assert!(matches(&object).is_empty());
    }

    #[test]
    fn the_backends_of_an_ingressroute_are_told_by_rule_with_what_the_rule_matches() {
        let object = json!({ "metadata": { "namespace": "shop" }, "spec": { "routes": [
            { "match": "Host(`a`)", "services": [{ "name": "web", "port": 80 }] },
            { "match": "Host(`b`)", "services": [{ "name": "web", "namespace": "other" }, { "name": "t", "kind": "TraefikService" }] },
        ] } });
        let shown: Vec<_> =
            backends(&object).iter().map(|b| format!("{} {}/{}", b.rule, b.namespace, b.service)).collect();
        assert_eq!(shown, ["0 shop/web", "1 other/web"]);
        assert_eq!(matches(&object), ["Host(`a`)", "Host(`b`)"]);
    }

    #[test]
    fn a_virtual_service_leads_to_services_of_its_own_namespace() {
        let to = |host: &str| json!([{ "destination": { "host": host, "port": { "number": 80 } } }]);
        let object = json!({ "kind": "VirtualService", "metadata": { "namespace": "shop" }, "spec": {
            "hosts": ["web.example"],
            "http": [
                { "match": [{ "uri": { "prefix": "/a" } }, { "uri": { "regex": ".*" } }], "route": to("web") },
                { "match": [{ "uri": { "exact": "/b" } }], "route": to("web.shop.svc.cluster.local") },
                { "route": to("web.other.svc.cluster.local") },
            ],
        } });
        assert_eq!(shown(&object), ["web.example/a web:80", "web.example=/b web:80"]);
    }

    #[test]
    fn a_virtual_service_leads_to_services_of_any_namespace_and_from_outside_by_its_gateways_alone() {
        let to = |host: &str| json!([{ "route": [{ "destination": { "host": host } }] }]);
        let mut object = json!({ "kind": "VirtualService", "metadata": { "namespace": "shop" }, "spec": {
            "hosts": ["web.example"],
            "gateways": ["mesh", "infra/public"],
            "http": [to("web")[0], to("web.other.svc.cluster.local")[0]],
            "tls": to("db.other"),
            "tcp": to("away.example.com"),
        } });
        let line = |to: Backend| format!("{} {}/{} {}", to.rule, to.namespace, to.service, to.raw);
        let shown: Vec<_> = backends(&object).into_iter().map(line).collect();
        assert_eq!(shown, ["0 other/db true", "0 shop/web false", "1 other/web false"]);
        assert_eq!(named(&object), ["infra/public"]);
        object["spec"]["gateways"] = json!(["own", "shop/own", "infra/public"]);
        assert_eq!(named(&object), ["infra/public", "shop/own"]);
        object["spec"]["gateways"] = json!(["mesh"]);
        assert!(named(&object).is_empty(), "that is for callers inside");
        object["spec"]["gateways"] = Value::Null;
        assert!(named(&object).is_empty(), "as if it said mesh");
        object["spec"]["hosts"] = Value::Null;
        assert_eq!(named(&object), [""], "another one sends here what comes in");
    }
}
