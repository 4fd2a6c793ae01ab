//! The three ways to change an object in part.
mod merge;
mod json;
pub(crate) mod fields;
pub(crate) mod apply;

use crate::api::errors::ApiError;
use serde_json::Value;

const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
/// Server-side apply, which needs more than the object and the patch.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

/// The object after a merge patch or a JSON patch.
pub(crate) fn patched(media: &str, patch: &[u8], mut object: Value) -> Result<Value, ApiError> {
    let parse = |what: &str, error: &serde_json::Error| {
        ApiError::bad_request(format!("the {what} is not understood: {error}"))
    };
    match media {
        MERGE => {
            let patch = serde_json::from_slice(patch).map_err(|error| parse("merge patch", &error))?;
            merge::merge(&mut object, patch);
        }
        JSON => {
            let patch: Vec<json::Operation> =
                serde_json::from_slice(patch).map_err(|error| parse("JSON patch", &error))?;
            for operation in patch {
                operation.carry_out(&mut object).map_err(|why| ApiError::json_patch(&why))?;
            }
        }
        STRATEGIC => {
            return Err(ApiError::not_implemented("strategic merge patches: hint: send a merge patch"));
        }
        other => return Err(ApiError::unsupported_media(other, &[JSON, MERGE, APPLY].join(", "))),
    }
    if !object.is_object() || !object["metadata"].is_object() {
        return Err(ApiError::bad_request("what the patch leaves is no object"));
    }
    Ok(object)
}

/// An applied configuration, in YAML or in JSON, which is YAML too.
pub(crate) fn yaml(text: &[u8]) -> Result<Value, ApiError> {
    let bad =
        |why: String| ApiError::bad_request(format!("the applied configuration is not understood: {why}"));
    let parsed: Value = if let Ok(parsed) = serde_json::from_slice(text) {
        parsed
    } else {
        let text = std::str::from_utf8(text).map_err(|error| bad(error.to_string()))?;
        serde_saphyr::from_str(text).map_err(|error| bad(error.to_string()))?
    };
    if !parsed["metadata"].is_object() {
        return Err(bad("metadata is missing".to_owned()));
    }
    Ok(parsed)
}
