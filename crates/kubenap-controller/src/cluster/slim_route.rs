//! Routes that are no Ingresses: IngressRoute, HTTPRoute, VirtualService and others.

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::DynamicObject;
use kubenap_core::proxy::outright;
use kubenap_core::proxy::routes::{self, Backend, KINDS, OTHERS, Rule};

use super::slim::{Slim, SlimIngress, SlimRule};

/// How many kinds of routes there are besides Ingresses.
pub const ROUTE_KINDS: usize = KINDS.len() - 1;

/// Where each stands among the kinds besides Ingresses.
pub(crate) const INGRESS_ROUTES: usize = 0;
pub(crate) const HTTP_ROUTES: usize = 1;
pub(crate) const VIRTUAL_SERVICES: usize = 2;

/// How many kinds there are that are read only for where they lead.
pub const OTHER_KINDS: usize = OTHERS.len();

/// Where GRPCRoutes stand among them.
pub(crate) const GRPC_ROUTES: usize = 0;

/// A route.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimRoute {
    /// In the form of an Ingress: which host and path go to which Service port; to one with a `/` in its name where they go
    /// to none of the route's namespace.
    pub ingress: SlimIngress,
    /// Stands for the way by which requests come to it: the same for the same gateways or entry points.
    pub entrance: u64,
    /// The Services to which its rules lead.
    pub backends: Box<[Backend]>,
    /// Of each rule of an IngressRoute, the first ten bytes of the SHA-256 of what it matches, in hexadecimal.
    pub digests: Box<[String]>,
    /// The hosts of each rule, or of all rules together; none where it does not spell all of them out.
    pub hosts: Box<[Box<[String]>]>,
    /// Of one of the Gateway API, and of a VirtualService, the gateways that serve it; an empty name: others that are not known.
    pub gateways: Box<[String]>,
}

impl Slim for SlimRoute {
    type Object = DynamicObject;

    fn of(object: DynamicObject) -> Self {
        let created = object.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
        let resource_version = object.resource_version().unwrap_or_default();
        // What cannot be written again leads nowhere.
        let object = serde_json::to_value(&object).unwrap_or_default();
        let (rules, outright) = (routes::rules(&object), outright::rules(&object));
        let is_outright = |rule: &Rule| outright.binary_search(rule).is_ok();
        let mut all: Vec<_> = rules.into_iter().map(|rule| (is_outright(&rule), rule)).collect();
        all.extend(outright.into_iter().filter(|rule| rule.service.contains('/')).map(|rule| (true, rule)));
        let slim = |(outright, rule): (bool, Rule)| SlimRule {
            host: Some(rule.host).filter(|host| host != "*"),
            path: rule.path,
            exact: rule.exact,
            outright,
            service: rule.service,
            port: rule.port,
        };
        let rules = all.into_iter().map(slim).collect();
        Self {
            ingress: SlimIngress { created, class: None, rules, resource_version },
            entrance: number(&outright::entrance(&object)),
            backends: routes::backends(&object).into(),
            digests: routes::matches(&object).into_iter().map(digest).collect(),
            hosts: routes::hosts(&object).into_iter().map(Into::into).collect(),
            gateways: routes::gateways(&object).into_iter().collect(),
        }
    }

    fn resource_version(&self) -> &str {
        &self.ingress.resource_version
    }
}

fn digest(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let number =
        digest.as_ref().iter().take(10).fold(0_u128, |number, byte| (number << 8) | u128::from(*byte));
    format!("{number:020x}")
}

fn number(text: &str) -> u64 {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_where_they_are_looked_for() {
        let kinds = [INGRESS_ROUTES, HTTP_ROUTES, VIRTUAL_SERVICES].map(|kind| KINDS[kind + 1].kind);
        assert_eq!(kinds, ["IngressRoute", "HTTPRoute", "VirtualService"]);
        assert_eq!(OTHERS[GRPC_ROUTES].kind, "GRPCRoute");
    }

    #[test]
    fn a_route_is_kept_as_an_ingress_with_its_hosts_and_paths() {
        let object: DynamicObject = serde_json::from_value(serde_json::json!({
            "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
            "metadata": { "name": "web", "namespace": "shop", "creationTimestamp": "2026-11-22T10:00:00Z", "resourceVersion": "7" },
            "spec": { "routes": [{ "match": "Host(`web.example`) && PathPrefix(`/a`)", "services": [{ "name": "web", "port": "http" }] }] },
        }))
        .unwrap();
        let SlimRoute { ingress: route, entrance: _, backends, digests, hosts, gateways } =
            SlimRoute::of(object);
        assert_eq!((hosts.len(), &*hosts[0]), (1, &["web.example".to_owned()][..]));
        assert_eq!((backends[0].service.as_str(), backends.len(), gateways.len()), ("web", 1, 0));
        // What `printf %s 'Host(`web.example`) && PathPrefix(`/a`)' | sha256sum` begins with.
        assert_eq!(*digests, ["20fcd36746192f780426"]);
        assert_eq!(
            (route.created.to_string().as_str(), route.resource_version.as_str()),
            ("2026-11-22T10:00:00Z", "7")
        );
        let SlimRule { host, path, exact, outright, service, port } = &route.rules[0];
        assert_eq!(
            (host.as_deref(), path.as_str(), *exact, *outright, service.as_str(), port.as_str()),
            (Some("web.example"), "/a", false, true, "web", "http")
        );
    }
}
