//! What the sandbox does not do it says, with 501, and no input makes it panic.
#![expect(clippy::unwrap_used, reason = "a test that cannot ask has failed")]
use crate::world::{deployment, without_sockets};
use axum::body::Body;
use http::{Method, Request};
use kubenap_sandbox::Sandbox;
use serde_json::{Value, json};
use tower::ServiceExt;

async fn send(sandbox: &Sandbox, method: Method, path: &str, media: &str, body: &str) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("content-type", media);
    let response =
        sandbox.router().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 22).await.unwrap();
    (status, serde_json::from_slice(&bytes).unwrap_or_default())
}

const WEB: &str = "/apis/apps/v1/namespaces/default/deployments/web";
const ALL: &str = "/apis/apps/v1/namespaces/default/deployments";

#[tokio::test(start_paused = true)]
async fn what_is_not_simulated_is_a_501_with_a_status() {
    let (sandbox, _client) = without_sockets();
    sandbox.put(deployment(0, &json!({}))).unwrap();
    let strategic = "application/strategic-merge-patch+json";
    for (method, path, media) in [
        (Method::GET, "/api/v1/namespaces/default/secrets", ""),
        (Method::GET, "/apis/batch/v1/jobs", ""),
        (Method::GET, "/openapi/v3", ""),
        (Method::DELETE, ALL, ""),
        (Method::DELETE, &format!("{WEB}?propagationPolicy=Foreground"), ""),
        (Method::DELETE, &format!("{WEB}?dryRun=All"), ""),
        (Method::PATCH, &format!("{WEB}?dryRun=All"), "application/merge-patch+json"),
        (Method::PATCH, WEB, strategic),
        (Method::GET, &format!("{ALL}?watch=true&sendInitialEvents=true"), ""),
        (Method::GET, &format!("{ALL}?shardSelector=x"), ""),
        (Method::GET, "/api/v1/namespaces/default/pods/x/exec", ""),
        (Method::GET, "/api/v1/namespaces/default/pods/x/log?previous=true", ""),
        (Method::GET, &format!("{WEB}/log"), ""),
    ] {
        let (code, status) = send(&sandbox, method.clone(), path, media, "{}").await;
        assert_eq!(
            (code, &status["kind"], &status["code"]),
            (501, &json!("Status"), &json!(501)),
            "{method} {path}: {status}"
        );
    }
    assert!(sandbox.get("deployments", "default", "web").is_some());
}

#[tokio::test(start_paused = true)]
async fn nonsense_is_refused_and_does_no_harm() {
    let (sandbox, _client) = without_sockets();
    sandbox.put(deployment(0, &json!({}))).unwrap();
    let bodies = [
        "",
        "[]",
        "1",
        "null",
        "\"x\"",
        "{",
        r#"{"metadata":1}"#,
        r#"{"metadata":{"name":1}}"#,
        r#"{"metadata":[]}"#,
        r#"{"metadata":{"name":"x","labels":[]}}"#,
        r#"{"spec":1}"#,
        r#"[{"op":"remove","path":""}]"#,
        r#"[{"op":"add","path":"/metadata","value":1}]"#,
        r#"{"metadata":{"managedFields":[1]}}"#,
        r#"{"metadata":{"ownerReferences":[{}]}}"#,
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{}}"#,
        r#"{"apiVersion":"v2","kind":"Deployment","metadata":{"name":"y"}}"#,
        r#"{"spec":{"replicas":-1}}"#,
    ];
    let paths = [
        WEB,
        ALL,
        "/apis/apps/v1/namespaces/default/deployments/web/scale",
        "/api/v1/namespaces/default/events/x",
        "/apis/events.k8s.io/v1/namespaces/default/events",
        "/api/v1/namespaces/x",
        "/api/v1/namespaces",
        "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
        "/apis/coordination.k8s.io/v1/namespaces/default/leases/l?fieldManager=x",
    ];
    let medias = [
        "application/json",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/apply-patch+yaml",
        "text/plain",
    ];
    for path in paths {
        for method in [Method::POST, Method::PUT, Method::PATCH] {
            for media in medias {
                for body in bodies {
                    let (code, status) = send(&sandbox, method.clone(), path, media, body).await;
                    let fits = (200..300).contains(&code) || (400..500).contains(&code) || code == 501;
                    assert!(fits, "{method} {path} {media} {body}: {code} {status}");
                }
            }
        }
    }
    let web = sandbox.get("deployments", "default", "web").unwrap();
    assert_eq!(web["spec"]["selector"]["matchLabels"]["app"], "web");
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_left_out_or_refused_when_strict() {
    let (sandbox, _client) = without_sockets();
    let mut web = deployment(0, &json!({}));
    web["spec"]["replica"] = 3.into();
    let (code, status) = send(
        &sandbox,
        Method::POST,
        &format!("{ALL}?fieldValidation=Strict"),
        "application/json",
        &web.to_string(),
    )
    .await;
    assert_eq!(code, 400);
    assert!(status["message"].as_str().unwrap().contains("spec.replica"), "{status}");
    let (code, made) = send(&sandbox, Method::POST, ALL, "application/json", &web.to_string()).await;
    assert_eq!(code, 201);
    assert!(made["spec"].get("replica").is_none());
}

#[tokio::test(start_paused = true)]
async fn the_log_and_the_counts_tell_who_did_what() {
    let (sandbox, _client) = without_sockets();
    sandbox.put(deployment(0, &json!({}))).unwrap();
    let merge = "application/merge-patch+json";
    send(
        &sandbox,
        Method::PATCH,
        &format!("{WEB}/scale?fieldManager=me"),
        merge,
        r#"{"spec":{"replicas":1}}"#,
    )
    .await;
    send(&sandbox, Method::DELETE, "/api/v1/namespaces/default/pods/nope", "", "").await;
    let log = sandbox.log();
    let lines: Vec<_> = log
        .iter()
        .map(|write| {
            format!(
                "{} {}/{} {}/{} {} {}",
                write.verb,
                write.plural,
                write.subresource,
                write.namespace,
                write.name,
                write.client,
                write.status
            )
        })
        .collect();
    assert_eq!(
        lines,
        ["patch deployments/scale default/web me 200", "delete pods/ default/nope unknown 404"]
    );
    assert_eq!(sandbox.requests()[&("patch".to_owned(), "deployments/scale".to_owned())], 1);
}
