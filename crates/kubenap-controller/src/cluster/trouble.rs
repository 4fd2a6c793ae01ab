//! Why an app cannot start, read out of its pods and its Deployment.

use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kubenap_core::seen::Trouble;

/// What the kubelet and the scheduler say of a pod that cannot start. `CrashLoopBackOff` and the image reasons are
/// the kubelet's waiting reasons; `Unschedulable` is the scheduler's reason on `PodScheduled`.
pub(super) fn trouble(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let conditions = status.conditions.iter().flatten();
    let unschedulable = |reason: Option<&str>| reason == Some("Unschedulable");
    if conditions.clone().any(|one| one.type_ == "PodScheduled" && unschedulable(one.reason.as_deref())) {
        return Some(Trouble::Unschedulable);
    }
    let mut containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    containers.find_map(trouble_of)
}

/// One container's trouble. Between two falls it runs for a moment, so the count of its falls says more than its state;
/// one fall may be a dependency that was not there yet.
fn trouble_of(container: &ContainerStatus) -> Option<Trouble> {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref()?.reason.as_deref());
    match waiting {
        Some(
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable"
            | "SignatureValidationFailed",
        ) => Some(Trouble::Image),
        Some("CrashLoopBackOff" | "RunContainerError" | "StartError" | "PostStartHookError") => {
            Some(Trouble::CrashLoop)
        }
        Some("CreateContainerConfigError" | "CreateContainerError") => Some(Trouble::Config),
        _ => (!container.ready && container.restart_count >= FALLS).then_some(Trouble::CrashLoop),
    }
}

/// So many restarts without ever being ready are a crash loop.
const FALLS: i32 = 2;

/// What keeps the pods of a Deployment from being made, as its ReplicaSet met it.
pub(super) fn refusal(condition: &DeploymentCondition) -> Option<Trouble> {
    let failing = condition.type_ == "ReplicaFailure"
        && condition.status == "True"
        && condition.reason.as_deref().is_none_or(|reason| reason == "FailedCreate");
    let quota = condition.message.as_deref().is_some_and(|message| message.contains("quota"));
    failing.then_some(if quota { Trouble::Quota } else { Trouble::Refused })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::slim::{Slim as _, SlimDeployment, SlimPod};

    fn pod(container: &Value) -> SlimPod {
        let object = json!({"status": {"phase": "Running", "containerStatuses": [container]}});
        SlimPod::of(serde_json::from_value(object).unwrap())
    }

    fn container(state: &Value, ready: bool, restarts: i32) -> Value {
        json!({"name": "app", "image": "app:1", "imageID": "", "state": state, "ready": ready, "restartCount": restarts})
    }

    #[test]
    fn what_a_container_waits_for_is_its_trouble() {
        for (reason, trouble) in [
            ("ErrImagePull", Some(Trouble::Image)),
            ("ImagePullBackOff", Some(Trouble::Image)),
            ("InvalidImageName", Some(Trouble::Image)),
            ("CrashLoopBackOff", Some(Trouble::CrashLoop)),
            ("RunContainerError", Some(Trouble::CrashLoop)),
            ("CreateContainerConfigError", Some(Trouble::Config)),
            ("ContainerCreating", None),
            ("PodInitializing", None),
        ] {
            let waiting = json!({"waiting": {"reason": reason}});
            assert_eq!(pod(&container(&waiting, false, 0)).seen.trouble, trouble, "{reason}");
        }
    }

    #[test]
    fn between_two_falls_a_crash_loop_is_still_one() {
        // What the container does, whether it is ready, how often it fell, whether that is a crash loop.
        for (state, ready, falls, loops) in [
            (json!({"running": {}}), false, 0, false),
            (json!({"terminated": {"exitCode": 1}}), false, 0, false),
            (json!({"running": {}}), false, 1, false),
            (json!({"running": {}}), false, 2, true),
            (json!({"terminated": {"exitCode": 1}}), false, 2, true),
            (json!({"running": {}}), true, 7, false),
        ] {
            let seen = pod(&container(&state, ready, falls)).seen;
            assert_eq!(seen.trouble, loops.then_some(Trouble::CrashLoop), "{state}, {falls} falls");
        }
    }

    #[test]
    fn why_no_pod_is_made_is_read_from_the_deployments_condition() {
        let quota = "pods \"web-1\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=0, limited: pods=0";
        let unknown = "pods \"web-1\" is forbidden: status unknown for quota: q, resources: pods";
        let policy = "pods \"web-1\" is forbidden: violates PodSecurity \"restricted:latest\"";
        for (status, reason, message, refused) in [
            ("True", "FailedCreate", quota, Some(Trouble::Quota)),
            ("True", "FailedCreate", unknown, Some(Trouble::Quota)),
            ("True", "FailedCreate", policy, Some(Trouble::Refused)),
            ("False", "FailedCreate", quota, None),
            ("True", "FailedDelete", "cannot delete", None),
        ] {
            let condition =
                json!({"type": "ReplicaFailure", "status": status, "reason": reason, "message": message});
            let object = json!({"metadata": {"name": "web"}, "status": {"conditions": [condition]}});
            let seen = SlimDeployment::of(serde_json::from_value(object).unwrap()).seen;
            assert_eq!(seen.refused, refused, "{status} {reason} {message}");
        }
    }
}
