//! From what a client sent to what is stored: defaults, validation, and the fields that only the server sets.
use crate::api::errors::{ApiError, Cause};
use crate::kinds::Kind;
use crate::patch::apply;
use crate::store::{Key, Store, object};
use crate::{defaults, typed, validate};
use serde_json::{Value, json};
use std::sync::Arc;

/// On whose behalf something is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    pub(crate) manager: &'a str,
    pub(crate) scope: Scope,
    /// Unknown fields are an error instead of being left out.
    pub(crate) strict: bool,
}

/// What a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All but the status.
    Main,
    /// The status only.
    Status,
    /// Everything: the sandbox's owner writes.
    Administrator,
}

/// Stores a new object, which is in the stored form (see `events`).
pub(crate) fn create(
    store: &mut Store,
    kind: &'static Kind,
    namespace: &str,
    new: Value,
    who: Who<'_>,
) -> Result<Arc<Value>, ApiError> {
    let mut new = parsed(kind, new, who)?;
    placed(kind, namespace, &mut new)?;
    if object::name(&new).is_empty() {
        let prefix = new["metadata"]["generateName"].as_str().unwrap_or("").to_owned();
        if prefix.is_empty() {
            let cause = Cause::required("metadata.name", "name or generateName is required");
            return Err(ApiError::invalid(kind, "", &[cause]));
        }
        new["metadata"]["name"] = format!("{prefix}{}", store.random.tail()).into();
    }
    let key = Key::new(kind.plural, namespace, object::name(&new));
    if kind.namespaced {
        check_namespace(store, kind, &key)?;
    }
    if store.at(&key).is_some() {
        return Err(ApiError::already_exists(kind, &key.name));
    }
    if who.scope != Scope::Administrator {
        if !object::version(&new).is_empty() {
            return Err(ApiError::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if kind.status {
            new.as_object_mut().map(|fields| fields.remove("status"));
        }
    }
    let now = store.clock.stamp();
    let uid = store.random.uid();
    let Some(metadata) = new["metadata"].as_object_mut() else {
        return Err(ApiError::bad_request("metadata is missing"));
    };
    for left_out in
        ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion", "generation"]
    {
        metadata.remove(left_out);
    }
    metadata.insert("uid".to_owned(), uid.into());
    metadata.insert("creationTimestamp".to_owned(), now.clone().into());
    if kind.has_generation() {
        metadata.insert("generation".to_owned(), 1.into());
    }
    defaults::fill(kind, &mut new);
    defaults::begin(kind, &mut new, store)?;
    let causes = validate::check(kind, &new, None);
    if !causes.is_empty() {
        return Err(ApiError::invalid(kind, &key.name, &causes));
    }
    apply::record(kind, &json!({}), &mut new, who, &now);
    Ok(store.put(key, new))
}

/// Stores a changed object over the one that is there.
pub(crate) fn replace(
    store: &mut Store,
    kind: &'static Kind,
    old: &Value,
    new: Value,
    who: Who<'_>,
) -> Result<Arc<Value>, ApiError> {
    let name = object::name(old);
    let namespace = old["metadata"]["namespace"].as_str().unwrap_or("");
    let mut new = parsed(kind, new, who)?;
    placed(kind, namespace, &mut new)?;
    if object::name(&new) != name {
        let sent = object::name(&new);
        return Err(ApiError::bad_request(format!(
            "the name of the object ({sent}) does not match the name on the URL ({name})"
        )));
    }
    let uid = object::uid(&new);
    if !uid.is_empty() && uid != object::uid(old) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(ApiError::conflict(kind, name, &why));
    }
    let version = object::version(&new);
    if !version.is_empty() && version != object::version(old) {
        return Err(ApiError::stale(kind, name));
    }
    match who.scope {
        Scope::Main if kind.status => carry(&mut new, old, "status"),
        Scope::Status => {
            let mut kept = old.clone();
            kept["status"] = new["status"].take();
            // The real API server lets annotations through here; the Deployment controller relies on it.
            if kind.plural == "deployments" {
                carry(&mut kept["metadata"], &new["metadata"], "annotations");
            }
            new = kept;
        }
        Scope::Main | Scope::Administrator => {}
    }
    for kept in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"]
    {
        carry(&mut new["metadata"], &old["metadata"], kept);
    }
    if new["metadata"].get("managedFields").is_none() {
        carry(&mut new["metadata"], &old["metadata"], "managedFields");
    }
    defaults::fill(kind, &mut new);
    defaults::keep(kind, &mut new, old);
    let causes = validate::check(kind, &new, Some(old));
    if !causes.is_empty() {
        return Err(ApiError::invalid(kind, name, &causes));
    }
    count_generation(kind, old, &mut new);
    let now = store.clock.stamp();
    apply::record(kind, old, &mut new, who, &now);
    let key = Key::new(kind.plural, namespace, name);
    if object::is_terminating(&new)
        && object::list(&new["metadata"]["finalizers"]).is_empty()
        && kind.plural != "pods"
        && kind.plural != "namespaces"
    {
        let last = store.put(key.clone(), new);
        return Ok(store.remove(&key).unwrap_or(last));
    }
    Ok(store.put(key, new))
}

/// Counts the generation up when what an object asks for has changed.
pub(crate) fn count_generation(kind: &Kind, old: &Value, new: &mut Value) {
    let differs =
        |field: &str| old.get(field).unwrap_or(&Value::Null) != new.get(field).unwrap_or(&Value::Null);
    let changed = match kind.plural {
        // The real API server counts a changed annotation of a Deployment as well.
        "deployments" => differs("spec") || old["metadata"]["annotations"] != new["metadata"]["annotations"],
        "endpointslices" => {
            differs("endpoints") || differs("ports") || old["metadata"]["labels"] != new["metadata"]["labels"]
        }
        _ => differs("spec"),
    };
    if kind.has_generation() && changed {
        new["metadata"]["generation"] = (old["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
    }
}

/// The object in its typed form, without the fields that its type does not have.
fn parsed(kind: &Kind, new: Value, who: Who<'_>) -> Result<Value, ApiError> {
    let Value::Object(mut fields) = new else {
        return Err(ApiError::bad_request(format!("a {} is expected", kind.name)));
    };
    let stored_version = if kind.plural == "events" { "v1".to_owned() } else { kind.api_version() };
    for (field, right) in [("apiVersion", stored_version.as_str()), ("kind", kind.name)] {
        let sent = fields.entry(field).or_insert_with(|| right.into());
        if sent != right {
            return Err(ApiError::bad_request(format!("{field} is {sent}, where {right:?} is expected")));
        }
    }
    let (object, lost) = typed::normal(kind, &Value::Object(fields)).map_err(|why| {
        ApiError::bad_request(format!("{} in version {:?} cannot be handled: {why}", kind.name, kind.version))
    })?;
    if let Some(field) = lost.first().filter(|_| who.strict) {
        return Err(ApiError::bad_request(format!("strict decoding error: unknown field {field:?}")));
    }
    Ok(object)
}

/// The namespace of the body is that of the path.
fn placed(kind: &Kind, namespace: &str, new: &mut Value) -> Result<(), ApiError> {
    let sent = new["metadata"]["namespace"].as_str().unwrap_or("");
    if !kind.namespaced {
        return Ok(());
    }
    if !sent.is_empty() && sent != namespace {
        return Err(ApiError::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({sent}, {namespace})"
        )));
    }
    new["metadata"]["namespace"] = namespace.into();
    Ok(())
}

fn check_namespace(store: &Store, kind: &Kind, key: &Key) -> Result<(), ApiError> {
    let Some(namespaces) = crate::kinds::called("Namespace") else { return Ok(()) };
    match store.find(namespaces.plural, "", &key.namespace) {
        None => Err(ApiError::not_found(namespaces, &key.namespace)),
        Some(found) if object::is_terminating(found) => {
            let why = format!(
                "unable to create new content in namespace {} because it is being terminated",
                key.namespace
            );
            Err(ApiError::forbidden(kind, &key.name, &why))
        }
        Some(_) => Ok(()),
    }
}

fn carry(new: &mut Value, old: &Value, field: &str) {
    match old.get(field) {
        Some(value) => new[field] = value.clone(),
        None => {
            new.as_object_mut().map(|fields| fields.remove(field));
        }
    }
}
