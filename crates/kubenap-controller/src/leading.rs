//! Which routes besides Ingresses lead to which Service, in whichever namespace they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::activity::{RouteForm, TargetIngressRule, TargetRoute, TargetService};
use crate::cluster::slim_route::{GRPC_ROUTES, HTTP_ROUTES, INGRESS_ROUTES, SlimRoute, VIRTUAL_SERVICES};
use crate::cluster::space::Space;

/// The routes besides Ingresses of every namespace, by namespace and name of the Service to which they lead.
#[derive(Debug, Default)]
pub(crate) struct Leading(BTreeMap<(String, String), Ways>);

/// The routes besides Ingresses that lead to a Service.
#[derive(Debug, Default)]
struct Ways {
    routes: Vec<TargetRoute>,
    ingress_rules: Vec<TargetIngressRule>,
    hosts: BTreeSet<String>,
    open_hosts: bool,
    unseen: bool,
}

impl Ways {
    /// Takes in the hosts of a route that leads here; none, where it does not spell all of them out.
    fn by_hosts(&mut self, hosts: &[String]) {
        self.open_hosts |= hosts.is_empty();
        self.hosts.extend(hosts.iter().cloned());
    }
}

/// Routes of one kind, by namespace and name.
pub(crate) type Routes = BTreeMap<Arc<str>, Arc<Space<SlimRoute>>>;

impl Leading {
    /// Tells the Service which routes lead to it.
    pub(crate) fn add_to(&self, target: &mut TargetService) {
        if let Some(ways) = self.0.get(&(target.namespace.clone(), target.name.clone())) {
            target.routes = ways.routes.as_slice().into();
            target.ingress_routes = ways.ingress_rules.as_slice().into();
            target.hosts.extend(ways.hosts.iter().cloned());
            target.open_routes = ways.open_hosts;
            target.unseen = ways.unseen;
        }
    }

    fn to(&mut self, namespace: &str, service: &str) -> &mut Ways {
        self.0.entry((namespace.to_owned(), service.to_owned())).or_default()
    }

    /// Takes in routes whose requests proxies count, as long as they come in by a gateway.
    fn add_named(&mut self, routes: &Routes, form: RouteForm) {
        for (namespace, name, route) in each(routes).filter(|(_, _, route)| !route.gateways.is_empty()) {
            let mut rules: BTreeMap<(&str, &str), Vec<usize>> = BTreeMap::new();
            for backend in &route.backends {
                let to = (backend.namespace.as_str(), backend.service.as_str());
                if backend.raw {
                    self.to(to.0, to.1).unseen = true;
                } else {
                    rules.entry(to).or_default().push(backend.rule);
                }
            }
            for ((of, service), rules) in rules {
                let ways = self.to(of, service);
                ways.by_hosts(route.hosts.first().map_or(&[], |hosts| hosts));
                ways.routes.push(TargetRoute {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    rules: rules.into(),
                    gateways: route.gateways.clone(),
                    form,
                });
            }
        }
    }
}

/// `named` stand in the order of [`KINDS`](kubenap_core::proxy::routes::KINDS), without Ingresses; `others` in that of
/// [`OTHERS`](kubenap_core::proxy::routes::OTHERS).
pub(crate) fn by_service(named: &[Routes], others: &[Routes]) -> Leading {
    let mut leading = Leading::default();
    let nothing = Routes::new();
    let of = |kind: usize| named.get(kind).unwrap_or(&nothing);
    leading.add_named(of(HTTP_ROUTES), RouteForm::Http);
    leading.add_named(of(VIRTUAL_SERVICES), RouteForm::Virtual);
    for (kind, routes) in others.iter().enumerate() {
        if kind == GRPC_ROUTES {
            leading.add_named(routes, RouteForm::Grpc);
            continue;
        }
        // Connections, not requests: no metric that is read here counts them by route.
        for (_, _, route) in each(routes) {
            for backend in &route.backends {
                leading.to(&backend.namespace, &backend.service).unseen = true;
            }
        }
    }
    for (namespace, name, route) in each(of(INGRESS_ROUTES)) {
        for backend in &route.backends {
            let Some(digest) = route.digests.get(backend.rule) else { continue };
            let ways = leading.to(&backend.namespace, &backend.service);
            ways.by_hosts(route.hosts.get(backend.rule).map_or(&[], |hosts| hosts));
            ways.ingress_rules.push(TargetIngressRule {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                rule: backend.rule,
                digest: digest.clone(),
            });
        }
    }
    leading
}

