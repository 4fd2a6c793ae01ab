//! From the objects around an app to the core's facts about it.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use kubenap_core::app::AppId;
use kubenap_core::policy::{self, Defaults, Policy, Reading};
use kubenap_core::seen::{Family, Seen, ServiceRefusal, ServiceSeen};

use super::around::Around;
use super::slices::SlimSlice;
use super::slim::{SlimDeployment, SlimService};

/// What the cluster says of an app, without what its peers decide and without what only memory knows.
pub fn observe(around: &Around, policy: &Policy, addresses: &BTreeSet<IpAddr>) -> Seen {
    let deployment = &around.deployment;
    let (services, missing_services) = services_of(around, deployment, policy);
    let names: BTreeSet<&str> = services.iter().map(|service| service.seen.name.as_str()).collect();
    let mut slices = Vec::new();
    let mut endpoints = Vec::new();
    for slice in around.slices.values() {
        let behind = names.contains(slice.service());
        match &**slice {
            // Also one of a Service that is the app's no more: it has to be taken out some time.
            SlimSlice::Ours(slice) if behind || slice.apps.contains_key(&deployment.id.name) => {
                slices.push(slice.clone());
            }
            SlimSlice::Theirs { endpoints: theirs, .. } if behind => endpoints.extend(theirs.iter().cloned()),
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
    let missing_ingresses = wanted.filter(|name| !around.ingresses.contains(*name)).cloned().collect();
    let pods = around
        .pods
        .values()
        .filter(|pod| sharing.iter().any(|other| other.selector.takes(&pod.labels)))
        .map(|pod| pod.seen.clone())
        .collect();
    Seen {
        deployment: deployment.seen.clone(),
        services: services.iter().map(|service| with_families(&service.seen, addresses)).collect(),
        missing_services,
        missing_ingresses,
        slices,
        endpoints,
        pods,
        pods_confirmed: true,
        scaler: around.scaler.clone(),
        peers: Vec::new(),
        strangers,
    }
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
            names.iter().partition(|name| around.services.contains_key(*name));
        let there = there.into_iter().filter_map(|name| around.services.get(name).cloned()).collect();
        return (there, missing.into_iter().cloned().collect());
    }
    let selects = |service: &&Arc<SlimService>| deployment.is_selected_by(&service.selector);
    (around.services.values().filter(selects).cloned().collect(), Vec::new())
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
    let others = around.deployments.values().filter(|other| {
        other.id != own.id && services.iter().any(|service| other.is_selected_by(&service.selector))
    });
    std::iter::once(own).chain(others).cloned().collect()
}

fn with_families(service: &ServiceSeen, addresses: &BTreeSet<IpAddr>) -> ServiceSeen {
    let have: BTreeSet<_> = addresses.iter().map(|address| Family::of(*address)).collect();
    let lacking = !service.families.is_subset(&have);
    let refusal = service.refusal.or(lacking.then_some(ServiceRefusal::NoSuchFamily));
    ServiceSeen { refusal, ..service.clone() }
}
