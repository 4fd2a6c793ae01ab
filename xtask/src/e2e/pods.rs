//! Waits for the end of a pod, and reads how its container ended before it is gone.

use anyhow::{Context as _, Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, WatchEvent, WatchParams};

/// The exit code of a pod's first container, once the pod is gone.
pub(crate) async fn ended(pods: &Api<Pod>, name: &str) -> Result<i32> {
    let what = || format!("watch pod {name}");
    let params = WatchParams::default().fields(&format!("metadata.name={name}")).timeout(280);
    let mut events = pods.watch(&params, "0").await.with_context(what)?.boxed();
    let mut code = None;
    while let Some(event) = events.next().await {
        match event.with_context(what)? {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => code = exit_code(&pod).or(code),
            WatchEvent::Deleted(pod) => {
                return exit_code(&pod)
                    .or(code)
                    .with_context(|| format!("pod {name} went without an exit code"));
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(error) => bail!("watch pod {name}: {}", error.message),
        }
    }
    bail!("watch pod {name}: it ended before the pod did")
}

fn exit_code(pod: &Pod) -> Option<i32> {
    let state = pod.status.as_ref()?.container_statuses.as_ref()?.first()?.state.as_ref()?;
    Some(state.terminated.as_ref()?.exit_code)
}
