//! The pieces of a proxy's hook that KubeNap puts in place itself: applied without force, and taken back.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};
use kubenap_core::app::{AppId, key};
use kubenap_core::proxy::Piece;
pub use kubenap_core::seen::PIECE_KINDS as KINDS;
use kubenap_core::seen::{PieceId, Record};
use serde_json::{Value, json};

use crate::cluster::{Cluster, ClusterError, pieces};

/// Who puts hooks in place, as `managedFields` names it.
pub const MANAGER: &str = "kubenap-proxies";

/// How many objects are asked for at a time.
const PAGE: u32 = 500;

/// A piece as it is applied: what is rendered, and on a whole object whose it is. None: it is of no kind that KubeNap
/// puts in place.
pub fn marked(app: &AppId, piece: &Piece) -> Option<Value> {
    let (object, whole) = match piece {
        Piece::Object(object) => (object, true),
        Piece::Fields(fields) => (fields, false),
        Piece::Text { .. } => return None,
    };
    let known =
        KINDS.iter().any(|(kind, version)| object["kind"] == *kind && object["apiVersion"] == *version);
    let mut object = Some(object.clone()).filter(|_| known)?;
    if whole {
        object["metadata"]["labels"][key::HOOK_MARK] = "true".into();
        object["metadata"]["annotations"][key::HOOK_APP] = app.to_string().into();
    }
    Some(object)
}

/// Applies a piece, or asks what would come of it. Never by force: a field that somebody else wants otherwise is a
/// conflict.
pub async fn apply(cluster: &Cluster, object: &Value, dry_run: bool) -> Result<Value, ClusterError> {
    let (api, name) = pieces::api_of(cluster, object);
    let params = PatchParams { dry_run, ..PatchParams::apply(MANAGER) };
    let applied = cluster.call(api.patch(&name, &params, &Patch::Apply(object))).await?;
    Ok(pieces::written(&applied, &object["kind"], &object["apiVersion"]).unwrap_or_default())
}

/// Takes a piece back: an object that was made for the app is deleted if nobody else has a part in it, and of any other
/// KubeNap's own fields are given up. What is gone already, or was made for another app, is left alone.
pub async fn take_back(cluster: &Cluster, app: &AppId, piece: &PieceId) -> Result<(), ClusterError> {
    let id = json!({ "apiVersion": piece.api_version, "kind": piece.kind,
        "metadata": { "name": piece.name, "namespace": piece.namespace } });
    let there = match pieces::seek(cluster, &id).await {
        Ok(Some(there)) => there,
        Ok(None) | Err(ClusterError::Gone(_)) => return Ok(()),
        Err(error) => return Err(error),
    };
    let ours = match made_for(&there) {
        Some(other) => other == app.to_string(),
        // The record is an annotation, which others can write: it leads to nobody else's namespace.
        None => piece.namespace == app.namespace,
    };
    if !ours || !is_held(&there) {
        return Ok(());
    }
    let (api, name) = pieces::api_of(cluster, &id);
    let text = |field: &str| there["metadata"][field].as_str().map(str::to_owned);
    let (uid, resource_version) = (text("uid"), text("resourceVersion"));
    let done = if made_for(&there).is_some() && is_nobody_elses(&there) {
        let only = Preconditions { uid, resource_version };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        cluster.call(api.delete(&name, &params)).await.map(drop)
    } else {
        // With its uid: what is gone by now must not come back as an object without content.
        let mut nothing = id;
        nothing["metadata"]["uid"] = json!(uid);
        nothing["metadata"]["resourceVersion"] = json!(resource_version);
        cluster.call(api.patch(&name, &PatchParams::apply(MANAGER), &Patch::Apply(nothing))).await.map(drop)
    };
    match done {
        Err(ClusterError::Gone(_)) => Ok(()),
        done => done,
    }
}

/// KubeNap has put it in place, or has a part in it.
pub fn is_held(object: &Value) -> bool {
    entries(object).any(|entry| entry["manager"] == MANAGER)
}

/// The app that it was made for, if KubeNap made it.
fn made_for(object: &Value) -> Option<&str> {
    let metadata = &object["metadata"];
    metadata["annotations"][key::HOOK_APP].as_str().filter(|_| metadata["labels"][key::HOOK_MARK] == "true")
}

/// Nobody else wants anything of its content. What a controller says of it in its status, or somebody in a label, is not
/// that.
fn is_nobody_elses(object: &Value) -> bool {
    let content = |entry: &Value| {
        let fields = entry["fieldsV1"].as_object();
        fields.is_some_and(|fields| fields.keys().any(|name| name != "f:metadata" && name != "f:status"))
    };
    !entries(object).any(|entry| entry["manager"] != MANAGER && content(entry))
}

fn entries(object: &Value) -> impl Iterator<Item = &Value> {
    object["metadata"]["managedFields"].as_array().into_iter().flatten()
}

/// What the API server says against a piece whatever is tried, for people; none: it may pass by itself.
pub fn refusal(object: &Value, error: &ClusterError) -> Option<String> {
    let said = match error {
        ClusterError::Conflict(kube::Error::Api(status)) => {
            let causes = status.details.as_ref().map(|details| details.causes.as_slice()).unwrap_or_default();
            let conflict = causes.iter().find(|cause| cause.reason == "FieldManagerConflict")?;
            format!("{} about {}", conflict.message, conflict.field)
        }
        ClusterError::Gone(_) => "its kind, or its namespace, does not exist here".to_owned(),
        error => error.refusal()?,
    };
    let PieceId { kind, namespace, name, .. } = PieceId::of(object);
    Some(format!("{kind} {namespace}/{name}: {said}"))
}

