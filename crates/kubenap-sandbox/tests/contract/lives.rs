//! What Deployments do by themselves.
use crate::harness::{Check, World, check};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

pub(crate) fn checks() -> Vec<Check> {
    vec![
        check!("a Deployment's status follows its pods", status),
        check!("to zero and back keeps the uid and the ReplicaSet", zero_and_back),
        check!("a new template rolls out by a new ReplicaSet with the Deployment's annotations", rollout),
        check!("a deleted pod is replaced", replaced),
        check!("pods go with their Deployment", collected),
    ]
}

async fn patch(world: &World, patch: Value) -> Result<Deployment> {
    Ok(world.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Merge(patch)).await?)
}

async fn status(world: World) -> Result<()> {
    world.deployment(2).await?;
    let ready = world.until_ready(2).await?;
    world
        .until("available", || async {
            let status = world.api::<Deployment>().get("web").await?.status.unwrap_or_default();
            Ok(status.available_replicas == Some(2) && status.unavailable_replicas.is_none())
        })
        .await?;
    let status = world.api::<Deployment>().get("web").await?.status.unwrap_or_default();
    ensure!(status.updated_replicas == Some(2));
    let conditions = status.conditions.unwrap_or_default();
    for (kind, reason) in
        [("Available", "MinimumReplicasAvailable"), ("Progressing", "NewReplicaSetAvailable")]
    {
        let condition = conditions.iter().find(|condition| condition.type_ == kind).context(kind)?;
        ensure!(condition.status == "True" && condition.reason.as_deref() == Some(reason), "{condition:?}");
    }
    let annotations = ready.metadata.annotations.unwrap_or_default();
    ensure!(annotations["deployment.kubernetes.io/revision"] == "1");
    let pods = world.api::<Pod>().list(&ListParams::default().labels("app=web")).await?.items;
    ensure!(pods.len() == 2);
    for pod in pods {
        let status = pod.status.unwrap_or_default();
        ensure!(status.phase.as_deref() == Some("Running") && status.pod_ip.is_some());
        let ready =
            status.conditions.unwrap_or_default().into_iter().find(|condition| condition.type_ == "Ready");
        ensure!(ready.is_some_and(|ready| ready.status == "True" && ready.last_transition_time.is_some()));
    }
    Ok(())
}

async fn zero_and_back(world: World) -> Result<()> {
    let first = world.deployment(1).await?;
    world.until_ready(1).await?;
    patch(&world, json!({ "spec": { "replicas": 0 } })).await?;
    let asleep = world.until_ready(0).await?;
    ensure!(asleep.status.unwrap_or_default().ready_replicas.is_none());
    world
        .until("no pods", || async {
            Ok(world.api::<Pod>().list(&ListParams::default()).await?.items.is_empty())
        })
        .await?;
    patch(&world, json!({ "spec": { "replicas": 1 } })).await?;
    let back = world.until_ready(1).await?;
    ensure!(back.metadata.uid == first.metadata.uid);
    let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await?.items;
    ensure!(sets.len() == 1, "{} ReplicaSets", sets.len());
    let set = &sets[0];
    ensure!(set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation);
    Ok(())
}

async fn rollout(world: World) -> Result<()> {
    world.deployment(1).await?;
    world.until_ready(1).await?;
    let template = json!({ "metadata": { "annotations": { "test/v": "2" } } });
    patch(
        &world,
        json!({
            "metadata": { "annotations": { "test/copied": "yes" } }, "spec": { "template": template },
        }),
    )
    .await?;
    world
        .until("the old ReplicaSet is empty", || async {
            let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await?.items;
            let empty = |set: &&ReplicaSet| set.status.as_ref().is_some_and(|status| status.replicas == 0);
            Ok(sets.len() == 2 && sets.iter().filter(empty).count() == 1)
        })
        .await?;
    world.until_ready(1).await?;
    let revision = |set: &ReplicaSet| {
        set.metadata.annotations.clone().unwrap_or_default()["deployment.kubernetes.io/revision"].clone()
    };
    let mut sets = world.api::<ReplicaSet>().list(&ListParams::default()).await?.items;
    sets.sort_by_key(revision);
    ensure!(revision(&sets[0]) == "1" && revision(&sets[1]) == "2");
    ensure!(sets[1].metadata.annotations.clone().unwrap_or_default()["test/copied"] == "yes");
    ensure!(sets[1].spec.clone().unwrap_or_default().replicas == Some(1));
    Ok(())
}

async fn replaced(world: World) -> Result<()> {
    world.deployment(1).await?;
    world.until_ready(1).await?;
    let pods = world.api::<Pod>();
    let name = |pod: &Pod| pod.metadata.name.clone().unwrap_or_default();
    let first = name(&pods.list(&ListParams::default()).await?.items[0]);
    pods.delete(&first, &DeleteParams::default()).await?;
    let leaving = pods.get_opt(&first).await?;
    ensure!(leaving.is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()));
    world
        .until("another pod, alone and ready", || async {
            let now = pods.list(&ListParams::default()).await?.items;
            Ok(now.len() == 1 && name(&now[0]) != first)
        })
        .await?;
    world.until_ready(1).await.map(drop)
}

async fn collected(world: World) -> Result<()> {
    world.deployment(1).await?;
    world.until_ready(1).await?;
    let background = DeleteParams::background();
    world.api::<Deployment>().delete("web", &background).await?;
    world
        .until("nothing left", || async {
            let sets = world.api::<ReplicaSet>().list(&ListParams::default()).await?.items;
            let pods = world.api::<Pod>().list(&ListParams::default()).await?.items;
            Ok(sets.is_empty() && pods.is_empty())
        })
        .await
}
