//! Reading and changing the parts that all objects have.
use serde_json::{Value, json};

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("")
}

pub(crate) fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().unwrap_or("")
}

pub(crate) fn version(object: &Value) -> &str {
    object["metadata"]["resourceVersion"].as_str().unwrap_or("")
}

pub(crate) fn is_terminating(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// The uids of all owners.
pub(crate) fn owners(object: &Value) -> impl Iterator<Item = &str> {
    list(&object["metadata"]["ownerReferences"]).iter().filter_map(|owner| owner["uid"].as_str())
}

/// The owner that acts for the object.
pub(crate) fn controller(object: &Value) -> Option<&Value> {
    list(&object["metadata"]["ownerReferences"]).iter().find(|owner| owner["controller"] == true)
}

pub(crate) fn labels(object: &Value) -> impl Iterator<Item = (&str, &str)> {
    strings(&object["metadata"]["labels"])
}

pub(crate) fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object["metadata"]["annotations"][key].as_str()
}

/// The elements of a list; none of what is no list.
pub(crate) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The pairs of a map of strings.
pub(crate) fn strings(value: &Value) -> impl Iterator<Item = (&str, &str)> {
    value.as_object().into_iter().flatten().filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
}

/// The condition of a type in an object's status.
pub(crate) fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    list(&object["status"]["conditions"]).iter().find(|condition| condition["type"] == kind)
}

/// Puts a condition into a status, or takes it out.
pub(crate) fn set_condition(status: &mut Value, kind: &str, condition: Option<Value>) {
    let mut all = list(&status["conditions"]).to_vec();
    all.retain(|known| known["type"] != kind);
    all.extend(condition);
    match status.as_object_mut() {
        Some(fields) if all.is_empty() => drop(fields.remove("conditions")),
        _ => status["conditions"] = all.into(),
    }
}

pub(crate) fn is_ready(pod: &Value) -> bool {
    condition(pod, "Ready").is_some_and(|condition| condition["status"] == "True")
}

/// An object as it was when its end got a version.
pub(crate) fn at_version(object: &Value, version: u64) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = version.to_string().into();
    object
}

/// A reference that makes its holder go with the owner.
pub(crate) fn owned_by(owner: &Value, block: bool) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true, "blockOwnerDeletion": block,
    }])
}

/// Sets a field of a status, or leaves it out when it is zero, as the real API does.
pub(crate) fn count(status: &mut Value, field: &str, number: u64) {
    if number > 0 {
        status[field] = number.into();
    } else if let Some(fields) = status.as_object_mut() {
        fields.remove(field);
    }
}
