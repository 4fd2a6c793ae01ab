//! Create, update, patch and delete.
use crate::Sandbox;
use crate::api::admit::{self, Scope, Who};
use crate::api::errors::ApiError;
use crate::api::{Call, events, query, scale};
use crate::kinds::{Kind, Put};
use crate::patch;
use crate::store::{Key, Store, object};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use jiff::SignedDuration;
use serde_json::{Value, json};
use std::sync::Arc;

/// Carries a write out; returns the name of the object and the answer.
pub(super) fn write(sandbox: &Sandbox, call: &Call) -> Result<(String, Response), ApiError> {
    let allowed = match call.verb {
        "patch" if call.media == patch::APPLY => query::APPLY,
        "patch" => query::PATCH,
        "delete" => query::DELETE,
        _ => query::WRITE,
    };
    call.query.only(allowed)?;
    let mut store = sandbox.store();
    if call.verb == "delete" {
        return delete(&mut store, call);
    }
    if call.place.subresource == "scale" {
        return Ok((call.place.name.clone(), Json(scale::write(&mut store, call)?).into_response()));
    }
    let is_dry = !call.query.text("dryRun").is_empty();
    if is_dry {
        if call.query.text("dryRun") != "All" {
            return Err(ApiError::bad_request("dryRun: Unsupported value: supported values: \"All\""));
        }
        // What is written there nobody sees.
        let mut scratch =
            store.scratch(&Key::new(call.place.kind.plural, &call.place.namespace, &call.place.name));
        drop(store);
        return Ok(answered(call, apply(&mut scratch, call)?));
    }
    let (created, object) = match call.verb {
        "create" => (true, create(&mut store, call)?),
        "update" => update(&mut store, call)?,
        _ => patched(&mut store, call)?,
    };
    if created && call.verb == "patch" {
        // An API server asks for both rights.
        sandbox.journal().request("create", &call.place.resource());
    }
    Ok(answered(call, (created, object)))
}

fn answered(call: &Call, (created, object): (bool, Arc<Value>)) -> (String, Response) {
    let code = if created { StatusCode::CREATED } else { StatusCode::OK };
    let shown = call.view.object(call.place.kind, &object);
    (object::name(&object).to_owned(), (code, Json(shown)).into_response())
}

impl Call {
    /// The one who writes, for the ownership of fields.
    pub(super) fn who(&self) -> Who<'_> {
        let scope = if self.place.subresource == "status" { Scope::Status } else { Scope::Main };
        Who { manager: &self.client, scope, strict: self.query.text("fieldValidation") == "Strict" }
    }

    pub(super) fn json(&self) -> Result<Value, ApiError> {
        if !matches!(self.media.as_str(), "" | "application/json") {
            return Err(ApiError::unsupported_media(&self.media, "application/json"));
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| ApiError::bad_request(format!("the body is not JSON: {error}")))
    }

    pub(super) fn current(&self, store: &Store) -> Result<Arc<Value>, ApiError> {
        let place = &self.place;
        let found = store.find(place.kind.plural, &place.namespace, &place.name);
        found.cloned().ok_or_else(|| ApiError::not_found(place.kind, &place.name))
    }
}

fn create(store: &mut Store, call: &Call) -> Result<Arc<Value>, ApiError> {
    let sent = events::stored(call.place.kind, call.json()?);
    admit::create(store, call.place.kind, &call.place.namespace, sent, call.who())
}

fn update(store: &mut Store, call: &Call) -> Result<(bool, Arc<Value>), ApiError> {
    let place = &call.place;
    let mut sent = events::stored(place.kind, call.json()?);
    if !sent["metadata"].is_object() {
        return Err(ApiError::bad_request("metadata is missing"));
    }
    if object::name(&sent).is_empty() {
        sent["metadata"]["name"] = place.name.as_str().into();
    }
    match call.current(store) {
        Ok(old) => {
            if place.kind.put == Put::VersionedOrCreate && object::version(&sent).is_empty() {
                let why = "must be specified for an update";
                let cause = crate::api::errors::Cause::invalid("metadata.resourceVersion", 0, why);
                return Err(ApiError::invalid(place.kind, &place.name, &[cause]));
            }
            Ok((false, admit::replace(store, place.kind, &old, sent, call.who())?))
        }
        Err(_) if place.kind.put != Put::Unconditional && place.subresource.is_empty() => {
            Ok((true, admit::create(store, place.kind, &place.namespace, sent, call.who())?))
        }
        Err(error) => Err(error),
    }
}

fn patched(store: &mut Store, call: &Call) -> Result<(bool, Arc<Value>), ApiError> {
    let place = &call.place;
    if call.media == patch::APPLY {
        return apply(store, call);
    }
    let old = call.current(store)?;
    let shown = events::shown(place.kind, Value::clone(&old));
    let new = patch::patched(&call.media, &call.body, shown)?;
    let new = events::stored(place.kind, new);
    Ok((false, admit::replace(store, place.kind, &old, new, call.who())?))
}

