//! What has lost its owner, or its namespace, goes.
use crate::kinds::{self, KINDS};
use crate::life::Turn;
use crate::store::{Key, Store, object};
use serde_json::Value;

/// Deletes an object none of whose owners exists.
pub(super) fn orphan(turn: &mut Turn<'_>, key: &Key) {
    let Some(found) = turn.store.at(key).cloned() else { return };
    let owners = object::list(&found["metadata"]["ownerReferences"]);
    if owners.is_empty() || owners.iter().any(|owner| exists(turn.store, &key.namespace, owner)) {
        return;
    }
    if let Some(kind) = kinds::called(key.plural) {
        crate::api::end(turn.store, kind, key, None);
    }
}

/// Empties a namespace that is being deleted, and takes it away at the end.
pub(super) fn namespace(turn: &mut Turn<'_>, name: &str) {
    let key = Key::new("namespaces", "", name);
    if !turn.store.at(&key).is_some_and(|found| object::is_terminating(found)) {
        return;
    }
    let mut is_empty = true;
    for kind in KINDS.iter().filter(|kind| kind.namespaced) {
        let keys: Vec<Key> = turn.store.all(kind.plural, Some(name)).map(|(key, _)| key.clone()).collect();
        for key in keys {
            is_empty &= crate::api::end(turn.store, kind, &key, None).is_none();
        }
    }
    if is_empty {
        turn.store.remove(&key);
    }
}

/// Whether an owner is there; one of a kind that is not served counts as there.
fn exists(store: &Store, namespace: &str, owner: &Value) -> bool {
    let text = |field: &str| owner[field].as_str().unwrap_or("");
    let Some(kind) = kinds::named(text("apiVersion"), text("kind")) else { return true };
    let namespace = if kind.namespaced { namespace } else { "" };
    store.find(kind.plural, namespace, text("name")).is_some_and(|found| object::uid(found) == text("uid"))
}
