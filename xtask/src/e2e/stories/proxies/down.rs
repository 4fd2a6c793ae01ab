//! `KubeNap` is down: an awake app does not notice, and a sleeping one's visitors are told quickly.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use tokio::time::timeout;

use super::kinds::{MOST_REDIRECTS, seconds, told};
use super::stage::Lane;
use crate::e2e::http::{Call, Journey};
use crate::e2e::world::eventually;

/// A visitor of a sleeping app is told within this time that nobody is there.
const QUICKLY: Duration = Duration::from_secs(10);
const REQUESTS: u64 = 20;
/// To where somebody would say that nobody is there.
const FEW_REDIRECTS: usize = 2;
/// Proxies hear of members that are back some time after these say so themselves.
const HEARD_OF: Duration = Duration::from_secs(60);

/// With every member gone.
pub(super) async fn play(lane: &Lane) -> Result<String> {
    for number in 0..REQUESTS {
        let reply = lane.patient_visitor().send(&Call::get(format!("/down?n={number}"))).await?;
        reply.ensure_from_app()?;
    }
    let told =
        eventually("the proxy has heard that nobody is there", HEARD_OF, async || told_nobody(lane).await);
    Ok(format!("awake: untouched; asleep: {}", told.await?))
}

/// What a visitor of the sleeping app is told, quickly.
async fn told_nobody(lane: &Lane) -> Result<String> {
    let begun = tokio::time::Instant::now();
    let (mut visitor, call) = (lane.visitor(), Call::get("/down"));
    let asked = timeout(QUICKLY, visitor.follow(&call, FEW_REDIRECTS)).await;
    let took = seconds(begun.elapsed());
    let Ok(asked) = asked else { bail!("a visitor of the sleeping app was told nothing for {QUICKLY:?}") };
    match asked {
        Ok(Journey { reply, redirects, .. }) => {
            let refused = reply.status >= 500 || reply.status == 404;
            ensure!(refused, "a visitor of the sleeping app was answered {reply:?}");
            Ok(format!("{}{} after {took}", "307 → ".repeat(redirects.len()), reply.status))
        }
        Err(error) => Err(error.context("a visitor of the sleeping app")),
    }
}

/// Once it is back, the next visitor wakes the app.
pub(super) async fn back(lane: &Lane) -> Result<String> {
    eventually("it is heard of KubeNap", HEARD_OF, async || {
        let journey = lane.visitor().follow(&Call::get("/back"), MOST_REDIRECTS).await?;
        journey.reply.ensure_from_app()?;
        Ok(told(&journey))
    })
    .await
}
