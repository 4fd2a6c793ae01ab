//! `kubenap nap APP`: writes the wish, then follows the nap until its pods are gone.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt};
use kubenap_controller::cluster::labels::Labels;
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
    // A nap under way is joined.
    let past =
        if record.phase == Some(Phase::Drowsy) { record.epoch.saturating_sub(1) } else { record.epoch };
    let (pods, _) = pods(&cluster, &before).await?;
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
    let followed = timeout_at(end, follow(api, &app, past)).await;
    let asleep = match followed {
        Ok(ended) => ended?,
        Err(_) => return Ok(late(&app)),
    };
    match asleep {
        Ended::Asleep => Ok(match gone(&cluster, &before, &pods, end).await? {
            Gone::All => {
                output::line(&format!("{app} sleeps"));
                Outcome::Done
            }
            Gone::Late => late(&app),
            Gone::Stay => {
                output::note(&format!(
                    "cancelled: {app}: a request woke it before its pods were told to stop"
                ));
                Outcome::Cancelled
            }
        }),
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

/// The app's pods, and those of them that were told to stop.
async fn pods(
    cluster: &Cluster,
    of: &SlimDeployment,
) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let api: Api<Pod> = Api::namespaced(cluster.client(), &of.id.namespace);
    let all = cluster.call(api.list(&ListParams::default())).await.context("cannot list pods")?;
    let own: Vec<_> =
        all.items.into_iter().filter(|pod| of.selector.takes(&Labels::of(pod.labels()))).collect();
    let stopping = own.iter().filter(|pod| pod.metadata.deletion_timestamp.is_some());
    Ok((own.iter().filter_map(ResourceExt::uid).collect(), stopping.filter_map(ResourceExt::uid).collect()))
}

/// Where the pods of before have got to.
enum Gone {
    All,
    Late,
    /// The app was woken before they were told to stop, and they stay.
    Stay,
}

/// So long a pod of before may live on in an app that was woken, until it is clear that it stays.
const STAYS: Duration = Duration::from_secs(5);

/// Waits until none of these pods is left, whatever new ones there are.
async fn gone(
    cluster: &Cluster,
    of: &SlimDeployment,
    old: &BTreeSet<String>,
    end: Instant,
) -> anyhow::Result<Gone> {
    let mut living_since = None;
    loop {
        let (all, stopping) = pods(cluster, of).await?;
        let left: BTreeSet<_> = all.intersection(old).collect();
        if left.is_empty() {
            return Ok(Gone::All);
        }
        if left.iter().all(|uid| stopping.contains(*uid)) {
            living_since = None;
        } else if living_since.get_or_insert_with(Instant::now).elapsed() > STAYS {
            let api: Api<Deployment> = Api::namespaced(cluster.client(), &of.id.namespace);
            let now =
                SlimDeployment::of(cluster.call(api.get(&of.id.name)).await.context("cannot read the app")?);
            if now.seen.replicas > 0 {
                return Ok(Gone::Stay);
            }
        }
        if Instant::now() >= end {
            return Ok(Gone::Late);
        }
        sleep(Duration::from_millis(200)).await;
    }
}

fn late(app: &AppId) -> Outcome {
    output::note(&format!("error: {app} does not sleep in time\nhint: kubenap why {app}"));
    Outcome::Late
}
