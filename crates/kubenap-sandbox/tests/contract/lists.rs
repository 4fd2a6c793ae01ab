//! Lists: selectors, pages, versions.
use crate::harness::{Check, World, check, refused, typed};
use anyhow::{Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{ListParams, PostParams};
use serde_json::json;

pub(crate) fn checks() -> Vec<Check> {
    vec![
        check!("label selectors choose", labels),
        check!("field selectors choose, and unknown fields are refused", fields),
        check!("pages together are the list as it was at the first one", pages),
        check!("metadata can be had alone", metadata),
    ]
}

async fn fill(world: &World) -> Result<()> {
    for (name, labels) in [
        ("a", json!({ "app": "web", "tier": "front" })),
        ("b", json!({ "app": "web" })),
        ("c", json!({ "app": "db" })),
        ("d", json!({})),
    ] {
        let lease: Lease = typed(json!({ "metadata": { "name": name, "labels": labels } }));
        world.api::<Lease>().create(&PostParams::default(), &lease).await?;
    }
    Ok(())
}

async fn names(world: &World, params: &ListParams) -> Result<String> {
    let list = world.api::<Lease>().list(params).await?;
    Ok(list.items.into_iter().filter_map(|lease| lease.metadata.name).collect())
}

async fn labels(world: World) -> Result<()> {
    fill(&world).await?;
    for (selector, expected) in [
        ("app=web", "ab"),
        ("app==web,tier", "a"),
        ("app!=web", "cd"),
        ("app in (web, db)", "abc"),
        ("app notin (db)", "abd"),
        ("tier", "a"),
        ("!app", "d"),
        ("app=web,!tier", "b"),
    ] {
        let found = names(&world, &ListParams::default().labels(selector)).await?;
        ensure!(found == expected, "{selector}: {found}, not {expected}");
    }
    let bad = world.api::<Lease>().list(&ListParams::default().labels("app in web")).await;
    refused(bad, 400, "BadRequest")?;
    Ok(())
}

async fn fields(world: World) -> Result<()> {
    fill(&world).await?;
    ensure!(names(&world, &ListParams::default().fields("metadata.name=b")).await? == "b");
    ensure!(names(&world, &ListParams::default().fields("metadata.name!=b")).await? == "acd");
    let bad = world.api::<Lease>().list(&ListParams::default().fields("spec.holderIdentity=x")).await;
    refused(bad, 400, "BadRequest")?;
    Ok(())
}

async fn pages(world: World) -> Result<()> {
    fill(&world).await?;
    let api = world.api::<Lease>();
    let first = api.list(&ListParams::default().limit(2)).await?;
    ensure!(first.items.len() == 2 && first.metadata.remaining_item_count == Some(2), "{:?}", first.metadata);
    api.delete("c", &kube::api::DeleteParams::default()).await?;
    let next = first.metadata.continue_.unwrap_or_default();
    let second = api.list(&ListParams::default().limit(10).continue_token(&next)).await?;
    let names: Vec<_> = second.items.into_iter().filter_map(|lease| lease.metadata.name).collect();
    ensure!(names == ["c", "d"], "the list changed between pages: {names:?}");
    ensure!(second.metadata.resource_version == first.metadata.resource_version);
    ensure!(second.metadata.continue_.unwrap_or_default().is_empty());
    Ok(())
}

async fn metadata(world: World) -> Result<()> {
    fill(&world).await?;
    let list = world.api::<Lease>().list_metadata(&ListParams::default().labels("tier")).await?;
    ensure!(list.items.len() == 1 && list.items[0].metadata.name.as_deref() == Some("a"));
    Ok(())
}
