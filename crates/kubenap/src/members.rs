//! Finding a running member from outside: through its Lease, then directly or through the API server.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, ResourceExt as _};
use kubenap_controller::cluster::lease::LEADER;
use kubenap_controller::cluster::members::lease_name;
use kubenap_controller::cluster::{ADMIN, Cluster};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

/// A direct connection to a member is given this long.
const DIRECT: Duration = Duration::from_secs(2);
/// No answer of a member is longer.
const LIMIT: usize = 64 << 20;
/// A Lease is renewed every two seconds; one that stands still for longer is nobody's.
const STILL: Duration = Duration::from_secs(6);

/// The leader's identity, if one lives. Judged by the Lease moving, not by comparing clocks, where its age is in doubt.
pub(crate) async fn leader(cluster: &Cluster, namespace: &str) -> anyhow::Result<Option<String>> {
    let api: Api<Lease> = Api::namespaced(cluster.client(), namespace);
    let read = async || cluster.call(api.get_opt(LEADER)).await.context("cannot read the leader's Lease");
    let holder = |lease: &Lease| {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        holder.filter(|holder| !holder.is_empty())
    };
    let Some(mut last) = read().await? else { return Ok(None) };
    let renewed = last.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
    let age = renewed
        .map(|renewed| kubenap_controller::clock::Clock::System.now().duration_since(renewed).as_secs());
    if age.is_some_and(|age| (-2..5).contains(&age)) && holder(&last).is_some() {
        return Ok(holder(&last));
    }
    // One that was given back, as in a roll-out, is soon taken by another.
    let rounds = STILL.as_millis() / 500;
    for _ in 0..rounds {
        sleep(Duration::from_millis(500)).await;
        let Some(lease) = read().await? else { return Ok(None) };
        if lease.resource_version() != last.resource_version() && holder(&lease).is_some() {
            return Ok(holder(&lease));
        }
        last = lease;
    }
    Ok(None)
}

/// Asks the leader's admin listener; any other member's where the leader's cannot be reached.
pub(crate) async fn ask<T: DeserializeOwned>(
    cluster: &Cluster,
    namespace: &str,
    path: &str,
) -> anyhow::Result<T> {
    let api: Api<Lease> = Api::namespaced(cluster.client(), namespace);
    let leases = cluster
        .call(api.list(&kube::api::ListParams::default()))
        .await
        .context("cannot list KubeNap's Leases")?;
    let leader = leases
        .items
        .iter()
        .find(|lease| lease.name_any() == LEADER)
        .and_then(|lease| lease.spec.as_ref()?.holder_identity.clone())
        .unwrap_or_default();
    let mut members: Vec<_> =
        leases.items.iter().filter(|lease| lease.annotations().contains_key(ADMIN)).collect();
    members.sort_by_key(|lease| lease.name_any() != lease_name(&leader));
    let mut last = anyhow!("no member of KubeNap has a Lease in {namespace}");
    for lease in members {
        let url = lease.annotations().get(ADMIN).cloned().unwrap_or_default();
        match timeout(DIRECT, direct(&url, path)).await {
            Ok(Ok(body)) => {
                return serde_json::from_slice(&body).context("the member's answer is not understood");
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = anyhow!("{url} does not answer"),
        }
        match proxied(cluster, namespace, lease, &url, path).await {
            Ok(body) => return serde_json::from_str(&body).context("the member's answer is not understood"),
            Err(error) => last = last.context(error.to_string()),
        }
    }
    Err(last.context("no member of KubeNap can be asked"))
}

async fn direct(url: &str, path: &str) -> anyhow::Result<Bytes> {
    let client: HttpClient<_, Full<Bytes>> = HttpClient::builder(TokioExecutor::new()).build_http();
    let uri = format!("{url}{path}").parse().context("the Lease names no address")?;
    let answer = client.get(uri).await.with_context(|| format!("cannot reach {url}"))?;
    if !answer.status().is_success() {
        return Err(anyhow!("{url} answers {}", answer.status()));
    }
    let body = Limited::new(answer.into_body(), LIMIT).collect().await;
    body.map(http_body_util::Collected::to_bytes)
        .map_err(|error| anyhow!("the answer of {url} breaks off: {error}"))
}

/// Through the API server, which reaches pods that a laptop cannot.
async fn proxied(
    cluster: &Cluster,
    namespace: &str,
    lease: &Lease,
    url: &str,
    path: &str,
) -> anyhow::Result<String> {
    let pod = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
    let port = url.rsplit_once(':').map_or("8081", |(_, port)| port);
    let uri = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
    let request = http::Request::get(uri).body(Vec::new())?;
    cluster
        .call(cluster.client().request_text(request))
        .await
        .context("cannot reach it through the API server")
}
