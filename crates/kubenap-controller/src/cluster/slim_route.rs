//! Routes that are no Ingresses: IngressRoute, HTTPRoute, VirtualService and others. Their kinds may be missing, which is normal.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, ResourceExt as _};
use kubenap_core::proxy::routes::{self, Backend, KINDS, OTHERS};

use super::slim::{Slim, SlimIngress, SlimRule};
use super::thin::Thin;
use super::watched::Watched;
use super::{Cluster, ClusterError};

/// After which time it is tried again whether a kind is there, and may be listed, now.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// How many kinds of routes there are besides Ingresses.
pub const ROUTE_KINDS: usize = KINDS.len() - 1;

/// Where IngressRoutes and HTTPRoutes stand among the kinds besides Ingresses.
pub(crate) const INGRESS_ROUTES: usize = 0;
pub(crate) const HTTP_ROUTES: usize = 1;

/// How many kinds there are that are read only for where they lead.
pub const OTHER_KINDS: usize = OTHERS.len();

/// Where GRPCRoutes stand among them.
pub(crate) const GRPC_ROUTES: usize = 0;

/// Whether some kind of route may not be listed: then nobody knows to which Services it leads.
#[derive(Clone, Debug, Default)]
pub struct Unlisted(Arc<Mutex<BTreeSet<&'static str>>>);

impl Unlisted {
    fn note(&self, kind: &'static str, is_unlisted: bool) {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_unlisted {
            kinds.insert(kind);
        } else {
            kinds.remove(kind);
        }
    }

    /// How many.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// A route.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimRoute {
    /// In the form of an Ingress: which host and path go to which Service port.
    pub ingress: SlimIngress,
    /// The Services to which its rules lead; none of a VirtualService.
    pub backends: Box<[Backend]>,
    /// Of each rule of an IngressRoute, the first ten bytes of the SHA-256 of what it matches, in hexadecimal.
    pub digests: Box<[String]>,
    /// Of one of the Gateway API, how many gateways serve it.
    pub gateways: usize,
}

impl Slim for SlimRoute {
    type Object = DynamicObject;

    fn of(object: DynamicObject) -> Self {
        let created = object.creation_timestamp().map_or(Timestamp::MAX, |time| time.0);
        let resource_version = object.resource_version().unwrap_or_default();
        // What cannot be written again leads nowhere.
        let object = serde_json::to_value(&object).unwrap_or_default();
        let rules = routes::rules(&object).into_iter().map(|rule| SlimRule {
            host: Some(rule.host).filter(|host| host != "*"),
            path: rule.path,
            exact: rule.exact,
            service: rule.service,
            port: rule.port,
        });
        Self {
            ingress: SlimIngress { created, class: None, rules: rules.collect(), resource_version },
            backends: routes::backends(&object).into(),
            digests: routes::matches(&object).into_iter().map(digest).collect(),
            gateways: routes::gateways(&object),
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

/// Follows one kind of [`KINDS`] or [`OTHERS`] as soon as it is there and may be listed.
pub(super) async fn follow_routes(
    cluster: Cluster,
    store: Watched<SlimRoute>,
    (kind, group, version, plural): (&'static str, &'static str, &'static str, &'static str),
    namespace: Option<String>,
    unlisted: Unlisted,
) {
    let resource = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
    let api: Api<Thin<SlimRoute>> = match &namespace {
        None => Api::all_with(cluster.client(), &resource),
        Some(namespace) => Api::namespaced_with(cluster.client(), namespace, &resource),
    };
    let mut told = false;
    // Whatever else goes wrong is the watch's to try again.
    while let Err(error @ (ClusterError::Forbidden(_) | ClusterError::Gone(_))) =
        cluster.call(api.list(&ListParams::default().limit(1))).await
    {
        let forbidden = matches!(error, ClusterError::Forbidden(_));
        unlisted.note(kind, forbidden);
        if forbidden && !std::mem::replace(&mut told, true) {
            tracing::warn!(
                kind,
                error = error.chain(),
                "may not be listed, so its hosts lead nowhere on proxies' error paths, and what comes by it is not seen: apps that proxies' metrics tell of stay awake"
            );
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    unlisted.note(kind, false);
    store.follow(api, namespace, None, Arc::new(|_, _, _| {})).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_where_they_are_looked_for() {
        assert_eq!((KINDS[INGRESS_ROUTES + 1].0, KINDS[HTTP_ROUTES + 1].0), ("IngressRoute", "HTTPRoute"));
        assert_eq!(OTHERS[GRPC_ROUTES].0, "GRPCRoute");
    }

    #[test]
    fn a_route_is_kept_as_an_ingress_with_its_hosts_and_paths() {
        let object: DynamicObject = serde_json::from_value(serde_json::json!({
            "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
            "metadata": { "name": "web", "namespace": "shop", "creationTimestamp": "2026-11-22T10:00:00Z", "resourceVersion": "7" },
            "spec": { "routes": [{ "match": "Host(`web.example`) && PathPrefix(`/a`)", "services": [{ "name": "web", "port": "http" }] }] },
        }))
        .unwrap();
        let SlimRoute { ingress: route, backends, digests, gateways } = SlimRoute::of(object);
        assert_eq!((backends[0].service.as_str(), backends.len(), gateways), ("web", 1, 0));
        // What `printf %s 'Host(`web.example`) && PathPrefix(`/a`)' | sha256sum` begins with.
        assert_eq!(*digests, ["20fcd36746192f780426"]);
        assert_eq!(
            (route.created.to_string().as_str(), route.resource_version.as_str()),
            ("2026-11-22T10:00:00Z", "7")
        );
        let SlimRule { host, path, exact, service, port } = &route.rules[0];
        assert_eq!(
            (host.as_deref(), path.as_str(), *exact, service.as_str(), port.as_str()),
            (Some("web.example"), "/a", false, "web", "http")
        );
    }
}
