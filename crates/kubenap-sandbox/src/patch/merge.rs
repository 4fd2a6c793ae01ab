//! JSON merge patches (RFC 7386): null takes away, maps merge, all else replaces.
use serde_json::{Map, Value};

pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn null_takes_away_and_maps_merge() {
        let mut object = json!({ "a": { "b": 1, "c": 2 }, "d": [1, 2] });
        merge(&mut object, json!({ "a": { "b": null, "e": { "f": null, "g": 3 } }, "d": [3] }));
        assert_eq!(object, json!({ "a": { "c": 2, "e": { "g": 3 } }, "d": [3] }));
    }
}
