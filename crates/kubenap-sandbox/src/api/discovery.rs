//! Health, version, and the lists of what is served: the least that clients need.
use crate::api::errors::ApiError;
use crate::kinds::{KINDS, Kind};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// With `no_groups` the list of groups is empty.
pub(super) fn answer(path: &str, no_groups: bool) -> Response {
    let steps: Vec<_> = path.split('/').filter(|step| !step.is_empty()).collect();
    match steps.as_slice() {
        ["readyz" | "livez" | "healthz"] => "ok".into_response(),
        ["version"] => Json(json!({
            "major": "1", "minor": "34", "gitVersion": "v1.34.0+sandbox", "gitCommit": "", "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
        }))
        .into_response(),
        ["api"] => Json(json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }))
            .into_response(),
        ["apis"] if no_groups => {
            Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": [] })).into_response()
        }
        ["apis"] => {
            let groups: Vec<_> = groups().iter().map(|(name, versions)| group(name, versions)).collect();
            Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })).into_response()
        }
        ["apis", wanted] => match groups().get(wanted) {
            Some(versions) => {
                let mut group = group(wanted, versions);
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                Json(group).into_response()
            }
            None => unknown(path),
        },
        ["api", "v1"] => resources("", "v1"),
        ["apis", name, version] if groups().get(name).is_some_and(|served| served.contains(version)) => {
            resources(name, version)
        }
        _ => unknown(path),
    }
}

/// A real API server has many more paths; to say that they do not exist would be a lie, but of groups that people define.
fn unknown(path: &str) -> Response {
    let mut steps = path.split('/').filter(|step| !step.is_empty());
    match steps.next() {
        Some("apis") if steps.next().is_some_and(|group| DEFINED.contains(&group)) => {
            ApiError::no_path().into_response()
        }
        Some("api" | "apis" | "openapi" | "metrics" | "logs" | "debug") => {
            ApiError::not_implemented(path).into_response()
        }
        _ => ApiError::no_path().into_response(),
    }
}

/// The groups of custom resources: what of them is not served is not installed.
const DEFINED: [&str; 3] = ["traefik.io", "gateway.networking.k8s.io", "networking.istio.io"];

/// Every group with its versions.
fn groups() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut groups = BTreeMap::from([("authorization.k8s.io", BTreeSet::from(["v1"]))]);
    for kind in KINDS.iter().filter(|kind| !kind.group.is_empty()) {
        groups.entry(kind.group).or_default().insert(kind.version);
    }
    groups
}

fn group(name: &str, versions: &BTreeSet<&str>) -> Value {
    let version = |version: &&str| json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    let versions: Vec<_> = versions.iter().map(version).collect();
    json!({ "name": name, "versions": versions, "preferredVersion": versions.first() })
}

fn resources(group: &str, version: &str) -> Response {
    let mut listed: Vec<Value> = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.group == group && kind.version == version) {
        let verbs = ["create", "delete", "get", "list", "patch", "update", "watch"];
        listed.push(resource(kind, kind.plural, &verbs));
        if kind.status {
            listed.push(resource(kind, &format!("{}/status", kind.plural), &["get", "patch", "update"]));
        }
        if kind.scale {
            let mut scale = resource(kind, &format!("{}/scale", kind.plural), &["get", "patch", "update"]);
            scale["group"] = "autoscaling".into();
            scale["version"] = "v1".into();
            scale["kind"] = "Scale".into();
            listed.push(scale);
        }
    }
    if group == "authorization.k8s.io" {
        listed.push(json!({
            "name": "selfsubjectaccessreviews", "singularName": "selfsubjectaccessreview", "namespaced": false,
            "kind": "SelfSubjectAccessReview", "verbs": ["create"],
        }));
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": listed,
    }))
    .into_response()
}

fn resource(kind: &Kind, name: &str, verbs: &[&str]) -> Value {
    let short: &[&str] = if kind.short.is_empty() || name.contains('/') { &[] } else { &[kind.short] };
    json!({
        "name": name, "singularName": kind.name.to_lowercase(), "namespaced": kind.namespaced,
        "kind": kind.name, "verbs": verbs, "shortNames": short,
    })
}
