//! How an answer is shown: whole objects, or their metadata only.
use crate::api::errors::ApiError;
use crate::api::events;
use crate::kinds::Kind;
use http::{HeaderMap, header};
use serde_json::{Value, json};

/// The form that the client accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Whole,
    Metadata,
}

impl View {
    /// Takes the first form in the Accept header that can be served.
    pub(super) fn accepted(headers: &HeaderMap) -> Result<Self, ApiError> {
        let accept = super::text(headers, header::ACCEPT);
        if accept.is_empty() {
            return Ok(Self::Whole);
        }
        accept.split(',').find_map(offered).ok_or_else(ApiError::not_acceptable)
    }

    /// An object as this client sees it.
    pub(super) fn object(self, kind: &Kind, object: &Value) -> Value {
        match self {
            Self::Whole => events::shown(kind, object.clone()),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
            }),
        }
    }

    pub(super) fn list(self, kind: &Kind, metadata: &Value, items: &[Value]) -> Value {
        match self {
            Self::Whole => json!({
                "kind": format!("{}List", kind.name), "apiVersion": kind.api_version(),
                "metadata": metadata, "items": items,
            }),
            Self::Metadata => json!({
                "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": metadata, "items": items,
            }),
        }
    }
}

fn offered(form: &str) -> Option<View> {
    let mut parts = form.split(';').map(str::trim);
    if !matches!(parts.next(), Some("application/json" | "application/*" | "*/*")) {
        return None;
    }
    match parts.find_map(|part| part.strip_prefix("as=")) {
        None => Some(View::Whole),
        Some("PartialObjectMetadata" | "PartialObjectMetadataList") => Some(View::Metadata),
        Some(_) => None,
    }
}
