//! Deployments, ReplicaSets, pods, autoscalers and leases.
use super::{is_dns_label, labels};
use crate::api::errors::Cause;
use crate::select;
use crate::store::object;
use serde_json::Value;

pub(super) fn deployment(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    replicas(&new["spec"]["replicas"], "spec.replicas", causes);
    for field in ["minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds"] {
        replicas(&new["spec"][field], &format!("spec.{field}"), causes);
    }
    selected(new, old, causes);
    let strategy = &new["spec"]["strategy"];
    match strategy["type"].as_str() {
        Some("RollingUpdate") => {
            let zero = |field: &str| matches!(&strategy["rollingUpdate"][field], value if *value == 0 || value == "0%");
            if zero("maxSurge") && zero("maxUnavailable") {
                let why = "may not be 0 when `maxSurge` is 0";
                causes.push(Cause::invalid("spec.strategy.rollingUpdate.maxUnavailable", 0, why));
            }
        }
        Some("Recreate") if strategy["rollingUpdate"].is_object() => causes.push(Cause::invalid(
            "spec.strategy.rollingUpdate",
            "",
            "may not be specified when strategy `type` is 'Recreate'",
        )),
        Some("Recreate") => {}
        _ => causes.push(Cause::unsupported(
            "spec.strategy.type",
            &strategy["type"],
            "\"Recreate\", \"RollingUpdate\"",
        )),
    }
    pod(&new["spec"]["template"]["spec"], "spec.template.spec", causes);
}

pub(super) fn replica_set(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    replicas(&new["spec"]["replicas"], "spec.replicas", causes);
    selected(new, old, causes);
}

/// The selector takes in the pods of the template, and stays as it was.
fn selected(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let (selector, template) = (&new["spec"]["selector"], &new["spec"]["template"]);
    for (key, value) in object::labels(template) {
        labels("spec.template.labels", key, value, causes);
    }
    if object::strings(&selector["matchLabels"]).next().is_none()
        && object::list(&selector["matchExpressions"]).is_empty()
    {
        causes.push(Cause::required("spec.selector", ""));
    } else if !select::takes(selector, template) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            template["metadata"]["labels"].clone(),
            why,
        ));
    }
    if old.is_some_and(|old| old["spec"]["selector"] != *selector) {
        causes.push(Cause::invalid("spec.selector", selector.clone(), "field is immutable"));
    }
    if template["spec"]["restartPolicy"] != "Always" {
        let policy = &template["spec"]["restartPolicy"];
        causes.push(Cause::unsupported("spec.template.spec.restartPolicy", policy, "\"Always\""));
    }
}

pub(super) fn pod(spec: &Value, field: &str, causes: &mut Vec<Cause>) {
    let containers = object::list(&spec["containers"]);
    if containers.is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    let mut names: Vec<&str> = Vec::new();
    for (place, container) in containers.iter().enumerate() {
        let field = format!("{field}.containers[{place}]");
        let name = container["name"].as_str().unwrap_or("");
        if name.is_empty() {
            causes.push(Cause::required(format!("{field}.name"), ""));
        } else if !is_dns_label(name) {
            causes.push(Cause::invalid(format!("{field}.name"), name, super::DNS_LABEL));
        } else if names.contains(&name) {
            causes.push(Cause::duplicate(format!("{field}.name"), name));
        }
        names.push(name);
        if container["image"].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("{field}.image"), ""));
        }
        for (place, port) in object::list(&container["ports"]).iter().enumerate() {
            if !(1..=65535).contains(&port["containerPort"].as_i64().unwrap_or(0)) {
                let field = format!("{field}.ports[{place}].containerPort");
                causes.push(Cause::invalid(
                    field,
                    port["containerPort"].clone(),
                    "must be between 1 and 65535, inclusive",
                ));
            }
        }
    }
}

pub(super) fn autoscaler(new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let (least, most) =
        (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64().unwrap_or(0));
    if least < 1 {
        causes.push(Cause::invalid("spec.minReplicas", least, "must be greater than or equal to 1"));
    }
    if most < 1 {
        causes.push(Cause::invalid("spec.maxReplicas", most, "must be greater than 0"));
    } else if most < least {
        causes.push(Cause::invalid(
            "spec.maxReplicas",
            most,
            "must be greater than or equal to `minReplicas`",
        ));
    }
    for field in ["kind", "name"] {
        if spec["scaleTargetRef"][field].as_str().unwrap_or("").is_empty() {
            causes.push(Cause::required(format!("spec.scaleTargetRef.{field}"), ""));
        }
    }
}

pub(super) fn lease(new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    if spec["leaseDurationSeconds"].as_i64().is_some_and(|seconds| seconds <= 0) {
        let seconds = spec["leaseDurationSeconds"].clone();
        causes.push(Cause::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
    if spec["leaseTransitions"].as_i64().is_some_and(|count| count < 0) {
        let count = spec["leaseTransitions"].clone();
        causes.push(Cause::invalid("spec.leaseTransitions", count, "must be greater than or equal to 0"));
    }
}

fn replicas(value: &Value, field: &str, causes: &mut Vec<Cause>) {
    if value.as_i64().is_some_and(|count| count < 0) {
        causes.push(Cause::invalid(field, value.clone(), "must be greater than or equal to 0"));
    }
}
