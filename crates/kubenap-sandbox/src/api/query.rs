//! Query parameters: each one that would change the answer is known, or refused.
use crate::api::errors::ApiError;
use std::collections::BTreeMap;

/// The parameters of one request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(BTreeMap<String, String>);

/// What a read may be given.
pub(crate) const READ: &[&str] = &["resourceVersion"];
/// What may be given to read a log.
pub(crate) const LOG: &[&str] = &["container", "follow", "sinceTime", "timestamps"];
/// What a list may be given.
pub(crate) const LIST: &[&str] = &[
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "watch",
    "timeoutSeconds",
    "allowWatchBookmarks",
];
/// What a watch may be given.
pub(crate) const WATCH: &[&str] = &[
    "labelSelector",
    "fieldSelector",
    "resourceVersion",
    "watch",
    "timeoutSeconds",
    "allowWatchBookmarks",
    "limit",
];
/// What a create or an update may be given.
pub(crate) const WRITE: &[&str] = &["fieldManager", "fieldValidation"];
/// What a patch may be given.
pub(crate) const PATCH: &[&str] = &["fieldManager", "fieldValidation", "force"];
/// What an apply may be given.
pub(crate) const APPLY: &[&str] = &["fieldManager", "fieldValidation", "force", "dryRun"];
/// What a delete may be given.
pub(crate) const DELETE: &[&str] = &["gracePeriodSeconds", "propagationPolicy"];

/// White space, and how long the client waits anyway: neither changes the answer.
const HARMLESS: &[&str] = &["pretty", "timeout"];

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        Self(form(text))
    }

    /// Refuses what is not in the list.
    pub(crate) fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        match self.0.iter().find(|(name, value)| {
            !known.contains(&name.as_str()) && !HARMLESS.contains(&name.as_str()) && !value.is_empty()
        }) {
            Some((name, value)) => Err(ApiError::not_implemented(&format!("{name}={value} here"))),
            None => Ok(()),
        }
    }

    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(crate) fn is_true(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1")
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ApiError> {
        match self.text(name) {
            "" => Ok(None),
            text => match text.parse() {
                Ok(number) => Ok(Some(number)),
                Err(_) => Err(ApiError::bad_request(format!("{name}: {text:?} is no number"))),
            },
        }
    }
}

/// Pairs of a form-encoded text; the last of equal names counts.
fn form(text: &str) -> BTreeMap<String, String> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut place = 0;
    while let Some(&byte) = bytes.get(place) {
        let escaped = text.get(place + 1..place + 3).filter(|_| byte == b'%');
        match (byte, escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (_, Some(decoded)) => {
                out.push(decoded);
                place += 2;
            }
            (b'+', None) => out.push(b' '),
            _ => out.push(byte),
        }
        place += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}
