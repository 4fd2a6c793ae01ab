//! Label and field selectors: which objects an answer holds.
use crate::store::object;
use serde_json::Value;

/// A label selector and a field selector, both of which must match.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(String, String, bool)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// Why a selector cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectorError {
    #[error("unable to parse requirement: {0}")]
    Unparsable(String),
    #[error("field label not supported: {0}")]
    Field(String),
}

impl Selector {
    pub(crate) fn parse(plural: &str, labels: &str, fields: &str) -> Result<Self, SelectorError> {
        let labels = split(labels).into_iter().map(requirement).collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|part| !part.is_empty())
            .map(|part| field(plural, part))
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let labels = &object["metadata"]["labels"];
        self.labels.iter().all(|requirement| requirement.matches(labels))
            && self.fields.iter().all(|(path, wanted, equal)| (value_at(object, path) == wanted) == *equal)
    }
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        match self {
            Self::In(key, values) => {
                labels[key].as_str().is_some_and(|value| values.iter().any(|v| v == value))
            }
            Self::NotIn(key, values) => {
                labels[key].as_str().is_none_or(|value| !values.iter().any(|v| v == value))
            }
            Self::Exists(key) => labels[key].is_string(),
            Self::Missing(key) => !labels[key].is_string(),
        }
    }
}

/// The parts between commas, except for commas in parentheses.
fn split(text: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (place, letter) in text.char_indices() {
        match letter {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[start..place]);
                start = place + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts.into_iter().map(str::trim).filter(|part| !part.is_empty()).collect()
}

fn requirement(part: &str) -> Result<Requirement, SelectorError> {
    let bad = || SelectorError::Unparsable(part.to_owned());
    let key_of = |key: &str| {
        let key = key.trim();
        if crate::validate::is_qualified_name(key) { Ok(key.to_owned()) } else { Err(bad()) }
    };
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Missing(key_of(key)?));
    }
    if let Some((head, values)) = part.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        return match head.trim_end().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => Ok(Requirement::In(key_of(key)?, values)),
            Some((key, "notin")) => Ok(Requirement::NotIn(key_of(key)?, values)),
            _ => Err(bad()),
        };
    }
    if let Some((key, value)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(key_of(key)?, vec![label_value(value).ok_or_else(bad)?]));
    }
    if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(Requirement::In(key_of(key)?, vec![label_value(value).ok_or_else(bad)?]));
    }
    Ok(Requirement::Exists(key_of(part)?))
}

fn label_value(value: &str) -> Option<String> {
    let value = value.trim();
    crate::validate::is_label_value(value).then(|| value.to_owned())
}

fn field(plural: &str, part: &str) -> Result<(String, String, bool), SelectorError> {
    let (path, value, equal) = if let Some((path, value)) = part.split_once("!=") {
        (path, value, false)
    } else {
        let (path, value) = part
            .split_once("==")
            .or_else(|| part.split_once('='))
            .ok_or_else(|| SelectorError::Unparsable(part.to_owned()))?;
        (path, value, true)
    };
    // The store keeps events in the core group's form.
    let path =
        if plural == "events" { path.replace("regarding.", "involvedObject.") } else { path.to_owned() };
    let known = match path.as_str() {
        "metadata.name" | "metadata.namespace" => true,
        "status.phase" | "spec.nodeName" | "status.podIP" => plural == "pods",
        "reason" | "type" | "reportingComponent" => plural == "events",
        other => plural == "events" && other.starts_with("involvedObject."),
    };
    if known { Ok((path, value.to_owned(), equal)) } else { Err(SelectorError::Field(path)) }
}

fn value_at<'a>(object: &'a Value, path: &str) -> &'a str {
    path.split('.').fold(object, |value, step| &value[step]).as_str().unwrap_or("")
}

/// Whether a workload's `spec.selector` takes an object in.
pub(crate) fn takes(selector: &Value, target: &Value) -> bool {
    let labels = &target["metadata"]["labels"];
    let equal = object::strings(&selector["matchLabels"]).all(|(key, value)| labels[key] == value);
    let expressions = object::list(&selector["matchExpressions"]).iter().all(|expression| {
        let values: Vec<_> = object::list(&expression["values"])
            .iter()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect();
        let key = expression["key"].as_str().unwrap_or("").to_owned();
        match expression["operator"].as_str() {
            Some("In") => Requirement::In(key, values).matches(labels),
            Some("NotIn") => Requirement::NotIn(key, values).matches(labels),
            Some("Exists") => Requirement::Exists(key).matches(labels),
            Some("DoesNotExist") => Requirement::Missing(key).matches(labels),
            _ => false,
        }
    });
    equal && expressions
}
