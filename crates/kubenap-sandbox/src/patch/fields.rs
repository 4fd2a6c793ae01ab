//! Sets of fields as managedFields has them, and reading, merging, removing by such paths.
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Steps as managedFields spells them: `f:spec`, `k:{"name":"web"}`, `v:"x"`.
pub(crate) type Path = Vec<String>;

/// How a list is merged; known from where it is, since the sandbox has no schema.
enum ListKind {
    Atomic,
    Set,
    Keyed(&'static [&'static str]),
}

fn list_kind(path: &[String]) -> ListKind {
    let names: Vec<&str> = path.iter().filter_map(|step| step.strip_prefix("f:")).collect();
    match names.as_slice() {
        ["spec", "ports"] => ListKind::Keyed(&["port", "protocol"]),
        [.., "containers" | "initContainers", "ports"] => ListKind::Keyed(&["containerPort", "protocol"]),
        [.., "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets"] => {
            ListKind::Keyed(&["name"])
        }
        [.., "volumeMounts"] => ListKind::Keyed(&["mountPath"]),
        ["status", "conditions"] => ListKind::Keyed(&["type"]),
        ["metadata", "ownerReferences"] => ListKind::Keyed(&["uid"]),
        ["metadata", "finalizers"] => ListKind::Set,
        _ => ListKind::Atomic,
    }
}

fn is_atomic_map(path: &[String]) -> bool {
    matches!(path, [first, .., last] if first == "f:spec" && (last == "f:selector" || last == "f:nodeSelector"))
}

fn key_step(item: &Value, keys: &[&str]) -> Option<String> {
    let mut key = Map::new();
    for name in keys {
        if let Some(value) = item.get(*name) {
            key.insert((*name).to_owned(), value.clone());
        } else if *name == "protocol" {
            key.insert((*name).to_owned(), "TCP".into());
        }
    }
    (!key.is_empty()).then(|| format!("k:{}", Value::Object(key)))
}

/// All fields that a value sets.
pub(crate) fn leaves(value: &Value, path: &mut Path, out: &mut BTreeSet<Path>) {
    match value {
        Value::Object(fields) if !fields.is_empty() && !is_atomic_map(path) => {
            for (name, value) in fields {
                path.push(format!("f:{name}"));
                leaves(value, path, out);
                path.pop();
            }
        }
        Value::Array(items) if !items.is_empty() => match list_kind(path) {
            ListKind::Atomic => {
                out.insert(path.clone());
            }
            ListKind::Set => {
                out.extend(items.iter().map(|item| [path.as_slice(), &[format!("v:{item}")]].concat()));
            }
            ListKind::Keyed(keys) => {
                for item in items {
                    let Some(step) = key_step(item, keys) else { continue };
                    path.push(step);
                    out.insert(path.clone());
                    leaves(item, path, out);
                    path.pop();
                }
            }
        },
        _ => {
            out.insert(path.clone());
        }
    }
}

/// The value at a path.
pub(crate) fn at<'a>(value: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| {
        if let Some(name) = step.strip_prefix("f:") {
            value.get(name)
        } else {
            let place = place_of(value.as_array()?, step)?;
            value.get(place)
        }
    })
}

fn place_of(items: &[Value], step: &str) -> Option<usize> {
    if let Some(key) = step.strip_prefix("k:") {
        let key: Map<String, Value> = serde_json::from_str(key).ok()?;
        items.iter().position(|item| {
            key.iter().all(|(name, value)| {
                item.get(name).map_or(name == "protocol" && value == "TCP", |found| found == value)
            })
        })
    } else {
        let wanted: Value = serde_json::from_str(step.strip_prefix("v:")?).ok()?;
        items.iter().position(|item| *item == wanted)
    }
}

/// Takes the value at a path out.
pub(crate) fn remove(value: &mut Value, path: &[String]) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut parent = value;
    for step in parents {
        let next = if let Some(name) = step.strip_prefix("f:") {
            parent.get_mut(name)
        } else {
            let place = parent.as_array().and_then(|items| place_of(items, step));
            place.and_then(|place| parent.get_mut(place))
        };
        let Some(next) = next else { return };
        parent = next;
    }
    match (parent, last.strip_prefix("f:")) {
        (Value::Object(fields), Some(name)) => {
            fields.remove(name);
        }
        (Value::Array(items), None) => {
            if let Some(place) = place_of(items, last) {
                items.remove(place);
            }
        }
        _ => {}
    }
}

/// Puts an applied configuration over a live object, by the kinds of its lists.
pub(crate) fn overlay(live: &mut Value, applied: &Value, path: &mut Path) {
    match (&mut *live, applied) {
        (Value::Object(fields), Value::Object(applied)) if !is_atomic_map(path) => {
            for (name, value) in applied {
                path.push(format!("f:{name}"));
                overlay(fields.entry(name.clone()).or_insert(Value::Null), value, path);
                path.pop();
            }
        }
        (Value::Array(items), Value::Array(applied)) => match list_kind(path) {
            ListKind::Atomic => items.clone_from(applied),
            ListKind::Set => {
                for value in applied {
                    if !items.contains(value) {
                        items.push(value.clone());
                    }
                }
            }
            ListKind::Keyed(keys) => {
                for value in applied {
                    let Some(step) = key_step(value, keys) else { continue };
                    match place_of(items, &step) {
                        Some(place) => {
                            path.push(step);
                            overlay(&mut items[place], value, path);
                            path.pop();
                        }
                        None => items.push(value.clone()),
                    }
                }
            }
        },
        _ => *live = applied.clone(),
    }
}

/// A set of fields in the form of `fieldsV1`.
pub(crate) fn to_json(set: &BTreeSet<Path>) -> Value {
    let mut root = json!({});
    for path in set {
        let mut node = &mut root;
        for (depth, step) in path.iter().enumerate() {
            if depth > 0 && set.contains(&path[..depth]) {
                node["."] = json!({});
            }
            node = &mut node[step.as_str()];
            if node.is_null() {
                *node = json!({});
            }
        }
    }
    root
}

/// Reads `fieldsV1`.
pub(crate) fn from_json(node: &Value) -> BTreeSet<Path> {
    let mut out = BTreeSet::new();
    walk(node, &mut Vec::new(), &mut out);
    out
}

fn walk(node: &Value, path: &mut Path, out: &mut BTreeSet<Path>) {
    let Some(children) = node.as_object() else { return };
    if children.is_empty() && !path.is_empty() {
        out.insert(path.clone());
    }
    for (step, child) in children {
        if step == "." {
            out.insert(path.clone());
        } else {
            path.push(step.clone());
            walk(child, path, out);
            path.pop();
        }
    }
}

/// A path as messages spell it: `.spec.template.spec.containers[name="web"].image`.
pub(crate) fn spelled(path: &[String]) -> String {
    path.iter()
        .map(|step| {
            if let Some(name) = step.strip_prefix("f:") {
                return format!(".{name}");
            }
            let key = step.get(2..).unwrap_or("");
            match serde_json::from_str::<Map<String, Value>>(key) {
                Ok(key) => {
                    let pairs: Vec<_> = key.iter().map(|(name, value)| format!("{name}={value}")).collect();
                    format!("[{}]", pairs.join(","))
                }
                Err(_) => format!("[={key}]"),
            }
        })
        .collect()
}
