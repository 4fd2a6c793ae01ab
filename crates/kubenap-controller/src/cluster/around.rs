//! Everything around one app, from the stores or read live, before it becomes the core's facts.

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, ResourceExt as _};
use kubenap_core::app::AppId;
use kubenap_core::seen::{self, Scaler, Stamp};

use super::slices::SlimSlice;
use super::slim::{Slim, SlimDeployment, SlimIngress, SlimPod, SlimService};
use super::space::Space;
use super::stores::Stores;
use super::{Cluster, ClusterError, FIELD_MANAGER};

/// The objects of an app's namespace that may matter to it.
#[derive(Clone, Debug)]
pub struct Around {
    /// The app's Deployment.
    pub deployment: Arc<SlimDeployment>,
    /// Deployments of the namespace; only those with the label where it comes from the stores.
    pub deployments: Arc<Space<SlimDeployment>>,
    /// Services of the namespace.
    pub services: Arc<Space<SlimService>>,
    /// EndpointSlices of the namespace.
    pub slices: Arc<Space<SlimSlice>>,
    /// Pods of the namespace.
    pub pods: Arc<Space<SlimPod>>,
    /// Ingresses of the namespace.
    pub ingresses: Arc<Space<SlimIngress>>,
    /// Who else scales the Deployment; known from a live reading only.
    pub scaler: Option<Scaler>,
    /// It was read live.
    pub live: bool,
}

impl Around {
    /// From the stores. None: the Deployment is not known there.
    pub fn cached(stores: &Stores, app: &AppId) -> Option<Self> {
        let deployments = stores.deployments.within(&app.namespace);
        Some(Self {
            deployment: Arc::clone(deployments.get(&app.name)?),
            deployments,
            services: stores.services.within(&app.namespace),
            slices: stores.slices.within(&app.namespace),
            pods: stores.pods.within(&app.namespace),
            ingresses: stores.ingresses.within(&app.namespace),
            scaler: None,
            live: false,
        })
    }

    /// From the API server, with quorum reads. None: the Deployment does not exist.
    pub async fn live(cluster: &Cluster, app: &AppId) -> Result<Option<Self>, ClusterError> {
        let (client, space) = (cluster.client(), app.namespace.as_str());
        let api: Api<Deployment> = Api::namespaced(client.clone(), space);
        // The Deployment first: all that is read after it is at least as new.
        let Some(deployment) = cluster.call(api.get_opt(&app.name)).await? else { return Ok(None) };
        let (deployments, services, slices, pods, ingresses, scaler) = tokio::try_join!(
            list(cluster, Api::<Deployment>::namespaced(client.clone(), space)),
            list(cluster, Api::<Service>::namespaced(client.clone(), space)),
            list(cluster, Api::<EndpointSlice>::namespaced(client.clone(), space)),
            list(cluster, Api::<Pod>::namespaced(client.clone(), space)),
            list(cluster, Api::<Ingress>::namespaced(client.clone(), space)),
            scaler(cluster, app),
        )?;
        let deployment = Arc::new(SlimDeployment::of(deployment));
        Ok(Some(Self {
            deployment,
            deployments: slim(deployments),
            services: slim(services),
            slices: slim(slices),
            pods: slim(pods),
            ingresses: slim(ingresses),
            scaler,
            live: true,
        }))
    }
}

/// The autoscaler whose target the app is.
pub async fn scaler(cluster: &Cluster, app: &AppId) -> Result<Option<Scaler>, ClusterError> {
    let api: Api<HorizontalPodAutoscaler> = Api::namespaced(cluster.client(), &app.namespace);
    let all = list(cluster, api).await?;
    let ours = |hpa: &&HorizontalPodAutoscaler| {
        hpa.spec.as_ref().is_some_and(|spec| {
            spec.scale_target_ref.kind == "Deployment" && spec.scale_target_ref.name == app.name
        })
    };
    let scalers = all.iter().filter(ours).map(|hpa| {
        let least = hpa.spec.as_ref().and_then(|spec| spec.min_replicas).unwrap_or(1);
        // A ScaledObject makes an autoscaler of its own, and scales to zero past it.
        let scaled_object = hpa.owner_references().iter().any(|owner| owner.kind == "ScaledObject");
        Scaler {
            name: format!("HorizontalPodAutoscaler {}", hpa.name_any()),
            least: u32::try_from(least).unwrap_or(0),
            owns_zero: least == 0 || scaled_object,
        }
    });
    // Of several, which is a mistake of its own, each must be content: one that owns zero speaks for all.
    Ok(scalers.max_by_key(|scaler| (scaler.owns_zero, scaler.least)))
}

