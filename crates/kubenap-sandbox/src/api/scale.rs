//! The scale subresource: an object of its own kind that shows and changes one number.
use crate::api::Call;
use crate::api::admit::{self, Scope, Who};
use crate::api::errors::{ApiError, Cause};
use crate::patch;
use crate::store::{Store, object};
use serde_json::{Value, json};

/// A Deployment's scale.
pub(super) fn of(deployment: &Value) -> Value {
    let metadata = &deployment["metadata"];
    let selector: Vec<_> = object::strings(&deployment["spec"]["selector"]["matchLabels"])
        .map(|(label, value)| format!("{label}={value}"))
        .collect();
    json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"], "creationTimestamp": metadata["creationTimestamp"],
        },
        "spec": { "replicas": deployment["spec"]["replicas"].as_u64().unwrap_or(0) },
        "status": {
            "replicas": deployment["status"]["replicas"].as_u64().unwrap_or(0),
            "selector": selector.join(","),
        },
    })
}

/// Changes the number of replicas and nothing else.
pub(super) fn write(store: &mut Store, call: &Call) -> Result<Value, ApiError> {
    let (kind, name) = (call.place.kind, &call.place.name);
    let old = call.current(store)?;
    let new = match call.verb {
        "update" => call.json()?,
        _ if call.media == patch::APPLY => {
            return Err(ApiError::not_implemented("apply on the scale subresource"));
        }
        _ => patch::patched(&call.media, &call.body, of(&old))?,
    };
    let metadata = new.get("metadata").unwrap_or(&Value::Null);
    let sent = |field: &str| metadata[field].as_str().filter(|text| !text.is_empty());
    if sent("name").is_some_and(|sent| sent != name) {
        return Err(ApiError::bad_request("the name of the object does not match the name on the URL"));
    }
    if sent("uid").is_some_and(|uid| uid != object::uid(&old)) {
        return Err(ApiError::conflict(kind, name, "Precondition failed: UID does not match"));
    }
    if sent("resourceVersion").is_some_and(|version| version != object::version(&old)) {
        return Err(ApiError::stale(kind, name));
    }
    let replicas = match new.get("spec").and_then(|spec| spec.get("replicas")) {
        None | Some(Value::Null) => 0,
        Some(Value::Number(number)) => number.as_i64().unwrap_or(-1),
        Some(_) => return Err(ApiError::bad_request("spec.replicas is no number")),
    };
    if i32::try_from(replicas).is_err() || replicas < 0 {
        let cause = Cause::invalid("spec.replicas", replicas, "must be greater than or equal to 0");
        return Err(ApiError::invalid(kind, name, &[cause]));
    }
    let mut scaled = Value::clone(&old);
    scaled["spec"]["replicas"] = replicas.into();
    let who = Who { manager: &call.client, scope: Scope::Main, strict: false };
    Ok(of(&*admit::replace(store, kind, &old, scaled, who)?))
}
