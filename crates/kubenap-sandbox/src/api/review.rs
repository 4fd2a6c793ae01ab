//! Access reviews: everything is allowed, unless a fault denies it.
use crate::Sandbox;
use crate::api::errors::ApiError;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode};
use serde_json::{Value, json};

pub(super) fn answer(sandbox: &Sandbox, method: &Method, body: &[u8]) -> Response {
    if method != Method::POST {
        return ApiError::method_not_allowed().into_response();
    }
    sandbox.journal().request("create", "selfsubjectaccessreviews");
    let Ok(Value::Object(mut review)) = serde_json::from_slice(body) else {
        return ApiError::bad_request("a SelfSubjectAccessReview is expected").into_response();
    };
    let spec = review.get("spec").cloned().unwrap_or_default();
    let asked = &spec["resourceAttributes"];
    let text = |field: &str| asked[field].as_str().unwrap_or("");
    let resource = match text("subresource") {
        "" => text("resource").to_owned(),
        subresource => format!("{}/{subresource}", text("resource")),
    };
    let denied = sandbox.faults().denies(text("verb"), &resource, text("name"));
    review.insert("kind".to_owned(), "SelfSubjectAccessReview".into());
    review.insert("apiVersion".to_owned(), "authorization.k8s.io/v1".into());
    review.insert("status".to_owned(), json!({ "allowed": !denied }));
    (StatusCode::CREATED, Json(review)).into_response()
}
