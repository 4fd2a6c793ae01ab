//! Others who own an app's replicas: a GitOps loop that sets them back is noticed and named, an autoscaler is respected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::http::Call;
use crate::e2e::members::Settings;
use crate::e2e::world::{Space, eventually, throughout};

const GITOPS: &str = "argocd-controller";

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.world.members.ensure(&Settings::default()).await?;
    gitops(space).await.context("a GitOps loop")?;
    autoscaler(space).await.context("an autoscaler")?;
    Ok(vec![("reverts", 3)])
}

async fn gitops(space: &Space) -> Result<()> {
    const NAME: &str = "tracked";
    space.deploy(&App::new(NAME).replicas(2)).await?;
    for _ in 0..3 {
        space.nap(NAME).await?;
        space.until_asleep(NAME, NAME).await?;
        apply(space, NAME, 2).await?;
        space.until_awake(NAME, NAME, 2).await?;
    }
    // Events are sent beside the work.
    eventually(
        "each time it is adopted as awake, and the manager named",
        Duration::from_secs(60),
        async || {
            let events = space.events(NAME).await?;
            let adopted =
                events.iter().filter(|(reason, note)| reason == "Awake" && note.contains(GITOPS)).count();
            ensure!(adopted == 3, "{adopted} times: {events:?}");
            Ok(())
        },
    )
    .await?;
    eventually("an Event says who, and what to change", Duration::from_secs(60), async || {
        let events = space.events(NAME).await?;
        let told: Vec<_> = events.iter().filter(|(reason, _)| reason == "NapRefused").collect();
        ensure!(told.len() == 1, "{told:?}");
        ensure!(told[0].1.contains(GITOPS) && told[0].1.contains("spec.replicas"), "{told:?}");
        Ok(())
    })
    .await?;
    no_more_naps(space, NAME).await?;
    // The cluster is the only memory.
    space.world.members.kill().await?;
    space.world.members.ensure(&Settings::default()).await?;
    no_more_naps(space, NAME).await.context("after every member was killed")
}

async fn no_more_naps(space: &Space, name: &str) -> Result<()> {
    let ran = space.world.kubenap(&["nap", &space.id(name), "--force"], Duration::from_secs(60)).await?;
    ensure!(ran.code == 4 && ran.stderr.contains(GITOPS), "{ran:?}");
    let (phase, replicas) = (space.phase(name).await?, space.replicas(name).await?);
    ensure!(phase == "awake" && replicas == 2, "phase {phase}, {replicas} replicas");
    // A member that has just begun may not have looked at it yet.
    eventually("status and doctor name the manager", Duration::from_secs(60), async || {
        let status = space.status(name).await?;
        let named = status["complaints"].to_string().contains(GITOPS);
        ensure!(status["label"] == "reverted" && named, "{status}");
        let doctor = space.world.kubenap(&["doctor"], Duration::from_secs(60)).await?;
        ensure!(doctor.stdout.contains(GITOPS), "kubenap doctor does not name {GITOPS}: {doctor:?}");
        Ok(())
    })
    .await
}

/// What a GitOps tool does: applies what is in Git, under its own name.
async fn apply(space: &Space, name: &str, replicas: u32) -> Result<()> {
    let manifest = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"replicas": replicas}});
    let params = PatchParams::apply(GITOPS).force();
    space.api::<Deployment>().patch(name, &params, &Patch::Apply(&manifest)).await?;
    Ok(())
}

async fn autoscaler(space: &Space) -> Result<()> {
    const NAME: &str = "scaled";
    space.deploy(&App::new(NAME).replicas(2)).await?;
    let api = space.api::<HorizontalPodAutoscaler>();
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 80}}});
    let object = json!({"metadata": {"name": NAME}, "spec": {"minReplicas": 2, "maxReplicas": 5, "metrics": [cpu],
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME}}});
    api.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    let before = api.get(NAME).await?.spec;

    space.nap(NAME).await?;
    space.until_asleep(NAME, NAME).await?;
    // The autoscaler looks every fifteen seconds.
    throughout(Duration::from_secs(20), async || {
        let replicas = space.replicas(NAME).await?;
        ensure!(replicas == 0, "an app that sleeps was scaled to {replicas}");
        Ok(())
    })
    .await?;
    space.neighbour(NAME).await?.send(&Call::get("/")).await?.ensure_from_app()?;
    space.until_awake(NAME, NAME, 2).await?;
    ensure!(api.get(NAME).await?.spec == before, "the autoscaler is not as it was");

    space.nap(NAME).await?;
    space.until_asleep(NAME, NAME).await?;
    let more = Patch::Merge(json!({"spec": {"minReplicas": 3}}));
    api.patch(NAME, &PatchParams::default(), &more).await?;
    let begun = space.world.audit.now()?;
    space.neighbour(NAME).await?.send(&Call::get("/")).await?.ensure_from_app()?;
    space.until_awake(NAME, NAME, 3).await?;
    let scalings = space.world.audit.scalings_since(begun, &space.namespace, NAME)?;
    ensure!(scalings.len() == 1 && scalings[0].replicas == 3, "woken at once to its least: {scalings:?}");
    let managed = api.get(NAME).await?.metadata.managed_fields.unwrap_or_default();
    ensure!(
        managed.iter().all(|entry| entry.manager.as_deref() != Some("kubenap")),
        "KubeNap wrote on an autoscaler: {managed:?}"
    );
    Ok(())
}