/// The field manager that set the Deployment's `spec.replicas` last, other than KubeNap; none: nobody else owns it.
pub async fn replicas_by(cluster: &Cluster, app: &AppId) -> Result<Option<String>, ClusterError> {
    let api: Api<Deployment> = Api::namespaced(cluster.client(), &app.namespace);
    let Some(deployment) = cluster.call(api.get_metadata_opt(&app.name)).await? else { return Ok(None) };
    let entries = deployment.metadata.managed_fields.unwrap_or_default();
    let owns = |entry: &ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0);
        fields.is_some_and(|fields| fields["f:spec"].get("f:replicas").is_some())
    };
    let others =
        entries.into_iter().filter(|entry| owns(entry) && entry.manager.as_deref() != Some(FIELD_MANAGER));
    Ok(others.max_by_key(|entry| entry.time.as_ref().map(|time| time.0)).and_then(|entry| entry.manager))
}

/// Whether the app's ReplicaSets have observed their newest spec, and the pods as they are after that.
///
/// Read after the Deployment's controller has observed the wake: a ReplicaSet that has acted on its newest spec
/// deletes no pod for an older one, so the pods that are read last and not being deleted stay.
pub async fn settled_pods(
    cluster: &Cluster,
    deployment: &SlimDeployment,
) -> Result<Option<Arc<Space<SlimPod>>>, ClusterError> {
    let space = deployment.id.namespace.as_str();
    let sets = list(cluster, Api::<ReplicaSet>::namespaced(cluster.client(), space)).await?;
    let own = |set: &&ReplicaSet| set.owner_references().iter().any(|owner| owner.uid == deployment.seen.uid);
    let settled = |set: &ReplicaSet| {
        let observed = set.status.as_ref().and_then(|status| status.observed_generation);
        observed.unwrap_or(0) >= set.metadata.generation.unwrap_or(0)
    };
    if !sets.iter().filter(own).all(settled) {
        return Ok(None);
    }
    let pods = list(cluster, Api::<Pod>::namespaced(cluster.client(), space)).await?;
    Ok(Some(slim(pods)))
}

/// What the app's ReplicaSets remember of a nap.
pub async fn remembered(
    cluster: &Cluster,
    deployment: &SlimDeployment,
) -> Result<Option<Stamp>, ClusterError> {
    let sets = replica_sets(cluster, deployment).await?;
    Ok(seen::remembered(sets.iter().map(kube::ResourceExt::annotations)))
}

/// The greatest epoch that they have a copy of.
pub async fn counted(cluster: &Cluster, deployment: &SlimDeployment) -> Result<u64, ClusterError> {
    let sets = replica_sets(cluster, deployment).await?;
    Ok(seen::counted(sets.iter().map(kube::ResourceExt::annotations)))
}

/// Only their metadata: a namespace may have thousands, with a pod template each.
async fn replica_sets(
    cluster: &Cluster,
    deployment: &SlimDeployment,
) -> Result<Vec<PartialObjectMeta<ReplicaSet>>, ClusterError> {
    let api: Api<ReplicaSet> = Api::namespaced(cluster.client(), &deployment.id.namespace);
    let (mut params, mut own) = (ListParams::default().limit(PAGE), Vec::new());
    loop {
        let page = cluster.call(api.list_metadata(&params)).await?;
        let is_own = |set: &PartialObjectMeta<ReplicaSet>| {
            set.owner_references().iter().any(|owner| owner.uid == deployment.seen.uid)
        };
        own.extend(page.items.into_iter().filter(is_own));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(own),
        }
    }
}

/// How many objects a list is asked for at a time.
const PAGE: u32 = 500;

/// A whole list, in pages.
pub async fn list<K>(cluster: &Cluster, api: Api<K>) -> Result<Vec<K>, ClusterError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    whole(cluster, api, ListParams::default()).await
}

/// The same, of those that carry a label.
pub async fn list_labelled<K>(cluster: &Cluster, api: Api<K>, labels: &str) -> Result<Vec<K>, ClusterError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    whole(cluster, api, ListParams::default().labels(labels)).await
}

async fn whole<K>(cluster: &Cluster, api: Api<K>, params: ListParams) -> Result<Vec<K>, ClusterError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut params = params.limit(PAGE);
    let mut all = Vec::new();
    loop {
        let page = cluster.call(api.list(&params)).await?;
        all.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

fn slim<T: Slim>(objects: Vec<T::Object>) -> Arc<Space<T>>
where
    T::Object: kube::Resource,
{
    Arc::new(objects.into_iter().map(|object| (object.name_any(), T::of(object))).collect())
}
