//! An app with traffic never naps, and while it is awake nothing passes through `KubeNap`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::world::{Space, throughout};

const BUSY: &str = "busy";
const BUSY_HOST: &str = "s3-busy.test";
const KEPT: &str = "kept";
const KEPT_HOST: &str = "s3-kept.test";
const CONNECTIONS: usize = 8;
const EACH: usize = 1250;

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.deploy(&App::new(BUSY).host(BUSY_HOST).annotate("idleAfter", "3s")).await?;
    let begun = space.world.audit.now()?;
    steady(space).await?;
    let writes = space.world.audit.writes_since(begun, &space.namespace, BUSY)?;
    let left = writes.iter().find(|write| write.phase.as_ref().is_some_and(|phase| phase != "awake"));
    ensure!(left.is_none(), "the app with traffic was put to sleep: {left:?}");

    let before = space.world.members.sum("kubenap_asks_total").await?;
    load().await?;
    let after = space.world.members.sum("kubenap_asks_total").await?;
    ensure!((after - before).abs() < 0.5, "KubeNap saw {} of the requests to an awake app", after - before);

    kept_alive(space).await?;
    Ok(vec![("requests", (CONNECTIONS * EACH) as u64), ("through KubeNap", 0)])
}

/// A request each 200 ms for half a minute, ten times the app's `idleAfter`.
async fn steady(space: &Space) -> Result<()> {
    let mut visitor = Caller::kept(TRAEFIK, BUSY_HOST);
    throughout(Duration::from_secs(30), async || {
        visitor.send(&Call::get("/steady")).await?.ensure_from_app()?;
        let (phase, replicas) = (space.phase(BUSY).await?, space.replicas(BUSY).await?);
        ensure!(phase == "awake" && replicas == 1, "phase {phase}, {replicas} replicas under traffic");
        Ok(())
    })
    .await
}

async fn load() -> Result<()> {
    let mut visitors = JoinSet::new();
    for _ in 0..CONNECTIONS {
        visitors.spawn(async {
            let mut visitor = Caller::kept(TRAEFIK, BUSY_HOST);
            for _ in 0..EACH {
                visitor.send(&Call::get("/load")).await?.ensure_from_app()?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(visitor) = visitors.join_next().await {
        visitor.context("a visitor panicked")??;
    }
    Ok(())
}

/// A visitor whose kept connection went through the wake is not held on to by `KubeNap`.
async fn kept_alive(space: &Space) -> Result<()> {
    space.deploy(&App::new(KEPT).host(KEPT_HOST)).await?;
    space.nap(KEPT).await?;
    space.until_asleep(KEPT, KEPT).await?;
    let mut visitor = Caller::kept(TRAEFIK, KEPT_HOST);
    visitor.follow(&Call::get("/first"), 1).await?.reply.ensure_from_app()?;
    space.until_awake(KEPT, KEPT, 1).await?;
    sleep(Duration::from_secs(5)).await;
    let before = space.world.members.sum("kubenap_asks_total").await?;
    visitor.send(&Call::get("/second")).await?.ensure_from_app()?;
    let after = space.world.members.sum("kubenap_asks_total").await?;
    ensure!((after - before).abs() < 0.5, "a kept-alive visitor still goes through KubeNap after the wake");
    Ok(())
}