fn apply(store: &mut Store, call: &Call) -> Result<(bool, Arc<Value>), ApiError> {
    let place = &call.place;
    if call.query.text("fieldManager").is_empty() {
        return Err(ApiError::bad_request("fieldManager: Required value: is required for apply patch"));
    }
    let wanted = events::stored(place.kind, patch::yaml(&call.body)?);
    let force = call.query.is_true("force");
    let old = call.current(store).ok();
    let base = old.as_deref().cloned().unwrap_or_else(|| {
        let mut metadata = json!({ "name": place.name });
        if place.kind.namespaced {
            metadata["namespace"] = place.namespace.as_str().into();
        }
        json!({ "apiVersion": wanted["apiVersion"], "kind": wanted["kind"], "metadata": metadata })
    });
    let who = call.who();
    let now = store.clock.stamp();
    let new = patch::apply::applied(place.kind, &base, &wanted, who, force, &now)?;
    let applier = Who { manager: patch::apply::NOBODY, ..who };
    match old {
        Some(old) => Ok((false, admit::replace(store, place.kind, &old, new, applier)?)),
        None if !object::uid(&wanted).is_empty() => {
            let uid = object::uid(&wanted);
            let why = format!(
                "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            );
            Err(ApiError::conflict(place.kind, &place.name, &why))
        }
        None if place.subresource.is_empty() => {
            Ok((true, admit::create(store, place.kind, &place.namespace, new, applier)?))
        }
        None => Err(ApiError::not_found(place.kind, &place.name)),
    }
}

fn delete(store: &mut Store, call: &Call) -> Result<(String, Response), ApiError> {
    let place = &call.place;
    let options = if call.body.is_empty() { json!({}) } else { call.json()? };
    let policy = match call.query.text("propagationPolicy") {
        "" => options["propagationPolicy"].as_str().unwrap_or("Background"),
        policy => policy,
    };
    if policy != "Background" || options["orphanDependents"] == true {
        return Err(ApiError::not_implemented(&format!("propagationPolicy {policy}")));
    }
    if !object::list(&options["dryRun"]).is_empty() {
        return Err(ApiError::not_implemented("dryRun"));
    }
    let old = call.current(store)?;
    let wanted = &options["preconditions"];
    if let Some(uid) = wanted["uid"].as_str().filter(|uid| *uid != object::uid(&old)) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(&old)
        );
        return Err(ApiError::conflict(place.kind, &place.name, &why));
    }
    if let Some(version) =
        wanted["resourceVersion"].as_str().filter(|version| *version != object::version(&old))
    {
        let why = format!(
            "Precondition failed: the ResourceVersion in the precondition ({version}) does not match the \
             ResourceVersion in record ({}). The object might have been modified",
            object::version(&old)
        );
        return Err(ApiError::conflict(place.kind, &place.name, &why));
    }
    let grace = call.query.number("gracePeriodSeconds")?.or_else(|| options["gracePeriodSeconds"].as_u64());
    let left = end(store, place.kind, &Key::new(place.kind.plural, &place.namespace, &place.name), grace);
    let response = match left {
        Some(object) => Json(call.view.object(place.kind, &object)).into_response(),
        None => Json(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
            "details": { "name": place.name, "group": place.kind.group, "kind": place.kind.plural, "uid": object::uid(&old) },
        }))
        .into_response(),
    };
    Ok((place.name.clone(), response))
}

/// Deletes an object, or marks it when its end takes time; then what is left is returned.
pub(crate) fn end(
    store: &mut Store,
    kind: &'static Kind,
    key: &Key,
    grace: Option<u64>,
) -> Option<Arc<Value>> {
    let old = store.at(key).cloned()?;
    let is_bound = kind.plural == "pods" && old["spec"]["nodeName"].is_string();
    let grace = if is_bound {
        grace.or_else(|| old["spec"]["terminationGracePeriodSeconds"].as_u64()).unwrap_or(30)
    } else {
        0
    };
    let is_held = !object::list(&old["metadata"]["finalizers"]).is_empty();
    if !is_held && grace == 0 && kind.plural != "namespaces" {
        store.remove(key);
        return None;
    }
    if object::is_terminating(&old) {
        return Some(old);
    }
    let mut new = Value::clone(&old);
    let span = SignedDuration::from_secs(i64::try_from(grace).unwrap_or(i64::MAX));
    let moment = store.clock.now().saturating_add(span).unwrap_or(jiff::Timestamp::MAX);
    new["metadata"]["deletionTimestamp"] = crate::clock::seconds(moment).into();
    new["metadata"]["deletionGracePeriodSeconds"] = grace.into();
    if kind.plural == "namespaces" {
        new["status"]["phase"] = "Terminating".into();
    } else if kind.has_generation() {
        new["metadata"]["generation"] = (old["metadata"]["generation"].as_u64().unwrap_or(0) + 1).into();
    }
    Some(store.put(key.clone(), new))
}