fn each(routes: &Routes) -> impl Iterator<Item = (&str, &str, &SlimRoute)> {
    routes
        .iter()
        .flat_map(|(namespace, space)| space.iter().map(move |(name, route)| (&**namespace, name, &**route)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::slim::Slim as _;

    #[test]
    fn routes_of_any_namespace_are_told_by_the_services_that_they_lead_to() {
        let route: kube::api::DynamicObject = serde_json::from_value(json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": { "name": "front", "namespace": "edge" },
            "spec": {
                "parentRefs": [{ "name": "gw" }],
                "hostnames": ["Front.example"],
                "rules": [
                    { "backendRefs": [{ "name": "web", "namespace": "shop", "port": 80 }] },
                    { "backendRefs": [{ "name": "own", "port": 80 }, { "name": "web", "namespace": "shop", "port": 80 }] },
                ],
            },
        }))
        .unwrap();
        let crd: kube::api::DynamicObject = serde_json::from_value(json!({
            "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
            "metadata": { "name": "ir", "namespace": "edge" },
            "spec": { "routes": [{}, { "match": "Host(`a.example`)", "services": [{ "name": "own", "port": 80 }] }] },
        }))
        .unwrap();
        let of = |name: &str, object| -> Routes {
            let space: Space<SlimRoute> = [(name.to_owned(), SlimRoute::of(object))].into_iter().collect();
            BTreeMap::from([(Arc::from("edge"), Arc::new(space))])
        };
        let other = |kind: &str| -> kube::api::DynamicObject {
            serde_json::from_value(json!({
                "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind,
                "metadata": { "name": "other", "namespace": "edge" },
                "spec": { "parentRefs": [{ "name": "gw" }], "rules": [{ "backendRefs": [{ "name": kind.to_lowercase(), "port": 80 }] }] },
            }))
            .unwrap()
        };
        let others = [of("other", other("GRPCRoute")), of("other", other("TLSRoute"))];
        let Leading(mut told) = by_service(&[of("ir", crd), of("front", route)], &others);
        let grpc = told.remove(&("edge".to_owned(), "grpcroute".to_owned())).unwrap();
        assert!(grpc.routes[0].form == RouteForm::Grpc && !grpc.unseen);
        let tls = told.remove(&("edge".to_owned(), "tlsroute".to_owned())).unwrap();
        assert!(tls.unseen && tls.routes.is_empty());
        let route = |rules: &[usize]| TargetRoute {
            namespace: "edge".to_owned(),
            name: "front".to_owned(),
            rules: rules.into(),
            gateways: ["edge/gw".to_owned()].into(),
            form: RouteForm::Http,
        };
        let own = &told[&("edge".to_owned(), "own".to_owned())];
        assert_eq!(own.hosts.iter().collect::<Vec<_>>(), ["a.example", "front.example"]);
        assert!(!own.open_hosts && grpc.open_hosts, "only the GRPCRoute is for every host");
        let rule = &own.ingress_rules[0];
        assert_eq!((rule.name.as_str(), rule.rule, rule.digest.len()), ("ir", 1, 20));
        let key = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        let routes: Vec<_> = told.into_iter().map(|(to, ways)| (to, ways.routes)).collect();
        let expected = [(key("edge", "own"), vec![route(&[1])]), (key("shop", "web"), vec![route(&[0, 1])])];
        assert_eq!(routes, expected);
    }
}
