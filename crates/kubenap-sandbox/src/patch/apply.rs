//! Server-side apply: who owns which field, and what happens when two want the same.
use crate::api::errors::ApiError;
use crate::api::{Scope, Who};
use crate::kinds::Kind;
use crate::patch::fields::{self, Path};
use crate::store::object;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The manager of a write whose ownership has been recorded already.
pub(crate) const NOBODY: &str = "";

/// Fields that nobody owns, since the server or the path sets them.
const UNOWNED: [&str; 12] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "generateName",
    "selfLink",
    "clusterName",
];

/// One line of managedFields.
struct Entry {
    manager: String,
    operation: String,
    subresource: String,
    time: String,
    fields: BTreeSet<Path>,
}

/// The object after an apply, with the new ownership in its managedFields.
pub(crate) fn applied(
    kind: &Kind,
    live: &Value,
    wanted: &Value,
    who: Who<'_>,
    force: bool,
    now: &str,
) -> Result<Value, ApiError> {
    if wanted["metadata"].get("managedFields").is_some_and(|fields| !fields.is_null()) {
        return Err(ApiError::bad_request("metadata.managedFields must be nil"));
    }
    let set = owned_fields(wanted, who.scope);
    let mut entries = read(live);
    let subresource = if who.scope == Scope::Status { "status" } else { "" };
    let is_mine = |entry: &Entry| {
        entry.manager == who.manager && entry.operation == "Apply" && entry.subresource == subresource
    };
    let mut conflicts = Vec::new();
    for entry in entries.iter_mut().filter(|entry| !is_mine(entry)) {
        let differing: Vec<Path> = entry
            .fields
            .intersection(&set)
            .filter(|path| !is_membership(path) && fields::at(live, path) != fields::at(wanted, path))
            .cloned()
            .collect();
        for path in differing {
            if force {
                entry.fields.remove(&path);
            } else {
                conflicts.push((fields::spelled(&path), entry.manager.clone()));
            }
        }
    }
    if !conflicts.is_empty() {
        return Err(ApiError::owned(&conflicts));
    }
    let mut new = live.clone();
    let before =
        entries.iter().find(|entry| is_mine(entry)).map(|entry| entry.fields.clone()).unwrap_or_default();
    // A list's item before what is in it: without its key it could not be found.
    for path in before.difference(&set) {
        if !entries
            .iter()
            .any(|entry| !is_mine(entry) && entry.fields.iter().any(|other| other.starts_with(path)))
        {
            fields::remove(&mut new, path);
        }
    }
    let mut overlaid = wanted.clone();
    if who.scope == Scope::Status {
        overlaid = json!({ "status": wanted["status"], "metadata": {} });
    } else if kind.status {
        overlaid.as_object_mut().map(|fields| fields.remove("status"));
    }
    fields::overlay(&mut new, &overlaid, &mut Vec::new());
    let time =
        entries.iter().find(|entry| is_mine(entry) && entry.fields == set).map(|entry| entry.time.clone());
    entries.retain(|entry| !is_mine(entry));
    entries.push(Entry {
        manager: who.manager.to_owned(),
        operation: "Apply".to_owned(),
        subresource: subresource.to_owned(),
        time: time.unwrap_or_else(|| now.to_owned()),
        fields: set,
    });
    store(kind, &mut new, entries);
    Ok(new)
}

/// Writes down that a manager changed what differs between two states, by other means than apply.
pub(crate) fn record(kind: &Kind, old: &Value, new: &mut Value, who: Who<'_>, now: &str) {
    if who.manager == NOBODY {
        return;
    }
    let (before, after) = (owned_fields(old, who.scope), owned_fields(new, who.scope));
    let changed: BTreeSet<Path> = after
        .iter()
        .filter(|path| {
            if is_membership(path) {
                !before.contains(*path)
            } else {
                fields::at(old, path) != fields::at(new, path)
            }
        })
        .cloned()
        .collect();
    let gone: BTreeSet<Path> = before.difference(&after).cloned().collect();
    if changed.is_empty() && gone.is_empty() {
        return;
    }
    let subresource = if who.scope == Scope::Status { "status" } else { "" };
    let is_mine = |entry: &Entry| {
        entry.manager == who.manager && entry.operation == "Update" && entry.subresource == subresource
    };
    let mut entries = read(new);
    for entry in &mut entries {
        let is_mine = is_mine(entry);
        entry.fields.retain(|path| !gone.contains(path) && (is_mine || !changed.contains(path)));
    }
    if !changed.is_empty() {
        match entries.iter_mut().find(|entry| is_mine(entry)) {
            Some(entry) => {
                entry.fields.extend(changed);
                now.clone_into(&mut entry.time);
            }
            None => entries.push(Entry {
                manager: who.manager.to_owned(),
                operation: "Update".to_owned(),
                subresource: subresource.to_owned(),
                time: now.to_owned(),
                fields: changed,
            }),
        }
    }
    store(kind, new, entries);
}

/// A list item's own entry, which says that it is there, not what it holds.
fn is_membership(path: &Path) -> bool {
    path.last().is_some_and(|step| !step.starts_with("f:"))
}

fn owned_fields(object: &Value, scope: Scope) -> BTreeSet<Path> {
    let mut out = BTreeSet::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        let counts = match scope {
            Scope::Main => !matches!(name.as_str(), "apiVersion" | "kind" | "status"),
            Scope::Status => name == "status",
            Scope::Administrator => !matches!(name.as_str(), "apiVersion" | "kind"),
        };
        if !counts {
            continue;
        }
        let mut path = vec![format!("f:{name}")];
        if name == "metadata" {
            for (name, value) in value.as_object().into_iter().flatten() {
                if !UNOWNED.contains(&name.as_str()) {
                    path.push(format!("f:{name}"));
                    fields::leaves(value, &mut path, &mut out);
                    path.pop();
                }
            }
        } else {
            fields::leaves(value, &mut path, &mut out);
        }
    }
    out
}

fn read(object: &Value) -> Vec<Entry> {
    let text = |entry: &Value, field: &str| entry[field].as_str().unwrap_or("").to_owned();
    object::list(&object["metadata"]["managedFields"])
        .iter()
        .map(|entry| Entry {
            manager: text(entry, "manager"),
            operation: text(entry, "operation"),
            subresource: text(entry, "subresource"),
            time: text(entry, "time"),
            fields: fields::from_json(&entry["fieldsV1"]),
        })
        .collect()
}

fn store(kind: &Kind, object: &mut Value, entries: Vec<Entry>) {
    let written: Vec<Value> = entries
        .into_iter()
        .filter(|entry| !entry.fields.is_empty())
        .map(|entry| {
            let mut written = json!({
                "manager": entry.manager, "operation": entry.operation, "apiVersion": kind.api_version(),
                "time": entry.time, "fieldsType": "FieldsV1", "fieldsV1": fields::to_json(&entry.fields),
            });
            if !entry.subresource.is_empty() {
                written["subresource"] = entry.subresource.into();
            }
            written
        })
        .collect();
    object["metadata"]["managedFields"] = written.into();
}
