//! Objects of any kind: those around an app that say how a proxy leads to it, and those that a proxy is told by.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kubenap_core::app::AppId;
use kubenap_core::proxy::routes::KINDS;
use serde::Serialize;
use serde_json::Value;

use super::around::list;
use super::route_kinds::at;
use super::{Cluster, ClusterError};

/// A kind of object that must be listed, and cannot be.
#[derive(Debug, thiserror::Error)]
#[error("cannot list {kind}: {}", error.chain())]
pub struct Unlisted {
    kind: &'static str,
    error: ClusterError,
}

/// The Deployments, Services and routes of an app's namespace, and the classes of Ingresses, each saying what it is. What is
/// not installed, or may not be listed, is as if there were none; but for what every app has.
pub async fn around(cluster: &Cluster, app: &AppId) -> Result<Vec<Value>, Unlisted> {
    let (client, space) = (cluster.client(), app.namespace.as_str());
    let mut objects = Vec::new();
    let deployments = list(cluster, Api::<Deployment>::namespaced(client.clone(), space)).await;
    add(&mut objects, "Deployment", deployments)?;
    add(&mut objects, "Service", list(cluster, Api::<Service>::namespaced(client.clone(), space)).await)?;
    add(&mut objects, "Ingress", list(cluster, Api::<Ingress>::namespaced(client.clone(), space)).await)?;
    // Which proxy serves an Ingress is good to know, and no more.
    let classes = list(cluster, Api::<IngressClass>::all(client.clone())).await;
    add(&mut objects, "IngressClass", unless_hidden(classes))?;
    for kind in KINDS.into_iter().skip(1) {
        let mut listed = Ok(Vec::new());
        for version in kind.versions {
            let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), space, &at(&kind, version));
            listed = list(cluster, api).await;
            if !matches!(listed, Err(ClusterError::Gone(_))) {
                break;
            }
        }
        add(&mut objects, kind.kind, unless_hidden(listed))?;
    }
    Ok(objects)
}

/// The object of this kind, namespace and name as it is now; none: there is none, or its kind is not installed or may
/// not be listed.
pub async fn find(cluster: &Cluster, wanted: &Value) -> Result<Option<Value>, ClusterError> {
    match seek(cluster, wanted).await {
        Err(ClusterError::Gone(_) | ClusterError::Forbidden(_)) => Ok(None),
        found => found,
    }
}

/// The same, and it is an error that its kind is not installed or may not be listed.
pub async fn seek(cluster: &Cluster, wanted: &Value) -> Result<Option<Value>, ClusterError> {
    let (api, name) = api_of(cluster, wanted);
    // By a list, for which the right is there where apps' own objects are watched.
    let params = ListParams::default().fields(&format!("metadata.name={name}"));
    let found = cluster.call(api.list(&params)).await?.items.into_iter().next();
    Ok(found.and_then(|object| written(&object, &wanted["kind"], &wanted["apiVersion"])))
}

/// Where objects of this one's kind are, in its namespace; and its name.
pub fn api_of(cluster: &Cluster, object: &Value) -> (Api<DynamicObject>, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, version) = (text(&object["kind"]), text(&object["apiVersion"]));
    let space = text(&object["metadata"]["namespace"]);
    (dynamic(cluster, &kind, &version, &space), text(&object["metadata"]["name"]))
}

/// Objects of a kind in one namespace; none named: in all.
pub fn dynamic(cluster: &Cluster, kind: &str, api_version: &str, space: &str) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    if space.is_empty() {
        return Api::all_with(cluster.client(), &resource);
    }
    Api::namespaced_with(cluster.client(), space, &resource)
}

/// The same, of a kind that has a type.
pub fn typed<K>(cluster: &Cluster, space: &str) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    if space.is_empty() { Api::all(cluster.client()) } else { Api::namespaced(cluster.client(), space) }
}

/// Nothing, where a kind is not installed or may not be read.
fn unless_hidden<T>(listed: Result<Vec<T>, ClusterError>) -> Result<Vec<T>, ClusterError> {
    match listed {
        Err(ClusterError::Gone(_) | ClusterError::Forbidden(_)) => Ok(Vec::new()),
        listed => listed,
    }
}

fn add<T: Serialize>(
    objects: &mut Vec<Value>,
    kind: &'static str,
    listed: Result<Vec<T>, ClusterError>,
) -> Result<(), Unlisted> {
    let listed = listed.map_err(|error| Unlisted { kind, error })?;
    for mut object in listed.iter().filter_map(|item| written(item, &Value::from(kind), &Value::Null)) {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            // Long, and nothing of it is rendered.
            metadata.remove("managedFields");
        }
        objects.push(object);
    }
    Ok(())
}

/// The object, saying what it is: items of a list do not.
pub fn written<T: Serialize>(object: &T, kind: &Value, version: &Value) -> Option<Value> {
    let mut object = serde_json::to_value(object).ok()?;
    object["kind"] = kind.clone();
    if !version.is_null() {
        object["apiVersion"] = version.clone();
    }
    Some(object)
}
