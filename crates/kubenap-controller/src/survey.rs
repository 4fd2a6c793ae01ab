//! Every Deployment that a Service leads to, opted in or not, as sources need to know it to find its past.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::{Api, Resource, ResourceExt as _};
use kubenap_core::policy::{self, Defaults};
use kubenap_core::proxy::routes::{KINDS, OTHERS, RouteKind};
use serde::de::DeserializeOwned;

use crate::activity::Target;
use crate::cluster::around::{Around, list};
use crate::cluster::route_kinds::{Served, served};
use crate::cluster::slim::{Slim, SlimDeployment, SlimIngress, SlimIngressClass, SlimService};
use crate::cluster::slim_route::SlimRoute;
use crate::cluster::space::Space;
use crate::cluster::thin::Thin;
use crate::cluster::{Cluster, ClusterError, observe};
use crate::leading::{Leading, Routes, by_service};
use crate::routes::target_service;

/// A Deployment that may nap, or could if it were opted in.
#[derive(Clone, Debug)]
pub struct Candidate {
    /// What sources are asked about. Which pods it had is not known of the past.
    pub target: Target,
    /// Whether it is opted in.
    pub opted_in: bool,
    /// How many replicas it has, or would wake to.
    pub replicas: u32,
    /// Quiet this long before a nap.
    pub idle_after: Duration,
}

/// All of these namespaces, or of all, in order of name.
///
/// # Errors
/// When the API server does not list Deployments, Services or Ingresses. IngressClasses may stay unknown.
pub async fn candidates(
    cluster: &Cluster,
    namespaces: &[String],
    defaults: &Defaults,
) -> Result<Vec<Candidate>, ClusterError> {
    let deployments = spaces::<SlimDeployment, _>(cluster, namespaces).await?;
    let services = spaces::<SlimService, _>(cluster, namespaces).await?;
    let ingresses = spaces::<SlimIngress, _>(cluster, namespaces).await?;
    let classes = classes(cluster).await?;
    let mut others = Vec::new();
    for kind in &OTHERS {
        others.push(routes(cluster, kind).await?);
    }
    let mut named = Vec::new();
    for kind in KINDS.iter().skip(1) {
        named.push(routes(cluster, kind).await?);
    }
    let leading = by_service(&named, &others);
    let mut found = Vec::new();
    for (namespace, deployments) in &deployments {
        for deployment in deployments.values() {
            let around = Around {
                deployment: Arc::clone(deployment),
                deployments: Arc::clone(deployments),
                services: services.get(namespace).cloned().unwrap_or_default(),
                slices: Arc::default(),
                pods: Arc::default(),
                ingresses: ingresses.get(namespace).cloned().unwrap_or_default(),
                scaler: None,
                live: true,
            };
            found.extend(candidate(&around, &classes, &leading, defaults));
        }
    }
    Ok(found)
}

fn candidate(
    around: &Around,
    classes: &Space<SlimIngressClass>,
    leading: &Leading,
    defaults: &Defaults,
) -> Option<Candidate> {
    let deployment = &around.deployment;
    let policy = observe::reading(deployment, defaults).policy;
    let (services, _) = observe::services_of(around, deployment, &policy);
    let chosen =
        |name: &str| policy.ingresses.as_ref().is_none_or(|names| names.iter().any(|known| known == name));
    let ingresses = || around.ingresses.iter().filter(|(name, _)| chosen(name));
    let namespace = &deployment.id.namespace;
    let service = |service: &Arc<SlimService>| {
        let mut target = target_service(namespace, service, ingresses(), classes);
        leading.add_to(&mut target);
        target
    };
    let services: Box<[_]> = services.iter().map(service).collect();
    if services.is_empty() {
        return None;
    }
    let seen = &deployment.seen;
    let asleep = policy.replica_count.or(seen.record.restore).unwrap_or(1);
    Some(Candidate {
        target: Target {
            services,
            query: policy.query.map(String::into_boxed_str),
            ..Target::of(deployment.id.clone())
        },
        opted_in: policy::opted_in(&deployment.labels),
        replicas: if seen.replicas == 0 { asleep } else { seen.replicas },
        idle_after: policy.idle_after,
    })
}

async fn spaces<T, K>(
    cluster: &Cluster,
    namespaces: &[String],
) -> Result<BTreeMap<String, Arc<Space<T>>>, ClusterError>
where
    T: Slim<Object = K>,
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + std::fmt::Debug,
{
    let mut objects: Vec<K> = Vec::new();
    if namespaces.is_empty() {
        objects = list(cluster, Api::all(cluster.client())).await?;
    }
    for namespace in namespaces {
        objects.extend(list(cluster, Api::namespaced(cluster.client(), namespace)).await?);
    }
    let mut spaces: BTreeMap<String, Space<T>> = BTreeMap::new();
    for object in objects {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        spaces.entry(namespace).or_default().insert(&name, Arc::new(T::of(object)));
    }
    Ok(spaces.into_iter().map(|(namespace, space)| (namespace, Arc::new(space))).collect())
}

/// One kind of routes besides Ingresses, of all namespaces; none where it is not there, or may not be listed.
async fn routes(cluster: &Cluster, kind: &RouteKind) -> Result<Routes, ClusterError> {
    let resource = match served(cluster, kind, None).await {
        Ok(Served::Here(resource)) => resource,
        Ok(Served::Nowhere | Served::Otherwise(_)) | Err(ClusterError::Forbidden(_)) => {
            return Ok(Routes::new());
        }
        Err(error) => return Err(error),
    };
    let listed = match list(cluster, Api::<Thin<SlimRoute>>::all_with(cluster.client(), &resource)).await {
        Ok(listed) => listed,
        Err(ClusterError::Forbidden(_) | ClusterError::Gone(_)) => return Ok(Routes::new()),
        Err(error) => return Err(error),
    };
    let mut spaces: BTreeMap<String, Space<SlimRoute>> = BTreeMap::new();
    for route in listed {
        let ((namespace, name), route) = route.into_parts();
        spaces.entry(namespace).or_default().insert(&name, route);
    }
    Ok(spaces.into_iter().map(|(namespace, space)| (namespace.into(), Arc::new(space))).collect())
}

/// None are known where they may not be listed: they belong to nobody's namespace.
async fn classes(cluster: &Cluster) -> Result<Space<SlimIngressClass>, ClusterError> {
    match list(cluster, Api::<IngressClass>::all(cluster.client())).await {
        Ok(classes) => {
            Ok(classes.into_iter().map(|class| (class.name_any(), SlimIngressClass::of(class))).collect())
        }
        Err(ClusterError::Forbidden(_)) => Ok(Space::default()),
        Err(error) => Err(error),
    }
}
