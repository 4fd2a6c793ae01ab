//! The pieces of a proxy's hook that KubeNap puts in place itself: applied without force, and taken back.

use std::collections::BTreeSet;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, ResourceExt as _};
use kubenap_core::app::{AppId, key};
use kubenap_core::proxy::Piece;
pub use kubenap_core::seen::PIECE_KINDS as KINDS;
use kubenap_core::seen::{PieceId, Record};
use kubenap_core::step::HEARD_OF;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::cluster::{Cluster, ClusterError, pieces};

/// What begins the name of whoever puts hooks in place, as `managedFields` has it: there is one for each app, so that
/// none holds, or takes back, what is another's.
pub const MANAGERS: &str = "kubenap-proxies-";

/// How many objects are asked for at a time.
const PAGE: u32 = 500;

/// Who puts the hook of this app in place.
pub fn manager(app: &AppId) -> String {
    format!("{MANAGERS}{}", app.digest())
}

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
pub async fn apply(
    cluster: &Cluster,
    app: &AppId,
    object: &Value,
    dry_run: bool,
) -> Result<Value, ClusterError> {
    let (api, name) = pieces::api_of(cluster, object);
    let params = PatchParams { dry_run, ..PatchParams::apply(&manager(app)) };
    let applied = cluster.call(api.patch(&name, &params, &Patch::Apply(object))).await?;
    Ok(pieces::written(&applied, &object["kind"], &object["apiVersion"]).unwrap_or_default())
}

/// Takes a piece back: an object that was made for the app is deleted if nobody else has a part in it, and of any other
/// the fields that KubeNap holds for this app are given up. What is gone already, was made for another app, or may be of a
/// later nap than `epoch`, is left alone.
pub async fn take_back(
    cluster: &Cluster,
    app: &AppId,
    epoch: u64,
    piece: &PieceId,
) -> Result<(), ClusterError> {
    let Some(there) = found(cluster, piece).await? else { return Ok(()) };
    let ours = match made_for(&there) {
        Some(other) => other == app.to_string(),
        // The record is an annotation, which others can write: it leads to nobody else's namespace.
        None => piece.namespace == app.namespace,
    };
    // Asked after the piece was read: a later nap puts pieces in place after it has begun, so what was read is of none.
    if !ours || has_napped_since(cluster, app, epoch).await? {
        return Ok(());
    }
    let_go(cluster, &manager(app), piece, &there).await
}

async fn found(cluster: &Cluster, piece: &PieceId) -> Result<Option<Value>, ClusterError> {
    match pieces::seek(cluster, &id_of(piece)).await {
        Err(ClusterError::Gone(_)) => Ok(None),
        found => found,
    }
}

fn id_of(piece: &PieceId) -> Value {
    json!({ "apiVersion": piece.api_version, "kind": piece.kind,
        "metadata": { "name": piece.name, "namespace": piece.namespace } })
}

/// Whether a later nap of the app has begun.
async fn has_napped_since(cluster: &Cluster, app: &AppId, epoch: u64) -> Result<bool, ClusterError> {
    let api: Api<Deployment> = Api::namespaced(cluster.client(), &app.namespace);
    let deployment = cluster.call(api.get_opt(&app.name)).await?;
    Ok(deployment.is_some_and(|deployment| Record::read(deployment.annotations()).epoch > epoch))
}

/// Takes this manager's part in an object away, as long as it is as it was read.
async fn let_go(
    cluster: &Cluster,
    manager: &str,
    piece: &PieceId,
    there: &Value,
) -> Result<(), ClusterError> {
    if !holders(there).any(|holder| holder == manager) {
        return Ok(());
    }
    let id = id_of(piece);
    let (api, name) = pieces::api_of(cluster, &id);
    let text = |field: &str| there["metadata"][field].as_str().map(str::to_owned);
    let (uid, resource_version) = (text("uid"), text("resourceVersion"));
    let done = if made_for(there).is_some() && is_nobody_elses(there, manager) {
        let only = Preconditions { uid, resource_version };
        let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
        cluster.call(api.delete(&name, &params)).await.map(drop)
    } else {
        // With its uid: what is gone by now must not come back as an object without content.
        let mut nothing = id;
        nothing["metadata"]["uid"] = json!(uid);
        nothing["metadata"]["resourceVersion"] = json!(resource_version);
        cluster.call(api.patch(&name, &PatchParams::apply(manager), &Patch::Apply(nothing))).await.map(drop)
    };
    match done {
        Err(ClusterError::Gone(_)) => Ok(()),
        done => done,
    }
}

/// KubeNap has put it in place for this app, or has a part in it for it.
pub fn is_held(object: &Value, app: &AppId) -> bool {
    let own = manager(app);
    holders(object).any(|holder| holder == own)
}

/// For which apps KubeNap has a part in it, as the names of their managers.
fn holders(object: &Value) -> impl Iterator<Item = &str> {
    entries(object)
        .filter_map(|entry| entry["manager"].as_str())
        .filter(|manager| manager.starts_with(MANAGERS))
}