/// Whose pieces a sweep leaves where they are, though nobody has them written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// Those of apps that are there: who leads writes them down again, and they may sleep behind them.
    Living,
    /// Nobody's: every app was woken, and none naps again.
    Nobody,
}

/// Takes back what was put in place for apps of these namespaces, or if none is named of all, and that is not written down.
/// Some of it may lie in `wake`, where the proxy listeners' Service is. How many pieces.
pub async fn sweep(
    cluster: &Cluster,
    namespaces: &[String],
    wake: &str,
    spare: Spared,
) -> Result<usize, ClusterError> {
    let homes: BTreeSet<&str> = match namespaces {
        [] => BTreeSet::from([""]),
        some => some.iter().map(String::as_str).collect(),
    };
    let mut spaces = homes.clone();
    if !namespaces.is_empty() {
        spaces.insert(wake);
    }
    // Pieces before Deployments: whoever puts one in place has written it down before.
    let mut held = Vec::new();
    for (kind, version) in KINDS {
        for space in &spaces {
            held.extend(of_kind(cluster, kind, version, space).await?);
        }
    }
    if held.is_empty() {
        return Ok(0);
    }
    let (mut recorded, mut living) = (BTreeSet::new(), BTreeSet::new());
    for space in &homes {
        let api: Api<Deployment> = pieces::typed(cluster, space);
        for metadata in marks(cluster, api).await? {
            recorded.extend(Record::read(metadata.annotations()).hook_pieces.0);
            if spare == Spared::Living {
                living.insert(AppId::new(metadata.namespace().unwrap_or_default(), metadata.name_any()));
            }
        }
    }
    held.retain(|(_, piece)| !recorded.contains(piece));
    // What is no object of KubeNap's own does not say whose it is.
    let alive = |app: &Option<AppId>| app.clone().filter(|app| living.contains(app));
    let spared: BTreeSet<_> =
        held.iter().filter_map(|(app, _)| alive(app)).map(|app| app.namespace.clone()).collect();
    let mut swept = 0;
    for (app, piece) in held {
        // Of namespaces that were not read nobody knows who lives there.
        let known = |space: &str| namespaces.is_empty() || namespaces.iter().any(|known| known == space);
        let app = match app {
            Some(app) if known(&app.namespace) && !living.contains(&app) => app,
            None if known(&piece.namespace) && !spared.contains(&piece.namespace) => {
                AppId::new(&piece.namespace, "")
            }
            Some(_) | None => continue,
        };
        take_back(cluster, &app, &piece).await?;
        swept += 1;
    }
    Ok(swept)
}

/// The pieces of one kind, each with the app that it was made for, if it was made. What may not be listed has none.
async fn of_kind(
    cluster: &Cluster,
    kind: &str,
    version: &str,
    space: &str,
) -> Result<Vec<(Option<AppId>, PieceId)>, ClusterError> {
    let api = pieces::dynamic(cluster, kind, version, space);
    let listed = match marks(cluster, api).await {
        Err(ClusterError::Gone(_) | ClusterError::Forbidden(_)) => return Ok(Vec::new()),
        listed => listed?,
    };
    let piece = |metadata: PartialObjectMeta<DynamicObject>| {
        let object = pieces::written(&metadata, &kind.into(), &version.into())?;
        let app = made_for(&object).and_then(|app| app.parse().ok());
        is_held(&object).then_some((app, PieceId::of(&object)))
    };
    Ok(listed.into_iter().filter_map(piece).collect())
}

/// Names and marks of a whole list, in pages.
async fn marks<K>(cluster: &Cluster, api: Api<K>) -> Result<Vec<PartialObjectMeta<K>>, ClusterError>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let mut params = ListParams::default().limit(PAGE);
    let mut all = Vec::new();
    loop {
        let found = cluster.call(api.list_metadata(&params)).await?;
        all.extend(found.items);
        match found.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(all),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(managed: &Value) -> Value {
        json!({ "metadata": { "name": "kubenap-web", "labels": { "kubenap/managed": "true" },
            "annotations": { "kubenap/app": "shop/web" }, "managedFields": managed } })
    }

    #[test]
    fn an_object_is_nobody_elses_while_others_say_nothing_of_its_content() {
        let ours = json!({ "manager": MANAGER, "fieldsV1": { "f:spec": {} } });
        for (other, alone) in [
            (json!({ "manager": "traefik", "subresource": "status", "fieldsV1": { "f:status": {} } }), true),
            (json!({ "manager": "kubectl-label", "fieldsV1": { "f:metadata": {} } }), true),
            (json!({ "manager": "argocd", "fieldsV1": { "f:metadata": {}, "f:spec": {} } }), false),
            (json!({ "manager": "argocd", "fieldsV1": { "f:endpoints": {} } }), false),
        ] {
            let object = object(&json!([ours, other]));
            assert!(is_held(&object));
            assert_eq!(is_nobody_elses(&object), alone, "{other}");
        }
        assert!(!is_held(&object(&json!([{ "manager": "kubectl", "fieldsV1": {} }]))));
    }

    #[test]
    fn only_whole_objects_of_known_kinds_carry_the_mark() {
        let app = AppId::new("shop", "web");
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "kubenap-web" } });
        let whole = marked(&app, &Piece::Object(service.clone())).unwrap();
        assert_eq!(made_for(&whole), Some("shop/web"));
        assert_eq!(marked(&app, &Piece::Fields(service.clone())), Some(service));
        let filter = json!({ "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter" });
        assert_eq!(marked(&app, &Piece::Object(filter)), None);
    }
}
