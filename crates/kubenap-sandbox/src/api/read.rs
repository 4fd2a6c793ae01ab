//! Get and list.
use crate::Sandbox;
use crate::api::Call;
use crate::api::errors::ApiError;
use crate::api::{query, scale};
use crate::select::Selector;
use crate::store::{Key, Store};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn get(sandbox: &Sandbox, call: &Call) -> Result<Response, ApiError> {
    call.query.only(query::READ)?;
    let place = &call.place;
    let store = sandbox.store();
    let object = store
        .find(place.kind.plural, &place.namespace, &place.name)
        .ok_or_else(|| ApiError::not_found(place.kind, &place.name))?;
    let shown = match place.subresource.as_str() {
        "scale" => scale::of(object),
        _ => call.view.object(place.kind, object),
    };
    Ok(Json(shown).into_response())
}

/// What is left of a list to send, as it was at a version.
struct Rest {
    version: u64,
    objects: Vec<(Key, Arc<Value>)>,
}

/// A list; `ago`: it is that many versions old, as far as the history goes back.
pub(super) fn list(sandbox: &Sandbox, call: &Call, ago: u64) -> Result<Response, ApiError> {
    call.query.only(query::LIST)?;
    if call.query.text("resourceVersionMatch") == "Exact" {
        return Err(ApiError::not_implemented("resourceVersionMatch=Exact"));
    }
    let selector = selector(call)?;
    let namespace = Some(call.place.namespace.as_str()).filter(|name| !name.is_empty());
    let plural = call.place.kind.plural;
    let store = sandbox.store();
    if let Some(version) = call.query.number("resourceVersion")?.filter(|version| *version > store.version())
    {
        return Err(ApiError::from_the_future(version, store.version()));
    }
    let limit =
        call.query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let then = store.version().saturating_sub(ago);
    let Rest { version, objects } = match call.query.text("continue") {
        "" if ago > 0 => Rest {
            version: then,
            objects: store
                .snapshot(plural, namespace, then)
                .map_err(|_| ApiError::expired())?
                .into_iter()
                .collect(),
        },
        "" => Rest {
            version: store.version(),
            objects: store
                .all(plural, namespace)
                .map(|(key, object)| (key.clone(), Arc::clone(object)))
                .collect(),
        },
        token => resume(&store, token, plural, namespace)?,
    };
    let mut matching = objects.into_iter().filter(|(_, object)| selector.matches(object));
    let page: Vec<_> = matching.by_ref().take(limit.unwrap_or(usize::MAX)).collect();
    let left = matching.count();
    let mut metadata = json!({ "resourceVersion": version.to_string() });
    if let Some((last, _)) = page.last().filter(|_| left > 0) {
        metadata["continue"] = format!("{version}:{}/{}", last.namespace, last.name).into();
        if selector.is_empty() {
            metadata["remainingItemCount"] = left.into();
        }
    }
    let items: Vec<_> = page.iter().map(|(_, object)| call.view.object(call.place.kind, object)).collect();
    Ok(Json(call.view.list(call.place.kind, &metadata, &items)).into_response())
}

pub(super) fn selector(call: &Call) -> Result<Selector, ApiError> {
    let (labels, fields) = (call.query.text("labelSelector"), call.query.text("fieldSelector"));
    Selector::parse(call.place.kind.plural, labels, fields)
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

/// The rest of a list as it was when its first page was read.
fn resume(
    store: &Store,
    token: &str,
    plural: &'static str,
    namespace: Option<&str>,
) -> Result<Rest, ApiError> {
    let bad = || ApiError::bad_request("continue key is not valid: hint: use it as it was given");
    let (version, last) = token.split_once(':').ok_or_else(bad)?;
    let version: u64 = version.parse().map_err(|_| bad())?;
    let (last_namespace, last_name) = last.split_once('/').ok_or_else(bad)?;
    let last = Key::new(plural, last_namespace, last_name);
    let then = store.snapshot(plural, namespace, version).map_err(|_| ApiError::expired())?;
    Ok(Rest { version, objects: then.into_iter().filter(|(key, _)| *key > last).collect() })
}