/// The app that it was made for, if KubeNap made it.
fn made_for(object: &Value) -> Option<&str> {
    let metadata = &object["metadata"];
    metadata["annotations"][key::HOOK_APP].as_str().filter(|_| metadata["labels"][key::HOOK_MARK] == "true")
}

/// Nobody else wants anything of its content. What a controller says of it in its status, or somebody in a label, is not
/// that.
fn is_nobody_elses(object: &Value, manager: &str) -> bool {
    let content = |entry: &Value| {
        let fields = entry["fieldsV1"].as_object();
        fields.is_some_and(|fields| fields.keys().any(|name| name != "f:metadata" && name != "f:status"))
    };
    !entries(object).any(|entry| entry["manager"] != manager && content(entry))
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
/// Some of it may lie in `wake`, where the proxy listeners' Service is. How many pieces. What may not be taken back is left
/// where it is, with all that it leads to, and told.
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
    // Of namespaces that were not read nobody knows who lives there.
    held.retain(|held| namespaces.is_empty() || namespaces.contains(&held.home));
    if held.is_empty() {
        return Ok(0);
    }
    let (mut recorded, mut living) = (BTreeSet::new(), BTreeSet::new());
    for space in &homes {
        let api: Api<Deployment> = pieces::typed(cluster, space);
        for metadata in marks(cluster, api).await? {
            let manager = manager(&AppId::new(metadata.namespace().unwrap_or_default(), metadata.name_any()));
            let pieces = Record::read(metadata.annotations()).hook_pieces.0;
            recorded.extend(pieces.into_iter().map(|piece| (manager.clone(), piece)));
            if spare == Spared::Living {
                living.insert(manager);
            }
        }
    }
    held.retain(|held| {
        !living.contains(&held.manager) && !recorded.contains(&(held.manager.clone(), held.piece.clone()))
    });
    // What leads to whole objects before them, and of an app that is there not before its proxy has heard of it.
    held.sort_by_key(|held| held.piece.is_whole());
    let leads = held.iter().any(|held| !held.piece.is_whole());
    let (mut swept, mut waits) = (0, spare == Spared::Nobody && leads);
    let mut stuck = BTreeSet::new();
    for Held { manager, piece, .. } in &held {
        if piece.is_whole() && stuck.contains(manager) {
            tracing::warn!(%piece, "a piece of a proxy's hook is left where it is, since something still leads to it");
            continue;
        }
        if piece.is_whole() && std::mem::take(&mut waits) {
            sleep(HEARD_OF).await;
        }
        let done = match found(cluster, piece).await {
            Ok(Some(there)) => let_go(cluster, manager, piece, &there).await,
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => swept += 1,
            Err(error @ ClusterError::Forbidden(_)) => {
                tracing::warn!(%piece, error = error.chain(), "a piece of a proxy's hook is left where it is");
                stuck.insert(manager);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(swept)
}

/// A piece that is there for an app.
struct Held {
    /// The app, as the manager of its fields.
    manager: String,
    /// The app's namespace.
    home: String,
    piece: PieceId,
}

/// The pieces of one kind. What may not be listed has none.
async fn of_kind(
    cluster: &Cluster,
    kind: &str,
    version: &str,
    space: &str,
) -> Result<Vec<Held>, ClusterError> {
    let api = pieces::dynamic(cluster, kind, version, space);
    let listed = match marks(cluster, api).await {
        Err(ClusterError::Gone(_) | ClusterError::Forbidden(_)) => return Ok(Vec::new()),
        listed => listed?,
    };
    let mut all = Vec::new();
    for metadata in listed {
        let Some(object) = pieces::written(&metadata, &kind.into(), &version.into()) else { continue };
        let piece = PieceId::of(&object);
        let app = made_for(&object).and_then(|app| app.parse::<AppId>().ok());
        let home = app.map_or(piece.namespace.clone(), |app| app.namespace.clone());
        let held =
            |manager: &str| Held { manager: manager.to_owned(), home: home.clone(), piece: piece.clone() };
        all.extend(holders(&object).collect::<BTreeSet<_>>().into_iter().map(held));
    }
    Ok(all)
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
        let (app, other) = (AppId::new("shop", "web"), AppId::new("shop", "api"));
        let own = manager(&app);
        let ours = json!({ "manager": own, "fieldsV1": { "f:spec": {} } });
        for (theirs, alone) in [
            (json!({ "manager": "traefik", "subresource": "status", "fieldsV1": { "f:status": {} } }), true),
            (json!({ "manager": "kubectl-label", "fieldsV1": { "f:metadata": {} } }), true),
            (json!({ "manager": "argocd", "fieldsV1": { "f:metadata": {}, "f:spec": {} } }), false),
            (json!({ "manager": "argocd", "fieldsV1": { "f:endpoints": {} } }), false),
            (json!({ "manager": manager(&other), "fieldsV1": { "f:spec": {} } }), false),
        ] {
            let object = object(&json!([ours, theirs]));
            assert!(is_held(&object, &app));
            assert_eq!(is_nobody_elses(&object, &own), alone, "{theirs}");
        }
        assert!(!is_held(&object(&json!([ours])), &other), "each app has a manager of its own");
        assert!(!is_held(&object(&json!([{ "manager": "kubectl", "fieldsV1": {} }])), &app));
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
