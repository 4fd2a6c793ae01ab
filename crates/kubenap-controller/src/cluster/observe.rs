//! From the objects around an app to the core's facts about it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use kubenap_core::app::AppId;
use kubenap_core::policy::{self, Defaults, Policy, Reading};
use kubenap_core::seen::{Family, Seen, ServiceRefusal, ServiceSeen};

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
