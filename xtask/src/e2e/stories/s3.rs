//! An app with traffic never naps, and while it is awake nothing passes through `KubeNap`.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::world::{Space, eventually, throughout};

const BUSY: &str = "busy";
const BUSY_HOST: &str = "s3-busy.test";
const KEPT: &str = "kept";
const KEPT_HOST: &str = "s3-kept.test";
const CONNECTIONS: usize = 8;
const EACH: usize = 1250;
/// Longer than a machine stands still that has much else to do: a gap in the traffic is a reason to nap.
const IDLE_AFTER: &str = "10s";

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.deploy(&App::new(BUSY).host(BUSY_HOST)).await?;
    let begun = space.world.audit.now()?;
    steady(space).await?;
    let writes = space.world.audit.writes_since(begun, &space.namespace, BUSY)?;
    let left = writes.iter().find(|write| write.phase.as_ref().is_some_and(|phase| phase != "awake"));
    ensure!(left.is_none(), "the app with traffic was put to sleep: {left:?}");

    // Nobody visits it from now on but those who are counted.
    space.annotate(BUSY, "idleAfter", "1h").await?;
    let before = space.world.members.sum("kubenap_asks_total").await?;
    load().await?;
    let after = space.world.members.sum("kubenap_asks_total").await?;
    ensure!((after - before).abs() < 0.5, "KubeNap saw {} of the requests to an awake app", after - before);

    kept_alive(space).await?;
    Ok(vec![("requests", (CONNECTIONS * EACH) as u64), ("through KubeNap", 0)])
}

/// A request each 200 ms for so long that the app would nap three times without.
async fn steady(space: &Space) -> Result<()> {
    let mut visitor = Caller::kept(TRAEFIK, BUSY_HOST);
    visitor.send(&Call::get("/first")).await?.ensure_from_app()?;
    space.annotate(BUSY, "idleAfter", IDLE_AFTER).await?;
    throughout(Duration::from_secs(40), async || {
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
    // Traefik hears of the wake a little later.
    eventually(
        "a kept-alive visitor does not go through KubeNap any more",
        Duration::from_secs(30),
        async || {
            let before = space.world.members.sum("kubenap_asks_total").await?;
            for number in 0..5 {
                visitor.send(&Call::get(format!("/second?n={number}"))).await?.ensure_from_app()?;
            }
            let after = space.world.members.sum("kubenap_asks_total").await?;
            ensure!((after - before).abs() < 0.5, "{} of 5 requests did", after - before);
            Ok(())
        },
    )
    .await
}
