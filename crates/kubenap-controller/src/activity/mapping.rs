//! From an app's Services, and the routes that lead to them, to the names that proxies give them. Names are mapped forward
//! only, never by taking a name apart.

use std::collections::BTreeSet;

use super::ledger::Ledger;
use super::preset::ANY;
use super::{RouteForm, TargetIngressRule, TargetRoute, TargetService};

pub(super) fn canary(upstream: &str) -> String {
    // Kubernetes names have no blank, so this is nobody's "namespace/service".
    format!("canary {upstream}")
}

/// Every way in which a port may be written: its name, its number, and what Ingresses say.
pub(super) fn ports(service: &TargetService) -> BTreeSet<String> {
    let named = service.ports.iter().filter_map(|port| port.name.clone());
    let numbers = service.ports.iter().map(|port| port.number.to_string());
    named.chain(numbers).chain(service.ingress_ports.iter().cloned()).collect()
}

/// Every word of an access log that can mean the Service.
pub(super) fn logs(service: &TargetService, keys: &mut BTreeSet<String>) {
    let (namespace, name) = (&service.namespace, &service.name);
    keys.insert(format!("svc {namespace}/{name}"));
    for port in ports(service) {
        keys.insert(format!("up {namespace}-{name}-{port}"));
    }
    let mut other = BTreeSet::new();
    traefik(service, &mut other);
    keys.extend(other.iter().map(|name| format!("traefik {name}")));
    other.clear();
    envoy(service, &mut other);
    keys.extend(other.iter().map(|name| format!("cluster {name}")));
    keys.extend(service.hosts.iter().flat_map(|host| [format!("host {host}"), format!("asked {host}")]));
    keys.extend(routers(service).map(|name| format!("router {name}{ANY}")));
}

/// How names of Traefik's routers begin, behind what stands before the first of their dashes: after the Ingress come host and
/// path, after a route of the Gateway API the gateway, after an IngressRoute what it matches, or with `safeNaming` its place.
fn routers(service: &TargetService) -> impl Iterator<Item = String> {
    let ingresses =
        service.ingresses.iter().map(|(of, name)| format!("{}-", normal(&format!("{of}-{name}"))));
    let routes = service.routes.iter().filter(|route| route.form != RouteForm::Virtual);
    let routes = routes.map(|route| format!("{}-", normal(&format!("{}-{}", route.namespace, route.name))));
    let rules = service.ingress_routes.iter().flat_map(|rule| {
        let TargetIngressRule { namespace, name, rule: place, digest } = rule;
        [normal(&format!("{namespace}-{name}-{digest}")), format!("{namespace}_{name}_{place}")]
    });
    ingresses.chain(routes).chain(rules)
}

/// Whether requests may come to the Service of which these logs tell nothing that leads to it: where lines name no more than a
/// host, by a host that nobody spells out; where Traefik names services, by a GRPCRoute, for which its name would be a guess.
pub(super) fn is_untold(service: &TargetService, logs: &Ledger) -> bool {
    let any = |kind: &str| logs.has_known(&format!("{kind} {ANY}"));
    let mut calls = service.routes.iter().filter(|route| route.form == RouteForm::Grpc);
    let is_shown = |route: &TargetRoute| rules(route).any(|name| logs.has_known(&format!("cluster {name}")));
    ((service.open_hosts || service.open_routes) && any("host"))
        || (calls.any(|route| !is_shown(route)) && (any("svc") || any("traefik")))
}

/// How Envoy Gateway names what a rule of a route leads to, all its backends together; while one of them is refused,
/// each by itself.
pub(super) fn rules(route: &TargetRoute) -> impl Iterator<Item = String> {
    let TargetRoute { namespace, name, rules, form, .. } = route;
    let kind = match form {
        RouteForm::Http => Some("httproute"),
        RouteForm::Grpc => Some("grpcroute"),
        RouteForm::Virtual => None,
    };
    let names = kind
        .into_iter()
        .flat_map(move |kind| rules.iter().map(move |rule| format!("{kind}/{namespace}/{name}/rule/{rule}")));
    names.flat_map(|name| [format!("{name}/{ANY}"), name])
}

/// The names of clusters: Contour's, Istio's, and Envoy Gateway's.
pub(super) fn envoy(service: &TargetService, keys: &mut BTreeSet<String>) {
    keys.extend(service.routes.iter().flat_map(rules));
    keys.extend(clusters(service));
}

