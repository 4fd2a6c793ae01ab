//! Carrying out: each write of a step, with its preconditions, in this one place.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, ResourceExt as _};
use kubenap_core::write::{DeploymentPatch, Write};
use serde_json::{Map, Value, json};

use crate::cluster::slices::object_of;
use crate::cluster::stores::Stores;
use crate::cluster::{Cluster, ClusterError, FIELD_MANAGER, key_of};

pub mod by_hand;
pub mod hooks;
pub mod leave;
pub mod prove;
pub mod wake_address;

/// How long a turn waits to see its own write in the stores.
const CATCH_UP: Duration = Duration::from_secs(2);

/// Carries out one write. `stores`, where there are any, have seen it when this returns.
pub async fn carry_out(
    cluster: &Cluster,
    stores: Option<&Stores>,
    write: &Write,
) -> Result<(), ClusterError> {
    match write {
        Write::Deployment(patch) => deployment(cluster, stores, patch).await,
        Write::PutSlice { namespace, slice, owner } => {
            let version = put_slice(cluster, namespace, &object_of(namespace, slice, owner)).await?;
            caught_up(stores, namespace, &slice.name, version.as_deref()).await;
            Ok(())
        }
        Write::MarkLeaving { namespace, slice, resource_version } => {
            let api: Api<EndpointSlice> = Api::namespaced(cluster.client(), namespace);
            let conditions = json!({"ready": false, "serving": true, "terminating": true});
            let endpoints: Vec<_> = slice
                .addresses
                .iter()
                .map(|address| json!({"addresses": [address.to_string()], "conditions": conditions}))
                .collect();
            let mut body = json!({"endpoints": endpoints});
            if let Some(version) = resource_version {
                body["metadata"] = json!({"resourceVersion": version});
            }
            let written = cluster.call(api.patch(&slice.name, &params(), &Patch::Merge(body))).await?;
            caught_up(stores, namespace, &slice.name, written.resource_version().as_deref()).await;
            Ok(())
        }
        Write::DeleteSlice { namespace, name, uid, resource_version } => {
            let api: Api<EndpointSlice> = Api::namespaced(cluster.client(), namespace);
            let only = Preconditions { uid: uid.clone(), resource_version: resource_version.clone() };
            let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
            match cluster.call(api.delete(name, &params)).await {
                Ok(_) | Err(ClusterError::Gone(_)) => {}
                Err(error) => return Err(error),
            }
            caught_up(stores, namespace, name, None).await;
            Ok(())
        }
        Write::Attach { app, object } => hooks::apply(cluster, app, object, false).await.map(drop),
        Write::Detach { app, epoch, piece } => hooks::take_back(cluster, app, *epoch, piece).await,
    }
}

async fn deployment(
    cluster: &Cluster,
    stores: Option<&Stores>,
    patch: &DeploymentPatch,
) -> Result<(), ClusterError> {
    let api: Api<Deployment> = Api::namespaced(cluster.client(), &patch.app.namespace);
    let body = Patch::Merge(body_of(patch));
    let written = cluster.call(api.patch(&patch.app.name, &params(), &body)).await?;
    if let Some(stores) = stores {
        let version = written.resource_version();
        stores.deployments.caught_up(&key_of(&patch.app), version.as_deref(), CATCH_UP).await;
    }
    Ok(())
}

/// The merge patch: replicas and annotations in one, only if the version is still the one that was read.
fn body_of(patch: &DeploymentPatch) -> Value {
    let mut annotations = Map::new();
    for name in &patch.clear {
        annotations.insert((*name).to_owned(), Value::Null);
    }
    for (name, value) in &patch.set {
        annotations.insert((*name).to_owned(), Value::String(value.clone()));
    }
    let mut body = json!({"metadata": {"annotations": annotations}});
    if let Some(version) = &patch.resource_version {
        body["metadata"]["resourceVersion"] = json!(version);
    }
    if let Some(replicas) = patch.replicas {
        body["spec"] = json!({"replicas": replicas});
    }
    body
}

/// Creates the slice, or replaces it whatever it was: it is the member's own.
async fn put_slice(
    cluster: &Cluster,
    namespace: &str,
    slice: &EndpointSlice,
) -> Result<Option<String>, ClusterError> {
    let api: Api<EndpointSlice> = Api::namespaced(cluster.client(), namespace);
    let name = slice.name_any();
    let post = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    match cluster.call(api.create(&post, slice)).await {
        Ok(written) => return Ok(written.resource_version()),
        Err(ClusterError::Conflict(_)) => {}
        Err(error) => return Err(error),
    }
    let there = cluster.call(api.get(&name)).await?;
    let mut next = slice.clone();
    next.metadata.resource_version = there.metadata.resource_version;
    Ok(cluster.call(api.replace(&name, &post, &next)).await?.resource_version())
}

async fn caught_up(stores: Option<&Stores>, namespace: &str, name: &str, version: Option<&str>) {
    if let Some(stores) = stores {
        stores.slices.caught_up(&(namespace.to_owned(), name.to_owned()), version, CATCH_UP).await;
    }
}

fn params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() }
}
