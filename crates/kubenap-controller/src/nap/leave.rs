//! A member's end: its addresses go out of every Service, and what only its slices remember stays.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::Patch;
use kubenap_core::seen::Slice;
use kubenap_core::situation::only_slices_know;
use kubenap_core::write::Write;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cluster::slim::{Slim as _, SlimDeployment};
use crate::cluster::{Cluster, ClusterError};
use crate::nap::{by_hand, carry_out, params};

/// Takes the addresses of the member called `identity` out of every Service, as the API server knows them now.
pub async fn withdraw_all(cluster: &Cluster, namespaces: &[String], identity: &str) {
    let slices = match by_hand::slices(cluster, namespaces).await {
        Ok(slices) => slices,
        Err(error) => {
            tracing::warn!(error = error.chain(), "cannot list this member's addresses, to take them out");
            return;
        }
    };
    let mut withdrawn = JoinSet::new();
    for (namespace, slice) in slices.into_iter().filter(|(_, slice)| slice.member == identity) {
        let cluster = cluster.clone();
        withdrawn.spawn(async move {
            if let Err(error) = withdraw(&cluster, namespace, slice).await {
                tracing::warn!(error = error.chain(), "cannot take this member's addresses out of a Service");
            }
        });
    }
    while withdrawn.join_next().await.is_some() {}
}

async fn withdraw(cluster: &Cluster, namespace: String, slice: Slice) -> Result<(), ClusterError> {
    if is_needed(cluster, &namespace, &slice).await {
        let api: Api<EndpointSlice> = Api::namespaced(cluster.client(), &namespace);
        let body = json!({"metadata": {"uid": slice.uid}, "endpoints": []});
        cluster.call(api.patch(&slice.name, &params(), &Patch::Merge(body))).await?;
        return Ok(());
    }
    // Its own slice, and it writes no more: whatever version it has now is to go.
    let (name, uid) = (slice.name, Some(slice.uid));
    carry_out(cluster, None, &Write::DeleteSlice { namespace, name, uid, resource_version: None }).await
}

/// Whether a slice may be all that remembers the count of an app that sleeps; where that cannot be read, it may.
async fn is_needed(cluster: &Cluster, namespace: &str, slice: &Slice) -> bool {
    let api: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    for (name, stamp) in &slice.apps {
        match cluster.call(api.get_opt(name)).await {
            Ok(Some(read)) => {
                if only_slices_know(&SlimDeployment::of(read).seen, *stamp) {
                    return true;
                }
            }
            Ok(None) => {}
            Err(error) => {
                let error = error.chain();
                tracing::warn!(error, "cannot read whether {namespace}/{name} tells of its nap");
                return true;
            }
        }
    }
    false
}