/// A cluster of Istio's for a subset of a Service, as the one for the whole Service, and the subset.
pub(super) fn subset(cluster: &str) -> Option<(String, &str)> {
    let mut parts = cluster.splitn(4, '|');
    let (direction, port, subset, host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (direction == "outbound" && !subset.is_empty()).then(|| (format!("outbound|{port}||{host}"), subset))
}

/// The names of clusters that are named after their Service, whichever route leads there.
pub(super) fn clusters(service: &TargetService) -> BTreeSet<String> {
    let (namespace, name) = (&service.namespace, &service.name);
    let mut keys = BTreeSet::from([format!("{namespace}/{name}")]);
    for port in ports(service) {
        keys.insert(format!("{namespace}_{name}_{port}"));
        keys.insert(format!("service/{namespace}/{name}/{port}"));
        keys.insert(format!("outbound|{port}||{name}.{namespace}.svc.cluster.local"));
    }
    keys
}

pub(super) fn traefik(service: &TargetService, keys: &mut BTreeSet<String>) {
    let (namespace, name) = (&service.namespace, &service.name);
    for port in &service.ingress_ports {
        let mut key = |text: String, provider: &str| {
            keys.insert(format!("{}@{provider}", normal(&text)));
            keys.insert(format!("{text}@{provider}"));
        };
        key(format!("{namespace}-{name}-{port}"), "kubernetes");
        for (of, ingress) in &service.ingresses {
            key(format!("{of}-{ingress}-{name}-{port}"), "kubernetesingressnginx");
        }
    }
    keys.extend(service.routes.iter().filter_map(gateway));
    keys.extend(service.ingress_routes.iter().flat_map(|rule| ingress_route(service, rule)));
    keys.extend(leaves(service));
    for port in ports(service) {
        // What comes by an HTTPRoute, before 3.7.6.
        keys.insert(format!("{namespace}-{name}-http-{port}@kubernetesgateway"));
    }
}

/// How Traefik names what an HTTPRoute leads to; how it would name a GRPCRoute's is not known.
pub(super) fn gateway(route: &TargetRoute) -> Option<String> {
    let name = || normal(&format!("{}-{}", route.namespace, route.name));
    (route.form == RouteForm::Http).then(|| format!("httproute-{}-gw-{ANY}", name()))
}

/// How Traefik names what a rule of an IngressRoute leads to: after the rule itself, with `safeNaming` after its place, and
/// where there are several services, or a TraefikService in between, after the Service.
pub(super) fn ingress_route(service: &TargetService, rule: &TargetIngressRule) -> Vec<String> {
    let TargetIngressRule { namespace, name, rule: place, digest } = rule;
    let mut names = vec![
        format!("{}@kubernetescrd", normal(&format!("{namespace}-{name}-{digest}"))),
        format!("{namespace}_{name}_{place}_{ANY}"),
    ];
    names.extend(leaves(service));
    names
}

/// How Traefik names one of several services behind a rule of an IngressRoute; not all its versions join the signs.
fn leaves(service: &TargetService) -> impl Iterator<Item = String> {
    let TargetService { namespace, name, .. } = service;
    let names = ports(service).into_iter().map(move |port| format!("{namespace}-{name}-{port}"));
    names.flat_map(|name| [normal(&name), name]).map(|name| format!("{name}@kubernetescrd"))
}

/// Traefik joins what is between signs that are neither letters nor digits by single dashes.
fn normal(text: &str) -> String {
    let parts: Vec<_> =
        text.split(|sign: char| !sign.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::activity::Names;

    fn service() -> TargetService {
        TargetService {
            namespace: "a-b".to_owned(),
            name: "c--d".to_owned(),
            ingress_ports: Names::from(["http".to_owned()]),
            ingresses: vec![("a-b".to_owned(), "my.ing".to_owned())],
            ..TargetService::default()
        }
    }

    fn named(service: &TargetService) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        traefik(service, &mut keys);
        keys
    }

    #[test]
    fn traefik_s_names_are_built_from_the_ingress_s_own_words() {
        let keys = named(&service());
        assert!(keys.contains("a-b-c-d-http@kubernetes"));
        assert!(keys.contains("a-b-my-ing-c-d-http@kubernetesingressnginx"));
    }

    #[test]
    fn what_a_rule_of_an_ingressroute_leads_to_is_named_after_the_rule_or_its_services() {
        let rule = TargetIngressRule {
            namespace: "a-b".to_owned(),
            name: "my.ir".to_owned(),
            rule: 1,
            digest: "0011223344".to_owned(),
        };
        let service = TargetService { ingress_routes: [rule].into(), ..service() };
        let keys = named(&service);
        for name in [
            "a-b-my-ir-0011223344@kubernetescrd",
            "a-b_my.ir_1_*",
            "a-b-c--d-http@kubernetescrd",
            "a-b-c-d-http@kubernetescrd",
        ] {
            assert!(keys.contains(name), "{name} is not in {keys:?}");
        }
    }
}
