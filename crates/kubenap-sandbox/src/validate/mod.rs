//! What a real API server refuses with 422: all that is wrong, at once.
mod network;
mod workload;

use crate::api::errors::Cause;
use crate::kinds::Kind;
use crate::store::object;
use serde_json::Value;

/// Everything that is wrong with an object, in itself or as a successor of the old one.
pub(crate) fn check(kind: &Kind, new: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = metadata(kind, new);
    match kind.plural {
        "deployments" => workload::deployment(new, old, &mut causes),
        "replicasets" => workload::replica_set(new, old, &mut causes),
        "pods" => workload::pod(&new["spec"], "spec", &mut causes),
        "horizontalpodautoscalers" => workload::autoscaler(new, &mut causes),
        "leases" => workload::lease(new, &mut causes),
        "services" => network::service(new, old, &mut causes),
        "endpointslices" => network::slice(new, old, &mut causes),
        "ingresses" => network::ingress(new, &mut causes),
        "events" => event(new, &mut causes),
        _ => {}
    }
    causes
}

fn metadata(kind: &Kind, new: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let name = object::name(new);
    let is_label = matches!(kind.plural, "namespaces" | "services");
    if is_label && !is_dns_label(name) {
        causes.push(Cause::invalid("metadata.name", name, DNS_LABEL));
    } else if !is_subdomain(name) {
        causes.push(Cause::invalid("metadata.name", name, SUBDOMAIN));
    }
    if kind.plural == "services" && name.starts_with(|letter: char| letter.is_ascii_digit()) {
        causes.push(Cause::invalid(
            "metadata.name",
            name,
            "a DNS-1035 label must start with an alphabetic character",
        ));
    }
    for (key, value) in object::labels(new) {
        labels("metadata.labels", key, value, &mut causes);
    }
    let mut size = 0;
    for (key, value) in object::strings(&new["metadata"]["annotations"]) {
        size += key.len() + value.len();
        // Upper case is allowed in the prefix of an annotation, and nowhere else.
        if !is_qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", key, QUALIFIED));
        }
    }
    if size > 256 * 1024 {
        causes.push(Cause::invalid("metadata.annotations", size, "must have at most 262144 bytes"));
    }
    for (place, owner) in object::list(&new["metadata"]["ownerReferences"]).iter().enumerate() {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if owner[field].as_str().unwrap_or("").is_empty() {
                causes.push(Cause::invalid(
                    format!("metadata.ownerReferences[{place}].{field}"),
                    "",
                    "must not be empty",
                ));
            }
        }
    }
    causes
}

fn labels(field: &str, key: &str, value: &str, causes: &mut Vec<Cause>) {
    if !is_qualified_name(key) {
        causes.push(Cause::invalid(field, key, QUALIFIED));
    }
    if !is_label_value(value) {
        causes.push(Cause::invalid(field, value, LABEL_VALUE));
    }
}

fn event(new: &Value, causes: &mut Vec<Cause>) {
    let about = new["involvedObject"]["namespace"].as_str().unwrap_or("");
    let here = new["metadata"]["namespace"].as_str().unwrap_or("");
    if about != here && !(about.is_empty() && here == "default") {
        causes.push(Cause::invalid("involvedObject.namespace", about, "does not match event.namespace"));
    }
}

const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
const QUALIFIED: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

fn is_dns_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| part.len() <= 253 && is_dns_part(part))
}

/// As a label, but as long as a whole name may be.
fn is_dns_part(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The value of a label.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_name_part(text)
}

/// The key of a label: a name, perhaps with a DNS prefix.
pub(crate) fn is_qualified_name(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name_part(name),
        None => is_name_part(text),
    }
}

fn is_name_part(text: &str) -> bool {
    let at_ends = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && at_ends(text.bytes().next())
        && at_ends(text.bytes().last())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}
