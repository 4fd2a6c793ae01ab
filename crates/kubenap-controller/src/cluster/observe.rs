//! From the objects around an app to the core's facts about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kubenap_core::app::AppId;
use kubenap_core::policy::{self, Defaults, Policy, Reading};
use kubenap_core::seen::{EndpointSeen, Family, HookSeen, Pieces, Seen, ServiceRefusal, ServiceSeen};

use super::around::Around;
use super::slices::SlimSlice;
use super::slim::{SlimDeployment, SlimPod, SlimService};
use super::space::{Space, Tag};

/// What the cluster says of an app, without what its peers decide and without what only memory knows.
pub fn observe(around: &Around, policy: &Policy, addresses: &BTreeSet<IpAddr>) -> Seen {
    let deployment = &around.deployment;
    let (services, missing_services) = services_of(around, deployment, policy);
    let names: BTreeSet<&str> = services.iter().map(|service| service.seen.name.as_str()).collect();
    let mut slices = Vec::new();
    let mut endpoints = Vec::new();
    let tags = names.iter().map(|name| Tag::service(name)).chain([Tag::app(&deployment.id.name)]);
    let found: BTreeMap<&str, _> = tags.flat_map(|tag| around.slices.tagged(tag)).collect();
    for slice in found.into_values() {
        let behind = names.contains(slice.service());
        match &**slice {
            // Also one of a Service that is the app's no more: it has to be taken out some time.
            SlimSlice::Ours(slice) if behind || slice.apps.contains_key(&deployment.id.name) => {
                slices.push(slice.clone());
            }
            SlimSlice::Theirs { endpoints: theirs, .. } if behind => {
                endpoints.extend(theirs.iter().filter(|endpoint| is_its_pods_own(around, endpoint)).cloned());
            }
            SlimSlice::Ours(_) | SlimSlice::Theirs { .. } => {}
        }
    }
    let sharing = sharing(around, &services);
    let strangers = sharing
        .iter()
        .filter(|other| !policy::opted_in(&other.labels) && other.id != deployment.id)
        .map(|other| other.id.to_string())
        .collect();
    let wanted = policy.ingresses.iter().flatten();
    let missing_ingresses =
        wanted.filter(|name| !around.ingresses.contains(name.as_str())).cloned().collect();
    let pods: BTreeMap<&str, _> = sharing.iter().flat_map(|other| own_pods(around, other)).collect();
    let pods = pods.into_values().map(|pod| pod.seen.clone()).collect();
    Seen {
        deployment: deployment.seen.clone(),
        services: services.iter().map(|service| with_families(&service.seen, addresses)).collect(),
        missing_services,
        missing_ingresses,
        slices,
        hook: HookSeen::Unknown,
        hook_refusal: String::new(),
        unapplied: Vec::new(),
        applied: Pieces::default(),
        remembered: None,
        counted: 0,
        endpoints,
        pods,
        pods_confirmed: true,
        scaler: around.scaler.clone(),
        peers: Vec::new(),
        strangers,
    }
}

/// Whether an endpoint is where its pod is.
///
/// Whoever may write EndpointSlices in a namespace could otherwise have KubeNap connect to any address that it can
/// reach: a node, the API server, a cloud's metadata. Where a pod is, only its kubelet says.
fn is_its_pods_own(around: &Around, endpoint: &EndpointSeen) -> bool {
    let address = endpoint.address.ip();
    around.pods.values().any(|pod| pod.seen.uid == endpoint.pod && pod.addresses.contains(&address))
}

/// What the Deployment's label and annotations ask for.
pub fn reading(deployment: &SlimDeployment, defaults: &Defaults) -> Reading {
    policy::read(&deployment.labels, &deployment.annotations, defaults)
}

/// The app's Services, and the named ones that do not exist.
pub fn services_of(
    around: &Around,
    deployment: &SlimDeployment,
    policy: &Policy,
) -> (Vec<Arc<SlimService>>, Vec<String>) {
    if let Some(names) = &policy.services {
        let (there, missing): (Vec<_>, Vec<_>) =
            names.iter().partition(|name| around.services.contains(name.as_str()));
        let there = there.into_iter().filter_map(|name| around.services.get(name).cloned()).collect();
        return (there, missing.into_iter().cloned().collect());
    }
    let tags = deployment.template_labels.iter().map(|(name, value)| Tag::label(name, value));
    let found: BTreeMap<&str, _> = tags
        .flat_map(|tag| around.services.tagged(tag))
        .filter(|(_, service)| deployment.is_selected_by(&service.selector))
        .collect();
    (found.into_values().cloned().collect(), Vec::new())
}

/// The other opted-in Deployments behind one of the app's Services.
pub fn peers_of(around: &Around, policy: &Policy) -> Vec<AppId> {
    let (services, _) = services_of(around, &around.deployment, policy);
    sharing(around, &services)
        .into_iter()
        .filter(|other| other.id != around.deployment.id && policy::opted_in(&other.labels))
        .map(|other| other.id.clone())
        .collect()
}

