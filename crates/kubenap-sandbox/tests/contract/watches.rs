//! Watches: what they send, where they begin, how they end.
use crate::harness::{Check, World, check, typed};
use anyhow::{Context, Result, bail, ensure};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use std::time::Duration;

pub(crate) fn checks() -> Vec<Check> {
    vec![
        check!("a watch sends ADDED, MODIFIED and DELETED, and can be taken up from a version", changes),
        check!("what leaves a label selector is DELETED, what enters is ADDED", selected),
        check!("a bookmark comes by the end", bookmark),
        check!("a watch of all namespaces sees every one", everywhere),
        // A real API server compacts every five minutes: it cannot be brought about from outside.
        check!("a version that is too old is answered 410", too_old).in_the_sandbox_only(),
    ]
}

fn lease(name: &str, label: &str) -> Lease {
    typed(json!({ "metadata": { "name": name, "labels": { "watched": label } } }))
}

/// The type and name of the next event that is no bookmark.
async fn next(events: &mut BoxStream<'_, kube::Result<WatchEvent<Lease>>>) -> Result<(&'static str, Lease)> {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(60), events.try_next()).await;
        match event.context("no event in a minute")??.context("the watch ended")? {
            WatchEvent::Added(lease) => return Ok(("ADDED", lease)),
            WatchEvent::Modified(lease) => return Ok(("MODIFIED", lease)),
            WatchEvent::Deleted(lease) => return Ok(("DELETED", lease)),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => bail!("the watch says {status:?}"),
        }
    }
}

async fn changes(world: World) -> Result<()> {
    let api = world.api::<Lease>();
    let from = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let mut events = api.watch(&WatchParams::default(), &from).await?.boxed();
    api.create(&PostParams::default(), &lease("a", "x")).await?;
    let (kind, added) = next(&mut events).await?;
    ensure!(kind == "ADDED" && added.metadata.name.as_deref() == Some("a"));
    let patch = json!({ "spec": { "holderIdentity": "me" } });
    api.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await?;
    ensure!(next(&mut events).await?.0 == "MODIFIED");
    api.delete("a", &DeleteParams::default()).await?;
    let (kind, last) = next(&mut events).await?;
    ensure!(kind == "DELETED" && last.metadata.resource_version > added.metadata.resource_version);
    let version = added.metadata.resource_version.unwrap_or_default();
    let mut again = api.watch(&WatchParams::default(), &version).await?.boxed();
    ensure!(next(&mut again).await?.0 == "MODIFIED", "taken up after ADDED");
    ensure!(next(&mut again).await?.0 == "DELETED");
    Ok(())
}

async fn selected(world: World) -> Result<()> {
    let api = world.api::<Lease>();
    let from = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let mut events = api.watch(&WatchParams::default().labels("watched=yes"), &from).await?.boxed();
    api.create(&PostParams::default(), &lease("a", "no")).await?;
    for (label, expected) in [("yes", "ADDED"), ("no", "DELETED")] {
        let patch = json!({ "metadata": { "labels": { "watched": label } } });
        let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await?;
        let (kind, object) = next(&mut events).await?;
        ensure!(kind == expected, "label {label}: {kind}");
        ensure!(
            object.metadata.resource_version == patched.metadata.resource_version,
            "{kind} has another version"
        );
    }
    Ok(())
}

async fn bookmark(world: World) -> Result<()> {
    let api = world.api::<Lease>();
    api.create(&PostParams::default(), &lease("a", "x")).await?;
    let from = api.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    // A real API server promises none; it sends one two seconds before the end, unless it is too busy just then.
    for _ in 0..4 {
        // WatchParams ask for bookmarks unless told not to.
        let events = api.watch(&WatchParams::default().timeout(5), &from).await?;
        let events: Vec<_> = events.try_collect().await?;
        if events.iter().any(|event| matches!(event, WatchEvent::Bookmark(_))) {
            return Ok(());
        }
    }
    bail!("four watches ended without one")
}

async fn everywhere(world: World) -> Result<()> {
    let all: kube::Api<Lease> = kube::Api::all(world.client.clone());
    let from = all.list(&ListParams::default()).await?.metadata.resource_version.unwrap_or_default();
    let mut events = all.watch(&WatchParams::default().labels("watched=everywhere"), &from).await?.boxed();
    world.api::<Lease>().create(&PostParams::default(), &lease("a", "everywhere")).await?;
    let (kind, object) = next(&mut events).await?;
    ensure!(kind == "ADDED" && object.metadata.namespace == Some(world.namespace));
    Ok(())
}

async fn too_old(world: World) -> Result<()> {
    let api = world.api::<Lease>();
    let sandbox = world.sandbox.clone().context("only in the sandbox")?;
    let first = api.list(&ListParams::default().limit(1)).await?;
    api.create(&PostParams::default(), &lease("a", "x")).await?;
    sandbox.compact();
    let from = first.metadata.resource_version.unwrap_or_default();
    let mut events = api.watch(&WatchParams::default(), &from).await?.boxed();
    match events.try_next().await? {
        Some(WatchEvent::Error(status)) => {
            ensure!(status.code == 410 && status.reason == "Expired", "{status:?}");
        }
        other => bail!("410 expected, was {other:?}"),
    }
    Ok(())
}
