//! Health, version, and the lists of what is served: the least that clients need.
use crate::api::errors::ApiError;
use crate::kinds::{KINDS, Kind};
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(super) fn answer(path: &str) -> Response {
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
        ["apis"] => {
            let groups: Vec<_> = groups().into_iter().map(|(name, version)| group(name, version)).collect();
            Json(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })).into_response()
        }
        ["apis", wanted] => match groups().into_iter().find(|(name, _)| name == wanted) {
            Some((name, version)) => {
                let mut group = group(name, version);
                group["kind"] = "APIGroup".into();
                group["apiVersion"] = "v1".into();
                Json(group).into_response()
            }
            None => unknown(path),
        },
        ["api", "v1"] => resources("", "v1"),
        ["apis", name, version] if groups().contains(&(name, version)) => resources(name, version),
        _ => unknown(path),
    }
}

/// A real API server has many more paths; to say that they do not exist would be a lie.
fn unknown(path: &str) -> Response {
    match path.split('/').find(|step| !step.is_empty()) {
        Some("api" | "apis" | "openapi" | "metrics" | "logs" | "debug") => {
            ApiError::not_implemented(path).into_response()
        }
        _ => ApiError::no_path().into_response(),
    }
}

fn groups() -> BTreeSet<(&'static str, &'static str)> {
    let served = KINDS.iter().filter(|kind| !kind.group.is_empty()).map(|kind| (kind.group, kind.version));
    served.chain([("authorization.k8s.io", "v1")]).collect()
}

fn group(name: &str, version: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/{version}"), "version": version });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn resources(group: &str, version: &str) -> Response {
    let mut listed: Vec<Value> = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.group == group) {
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
