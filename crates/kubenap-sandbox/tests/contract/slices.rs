//! `EndpointSlices`: the cluster's own follow the pods, other makers' are left alone.
use crate::harness::{Check, World, check, refused, typed};
use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

pub(crate) fn checks() -> Vec<Check> {
    vec![
        check!("slices follow readiness and keep the Service's port names", follow),
        check!("a slice of another maker is left alone, and can be changed", foreign),
        check!("slices go with the Service that owns them", owned),
        check!("an addressType cannot change, and names must be names", validated),
    ]
}

async fn own(world: &World) -> Result<Vec<EndpointSlice>> {
    let by_label = "kubernetes.io/service-name=web,endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io";
    Ok(world.api::<EndpointSlice>().list(&ListParams::default().labels(by_label)).await?.items)
}

fn count_ready(slices: &[EndpointSlice]) -> usize {
    let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter());
    endpoints
        .filter(|endpoint| {
            endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
        })
        .count()
}

fn foreign_slice(service: &Service) -> EndpointSlice {
    let owner: Value =
        json!({ "apiVersion": "v1", "kind": "Service", "name": "web", "uid": service.metadata.uid });
    typed(json!({
        "metadata": {
            "name": "web-other", "ownerReferences": [owner],
            "labels": { "kubernetes.io/service-name": "web", "endpointslice.kubernetes.io/managed-by": "other.test" },
        },
        "addressType": "IPv4", "ports": [{ "name": "web", "port": 16000, "protocol": "TCP" }],
        "endpoints": [{ "addresses": ["10.77.0.11"], "conditions": { "ready": true, "serving": true, "terminating": false } }],
    }))
}

async fn follow(world: World) -> Result<()> {
    let service = world.service().await?;
    world.deployment(2).await?;
    world.until_ready(2).await?;
    world.until("two ready endpoints", || async { Ok(count_ready(&own(&world).await?) == 2) }).await?;
    let slices = own(&world).await?;
    ensure!(slices.len() == 1, "{} slices", slices.len());
    let slice = slices.into_iter().next().context("a slice")?;
    let mut ports: Vec<_> =
        slice.ports.unwrap_or_default().into_iter().map(|port| (port.name, port.port)).collect();
    ports.sort();
    ensure!(
        ports == [(Some("direct".to_owned()), Some(8080)), (Some("web".to_owned()), Some(8080))],
        "{ports:?}"
    );
    let owner = slice.metadata.owner_references.unwrap_or_default();
    ensure!(owner.len() == 1 && Some(&owner[0].uid) == service.metadata.uid.as_ref());
    for endpoint in &slice.endpoints {
        let target = endpoint.target_ref.as_ref().context("no targetRef")?;
        ensure!(target.kind.as_deref() == Some("Pod"));
        let conditions = endpoint.conditions.as_ref().context("no conditions")?;
        ensure!(conditions.serving == Some(true) && conditions.terminating == Some(false), "{conditions:?}");
    }
    let none = Patch::Merge(json!({ "spec": { "replicas": 0 } }));
    world
        .api::<k8s_openapi::api::apps::v1::Deployment>()
        .patch("web", &PatchParams::default(), &none)
        .await?;
    world
        .until("no endpoints", || async {
            let slices = own(&world).await?;
            Ok(!slices.is_empty() && slices.iter().all(|slice| slice.endpoints.is_empty()))
        })
        .await
}

async fn foreign(world: World) -> Result<()> {
    let service = world.service().await?;
    let api = world.api::<EndpointSlice>();
    let made = api.create(&PostParams::default(), &foreign_slice(&service)).await?;
    ensure!(made.metadata.generation == Some(1));
    world.deployment(1).await?;
    world.until_ready(1).await?;
    world.until("one ready endpoint", || async { Ok(count_ready(&own(&world).await?) == 1) }).await?;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let now = api.get("web-other").await?;
    ensure!(now.metadata.resource_version == made.metadata.resource_version, "somebody wrote it");
    let leaving = json!([{ "addresses": ["10.77.0.11"], "conditions": { "ready": false, "serving": true, "terminating": true } }]);
    let patched = api
        .patch("web-other", &PatchParams::default(), &Patch::Merge(json!({ "endpoints": leaving })))
        .await?;
    ensure!(patched.metadata.generation == Some(2), "{:?}", patched.metadata.generation);
    let conditions = patched.endpoints[0].conditions.clone().unwrap_or_default();
    ensure!(conditions.terminating == Some(true) && conditions.ready == Some(false));
    api.delete("web-other", &DeleteParams::default()).await?;
    Ok(())
}

async fn owned(world: World) -> Result<()> {
    let service = world.service().await?;
    let api = world.api::<EndpointSlice>();
    api.create(&PostParams::default(), &foreign_slice(&service)).await?;
    world.until("the cluster's own slice", || async { Ok(!own(&world).await?.is_empty()) }).await?;
    world.api::<Service>().delete("web", &DeleteParams::default()).await?;
    world.until("no slices", || async { Ok(api.list(&ListParams::default()).await?.items.is_empty()) }).await
}

async fn validated(world: World) -> Result<()> {
    let service = world.service().await?;
    let api = world.api::<EndpointSlice>();
    let made = api.create(&PostParams::default(), &foreign_slice(&service)).await?;
    let mut changed = made.clone();
    "IPv6".clone_into(&mut changed.address_type);
    changed.endpoints = Vec::new();
    refused(api.replace("web-other", &PostParams::default(), &changed).await, 422, "Invalid")?;
    let mut named = foreign_slice(&service);
    named.metadata.name = Some("Not_A_Name".to_owned());
    refused(api.create(&PostParams::default(), &named).await, 422, "Invalid")?;
    let mut twice = foreign_slice(&service);
    twice.metadata.name = Some("twice".to_owned());
    let ports = twice.ports.clone().unwrap_or_default();
    twice.ports = Some([ports.clone(), ports].concat());
    refused(api.create(&PostParams::default(), &twice).await, 422, "Invalid")?;
    Ok(())
}
