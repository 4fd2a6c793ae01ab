//! Objects go through their Kubernetes types once: wrong types are refused, unknown fields are left out.
use crate::kinds::Kind;
use k8s_openapi::api::{
    apps::v1::{Deployment, ReplicaSet},
    autoscaling::v2::HorizontalPodAutoscaler,
    coordination::v1::Lease,
    core::v1::{ConfigMap, Event, Namespace, Node, Pod, Service},
    discovery::v1::EndpointSlice,
    networking::v1::{Ingress, IngressClass},
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The object as its type writes it, and the paths of what the type does not know.
pub(crate) fn normal(kind: &Kind, object: &Value) -> Result<(Value, Vec<String>), String> {
    match kind.plural {
        "namespaces" => through::<Namespace>(object),
        "nodes" => through::<Node>(object),
        "configmaps" => through::<ConfigMap>(object),
        "services" => through::<Service>(object),
        "pods" => through::<Pod>(object),
        "events" => through::<Event>(object),
        "deployments" => through::<Deployment>(object),
        "replicasets" => through::<ReplicaSet>(object),
        "endpointslices" => through::<EndpointSlice>(object),
        "ingresses" => through::<Ingress>(object),
        "ingressclasses" => through::<IngressClass>(object),
        "leases" => through::<Lease>(object),
        "horizontalpodautoscalers" => through::<HorizontalPodAutoscaler>(object),
        // Custom resources are whatever their definitions let through.
        "ingressroutes" | "middlewares" | "traefikservices" | "ingressroutetcps" | "httproutes"
        | "grpcroutes" | "tlsroutes" | "tcproutes" | "virtualservices" => Ok((object.clone(), Vec::new())),
        other => Err(format!("{other} has no type")),
    }
}

fn through<T: Serialize + DeserializeOwned>(object: &Value) -> Result<(Value, Vec<String>), String> {
    let typed: T = serde_json::from_value(object.clone()).map_err(|error| error.to_string())?;
    let normal = serde_json::to_value(typed).map_err(|error| error.to_string())?;
    let mut lost = Vec::new();
    compare(object, &normal, "", &mut lost);
    Ok((normal, lost))
}

fn compare(sent: &Value, kept: &Value, path: &str, lost: &mut Vec<String>) {
    match (sent, kept) {
        (Value::Object(sent), Value::Object(kept)) => {
            for (name, value) in sent.iter().filter(|(_, value)| !value.is_null()) {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match kept.get(name) {
                    Some(kept) => compare(value, kept, &path, lost),
                    None => lost.push(path),
                }
            }
        }
        (Value::Array(sent), Value::Array(kept)) => {
            for (place, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                compare(sent, kept, &format!("{path}[{place}]"), lost);
            }
        }
        _ => {}
    }
}