/// The Deployments whose pods one of the Services selects, the app's own always among them.
fn sharing(around: &Around, services: &[Arc<SlimService>]) -> Vec<Arc<SlimDeployment>> {
    let own = &around.deployment;
    let others: BTreeMap<&str, _> =
        services.iter().flat_map(|service| selected_by(&around.deployments, service)).collect();
    let others = others.into_values().filter(|other| other.id != own.id);
    std::iter::once(own).chain(others).cloned().collect()
}

/// The Deployments whose pods a Service selects.
pub fn selected_by<'a>(
    deployments: &'a Space<SlimDeployment>,
    service: &'a SlimService,
) -> impl Iterator<Item = (&'a str, &'a Arc<SlimDeployment>)> {
    let found = service.first().into_iter().flat_map(|tag| deployments.tagged(tag));
    found.filter(|(_, deployment)| deployment.is_selected_by(&service.selector))
}

/// The pods that a Deployment's selector takes, by name.
pub fn own_pods<'a>(
    around: &'a Around,
    deployment: &'a SlimDeployment,
) -> impl Iterator<Item = (&'a str, &'a Arc<SlimPod>)> {
    let first = deployment.selector.first().map(|(name, value)| Tag::label(name, value));
    let tagged = first.into_iter().flat_map(|tag| around.pods.tagged(tag));
    // Only a selector without any plain label has to look at all of them.
    let all = first.is_none().then(|| around.pods.iter()).into_iter().flatten();
    tagged.chain(all).filter(|(_, pod)| deployment.selector.takes(&pod.labels))
}

fn with_families(service: &ServiceSeen, addresses: &BTreeSet<IpAddr>) -> ServiceSeen {
    let have: BTreeSet<_> = addresses.iter().map(|address| Family::of(*address)).collect();
    let lacking = !service.families.is_subset(&have);
    let refusal = service.refusal.or(lacking.then_some(ServiceRefusal::NoSuchFamily));
    ServiceSeen { refusal, ..service.clone() }
}

#[cfg(test)]
mod tests {

    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::slim::{Slim, SlimPod};
    use crate::cluster::space::Space;

    fn slim<T: Slim>(object: Value) -> T
    where
        T::Object: DeserializeOwned,
    {
        T::of(serde_json::from_value(object).unwrap())
    }

    fn space<T: Slim>(objects: impl IntoIterator<Item = (String, T)>) -> Arc<Space<T>> {
        Arc::new(objects.into_iter().collect())
    }

    fn slice(name: &str, address: &str, pod: &str) -> (String, SlimSlice) {
        let object = json!({
            "metadata": { "name": name, "labels": { "kubernetes.io/service-name": "web" } },
            "addressType": "IPv4",
            "endpoints": [{
                "addresses": [address],
                "conditions": { "ready": true },
                "targetRef": { "kind": "Pod", "name": pod, "uid": pod },
            }],
            "ports": [{ "name": "http", "port": 8080 }],
        });
        (name.to_owned(), slim::<SlimSlice>(object))
    }

    #[test]
    fn an_endpoint_that_is_not_where_its_pod_is_is_never_passed_to() {
        let pod = |uid: &str, app: &str, address: &str| {
            let ready = json!([{ "type": "Ready", "status": "True" }]);
            let object = json!({
                "metadata": { "name": uid, "uid": uid, "labels": { "app": app } },
                "status": { "phase": "Running", "conditions": ready, "podIPs": [{ "ip": address }] },
            });
            (uid.to_owned(), slim::<SlimPod>(object))
        };
        let deployment = json!({
            "metadata": { "name": "web", "namespace": "shop", "labels": { "kubenap/enabled": "true" } },
            "spec": { "selector": { "matchLabels": { "app": "web" } },
                "template": { "metadata": { "labels": { "app": "web" } } } },
        });
        let service = slim::<SlimService>(json!({
            "metadata": { "name": "web", "namespace": "shop" },
            "spec": { "selector": { "app": "web" }, "clusterIP": "10.96.0.9", "ports": [{ "name": "http", "port": 80 }] },
        }));
        let around = Around {
            deployments: space([("web".to_owned(), slim::<SlimDeployment>(deployment.clone()))]),
            deployment: Arc::new(slim(deployment)),
            services: space([("web".to_owned(), service)]),
            slices: space([
                slice("honest", "10.0.0.1", "own"),
                slice("metadata", "169.254.169.254", "own"),
                slice("loopback", "127.0.0.1", "own"),
                slice("node", "192.0.2.7", "own"),
                slice("service", "10.96.0.1", "own"),
                slice("neighbour", "10.0.0.2", "own"),
                slice("other-app", "10.0.0.2", "other"),
                slice("nobody", "10.0.0.3", ""),
            ]),
            pods: space([pod("own", "web", "10.0.0.1"), pod("other", "billing", "10.0.0.2")]),
            ingresses: Arc::default(),
            scaler: None,
            live: false,
        };
        let defaults = Defaults::default();
        let policy = reading(&around.deployment, &defaults).policy;
        let seen = observe(&around, &policy, &BTreeSet::new());
        assert_eq!(seen.targets("web", "http"), ["10.0.0.1:8080".parse().unwrap()]);
    }
}
