//! A request at each moment of a nap and of the wake: none is lost.

use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use serde_json::json;
use tokio::time::sleep;

use super::stage::{Lane, Stage};
use crate::e2e::http::{Call, Caller, Content};
use crate::e2e::visitors::{Patience, Visitors};
use crate::e2e::world::eventually;

const EVERY: Duration = Duration::from_millis(100);

/// Naps under the visitors' eyes, who wake it in the same moment.
pub(super) async fn play(lane: &Lane, stage: &Stage<'_>) -> Result<String> {
    let (space, app) = (stage.space, &lane.site.app);
    let begun = space.world.audit.now()?;
    let mut visitors = Visitors::default();
    visitors.invite("fresh", lane.visitor(), EVERY, Patience::NONE);
    visitors.invite("kept alive", Caller::kept(lane.site.http, &lane.site.host), EVERY, Patience::NONE);
    visitors.invite_with("posts", lane.visitor(), EVERY, Patience::NONE, |number| {
        Call::post(format!("/post?n={number}"), Content::Sized(Bytes::from_static(b"hello")))
    });
    let napped = async {
        // The same that `kubenap nap --force` writes; it would wait for the pods, which are wanted again at once.
        space.patch(app, &json!({"metadata": {"annotations": {"kubenap/wish": "forceNap"}}})).await?;
        eventually(&format!("{app} was put to sleep"), Duration::from_secs(180), async || {
            let scalings = space.world.audit.scalings_since(begun, &space.namespace, app)?;
            ensure!(scalings.iter().any(|write| write.replicas == 0), "it was not");
            Ok(())
        })
        .await?;
        eventually(&format!("{app} is woken by its visitors"), Duration::from_secs(180), async || {
            let (phase, ready) = (space.phase(app).await?, space.ready_replicas(app).await?);
            ensure!(phase == "awake" && ready == 1, "phase {phase}, {ready} ready");
            Ok(())
        })
        .await
    };
    let napped = napped.await;
    // Proxies hear of it later than the Deployment says so.
    sleep(Duration::from_secs(3)).await;
    let met = visitors.end().await?;
    napped?;
    met.ensure_none_lost(lane.way.name, 50)?;
    let longest = Duration::from_millis(met.longest_ms).as_secs_f64();
    Ok(format!("{} requests, 0 lost, the longest {longest:.1} s", met.requests))
}
