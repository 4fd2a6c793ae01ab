//! Events have two forms, `v1` and `events.k8s.io/v1`: one store, converted at the edge.
use crate::kinds::Kind;
use serde_json::Value;

/// Field names: in the core group, in events.k8s.io.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("reportingComponent", "reportingController"),
    ("source", "deprecatedSource"),
    ("count", "deprecatedCount"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
];

/// A stored object as a group shows it.
pub(super) fn shown(kind: &Kind, mut object: Value) -> Value {
    if kind.group == "events.k8s.io" && object.is_object() {
        rename(&mut object, |(core, grouped)| (core, grouped));
        object["apiVersion"] = kind.api_version().into();
    }
    object
}

/// What a client sent, in the form that is stored.
pub(crate) fn stored(kind: &Kind, mut object: Value) -> Value {
    if kind.group == "events.k8s.io" && object.is_object() {
        rename(&mut object, |(core, grouped)| (grouped, core));
        object["apiVersion"] = "v1".into();
    }
    object
}

fn rename(object: &mut Value, way: impl Fn((&'static str, &'static str)) -> (&'static str, &'static str)) {
    let Some(fields) = object.as_object_mut() else { return };
    for (from, to) in NAMES.map(way) {
        if let Some(value) = fields.remove(from) {
            fields.insert(to.to_owned(), value);
        }
    }
}
