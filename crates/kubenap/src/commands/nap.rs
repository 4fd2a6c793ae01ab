//! `kubenap nap APP`: writes the wish, then follows the nap until its pods are gone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use kubenap_controller::cluster::slim::{Slim as _, SlimDeployment};
use kubenap_controller::cluster::{Cluster, FIELD_MANAGER};
use kubenap_core::app::{AppId, key};
use kubenap_core::policy::{self, Wish};
use kubenap_core::seen::Phase;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout_at};

use crate::args::{ClusterArgs, NapArgs};
use crate::outcome::Outcome;
use crate::{connect, members, output};

pub(crate) async fn run(args: NapArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    let cluster = connect::cluster(at).await?;
    let app = connect::app(at, &args.app)?;
    let end = Instant::now() + args.timeout;
    let api: Api<Deployment> = Api::namespaced(cluster.client(), &app.namespace);
    let read = cluster.call(api.get_opt(&app.name)).await.with_context(|| format!("cannot read {app}"))?;
    let Some(before) = read else { bail!("{app} does not exist") };
    let before = SlimDeployment::of(before);
    if !policy::opted_in(&before.labels) {
        bail!(
            "{app} is not opted in\nhint: kubectl -n {} label deployment {} kubenap/enabled=true",
            app.namespace,
            app.name
        );
    }
    let record = &before.seen.record;
    if before.seen.replicas == 0 && record.phase == Some(Phase::Asleep) {
        output::line(&format!("{app} sleeps already"));
        return Ok(Outcome::Done);
    }
    if members::leader(&cluster, &connect::lease_namespace(at)).await?.is_none() {
        bail!(
            "no controller leads, and only the leader puts apps to sleep\nhint: start `kubenap run`, or name the namespace of its Leases with --lease-namespace"
        );
    }
    let pods = pods(&cluster, &before).await?;
    let wish = if args.force { Wish::ForceNap } else { Wish::Nap };
    let body = json!({"metadata": {"annotations": {key::WISH: wish.text()}}});
    let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    cluster
        .call(api.patch(&app.name, &params, &Patch::Merge(body)))
        .await
        .context("cannot write the wish")?;
    if args.no_wait {
        output::line(&format!("{app} is asked to nap"));
        return Ok(Outcome::Done);
    }
    let followed = timeout_at(end, follow(api, &app, record.epoch)).await;
    let asleep = match followed {
        Ok(ended) => ended?,
        Err(_) => return Ok(late(&app)),
    };
    match asleep {
        Ended::Asleep => {
            if !gone(&cluster, &before, &pods, end).await? {
                return Ok(late(&app));
            }
            output::line(&format!("{app} sleeps"));
            Ok(Outcome::Done)
        }
        Ended::Cancelled(why) => {
            output::note(&format!("cancelled: {app}: {why}"));
            Ok(Outcome::Cancelled)
        }
    }
}

/// How a nap ended.
enum Ended {
    /// At zero, or past it.
    Asleep,
    Cancelled(String),
}

/// Follows the Deployment, version by version, so that a sleep of a moment is not missed.
async fn follow(api: Api<Deployment>, app: &AppId, before: u64) -> anyhow::Result<Ended> {
    let config = watcher::Config::default().fields(&format!("metadata.name={}", app.name)).timeout(30);
    let stream = watcher::watcher(api, config).default_backoff().touched_objects();
    pin_mut!(stream);
    let mut shown = None;
    while let Some(event) = stream.next().await {
        // A watch that breaks is begun again by itself.
        let Ok(object) = event else { continue };
        let deleted = object.metadata.deletion_timestamp.is_some();
        let reason = object.annotations().get(key::REASON).cloned().unwrap_or_default();
        let wished = object.annotations().contains_key(key::WISH);
        let slim = SlimDeployment::of(object);
        if deleted {
            bail!("{app} is deleted");
        }
        let record = &slim.seen.record;
        let phase = record.phase;
        if shown != phase {
            output::note(&format!("{app} is {}", phase.map_or("awake", Phase::text)));
            shown = phase;
        }
        let why = reason.split_once(": ").map_or(reason.as_str(), |(_, why)| why).to_owned();
        match phase {
            Some(Phase::Asleep | Phase::Waking) if record.epoch > before => return Ok(Ended::Asleep),
            // Woken already: awake again after a wake says that pods answer, after a cancelled nap why it was.
            Some(Phase::Awake) if record.epoch > before => {
                return Ok(if reason.starts_with("pods-ready:") {
                    Ended::Asleep
                } else {
                    Ended::Cancelled(why)
                });
            }
            _ if record.epoch == before && !wished => return Ok(Ended::Cancelled(why)),
            _ => {}
        }
    }
    bail!("the watch on {app} ended")
}

async fn pods(cluster: &Cluster, of: &SlimDeployment) -> anyhow::Result<BTreeSet<String>> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), &of.id.namespace);
    let all = cluster.call(api.list(&ListParams::default())).await.context("cannot list pods")?;
    let own = all.items.into_iter().filter(|pod| of.selector.takes(pod.labels()));
    Ok(own.filter_map(|pod| pod.uid()).collect())
}

/// Waits until none of these pods is left, whatever new ones there are.
async fn gone(
    cluster: &Cluster,
    of: &SlimDeployment,
    old: &BTreeSet<String>,
    end: Instant,
) -> anyhow::Result<bool> {
    loop {
        if pods(cluster, of).await?.is_disjoint(old) {
            return Ok(true);
        }
        if Instant::now() >= end {
            return Ok(false);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn late(app: &AppId) -> Outcome {
    output::note(&format!("error: {app} does not sleep in time\nhint: kubenap why {app}"));
    Outcome::Late
}
