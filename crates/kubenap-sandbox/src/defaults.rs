//! What the API server fills in: the defaults that clients can see or rely on.
use crate::api::errors::ApiError;
use crate::kinds::Kind;
use crate::store::Store;
use serde_json::{Value, json};

/// Fills in what was left out.
pub(crate) fn fill(kind: &Kind, object: &mut Value) {
    match kind.plural {
        "deployments" => {
            default(&mut object["spec"], "replicas", 1.into());
            default(&mut object["spec"], "revisionHistoryLimit", 10.into());
            default(&mut object["spec"], "progressDeadlineSeconds", 600.into());
            default(&mut object["spec"], "strategy", json!({ "type": "RollingUpdate" }));
            let strategy = &mut object["spec"]["strategy"];
            default(strategy, "type", "RollingUpdate".into());
            if strategy["type"] == "RollingUpdate" {
                default(strategy, "rollingUpdate", json!({}));
                default(&mut strategy["rollingUpdate"], "maxSurge", "25%".into());
                default(&mut strategy["rollingUpdate"], "maxUnavailable", "25%".into());
            }
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        "replicasets" => {
            default(&mut object["spec"], "replicas", 1.into());
            pod_spec(&mut object["spec"]["template"]["spec"]);
        }
        "pods" => pod_spec(&mut object["spec"]),
        "services" => service(&mut object["spec"]),
        "endpointslices" => {
            for port in items(object, "ports") {
                default(port, "name", "".into());
                default(port, "protocol", "TCP".into());
            }
        }
        "horizontalpodautoscalers" => default(&mut object["spec"], "minReplicas", 1.into()),
        "namespaces" => {
            let name = object["metadata"]["name"].clone();
            if !object["metadata"]["labels"].is_object() {
                object["metadata"]["labels"] = json!({});
            }
            object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
        }
        _ => {}
    }
}

/// What a new object starts with.
pub(crate) fn begin(kind: &Kind, object: &mut Value, store: &mut Store) -> Result<(), ApiError> {
    match kind.plural {
        "pods" => default(object, "status", json!({ "phase": "Pending", "qosClass": "BestEffort" })),
        "namespaces" => default(object, "status", json!({ "phase": "Active" })),
        "deployments" | "replicasets" => default(object, "status", json!({})),
        "ingresses" | "services" => default(object, "status", json!({ "loadBalancer": {} })),
        _ => {}
    }
    if kind.plural == "replicasets" && object["status"].get("replicas").is_none() {
        object["status"]["replicas"] = 0.into();
    }
    if kind.plural == "services" {
        let spec = &mut object["spec"];
        if spec["type"] != "ExternalName" {
            if spec["clusterIP"].as_str().unwrap_or("").is_empty() {
                let address = store.addresses.service().ok_or_else(ApiError::no_address)?;
                spec["clusterIP"] = address.to_string().into();
            }
            spec["clusterIPs"] = json!([spec["clusterIP"]]);
        }
    }
    Ok(())
}

/// What an update keeps of the old object when the new one does not say it.
pub(crate) fn keep(kind: &Kind, new: &mut Value, old: &Value) {
    if kind.plural == "services" && new["spec"]["type"] != "ExternalName" {
        for field in ["clusterIP", "clusterIPs"] {
            let is_missing = new["spec"].get(field).is_none_or(|value| value.is_null() || value == "");
            if let Some(kept) = old["spec"].get(field).filter(|_| is_missing) {
                new["spec"][field] = kept.clone();
            }
        }
    }
}

fn service(spec: &mut Value) {
    default(spec, "type", "ClusterIP".into());
    default(spec, "sessionAffinity", "None".into());
    if spec["type"] != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster".into());
        default(spec, "ipFamilies", json!(["IPv4"]));
        default(spec, "ipFamilyPolicy", "SingleStack".into());
    }
    for port in items(spec, "ports") {
        default(port, "protocol", "TCP".into());
        let number = port["port"].clone();
        default(port, "targetPort", number);
    }
}

fn pod_spec(spec: &mut Value) {
    default(spec, "restartPolicy", "Always".into());
    default(spec, "dnsPolicy", "ClusterFirst".into());
    default(spec, "schedulerName", "default-scheduler".into());
    default(spec, "terminationGracePeriodSeconds", 30.into());
    default(spec, "securityContext", json!({}));
    for container in items(spec, "containers") {
        let image = container["image"].as_str().unwrap_or("");
        let is_moving =
            image.ends_with(":latest") || !image.rsplit('/').next().unwrap_or("").contains([':', '@']);
        default(container, "imagePullPolicy", if is_moving { "Always" } else { "IfNotPresent" }.into());
        default(container, "resources", json!({}));
        default(container, "terminationMessagePath", "/dev/termination-log".into());
        default(container, "terminationMessagePolicy", "File".into());
        for port in items(container, "ports") {
            default(port, "protocol", "TCP".into());
        }
        for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
            if let Some(probe) = container.get_mut(probe) {
                for (field, number) in [
                    ("timeoutSeconds", 1),
                    ("periodSeconds", 10),
                    ("successThreshold", 1),
                    ("failureThreshold", 3),
                ] {
                    default(probe, field, number.into());
                }
            }
        }
    }
}

fn default(object: &mut Value, field: &str, value: Value) {
    if object.is_null() {
        *object = json!({});
    }
    if let Some(fields) = object.as_object_mut() {
        let place = fields.entry(field).or_insert(Value::Null);
        if place.is_null() {
            *place = value;
        }
    }
}

/// The elements of a list in an object; a field that is missing stays so.
fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}
