//! Two hundred requests at once wake an app once, and all are answered.

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::world::Space;

const APP: &str = "crowded";
const HOST: &str = "s5.test";
const EACH_WAY: usize = 100;
/// One, and more where a member hears of the pods late; the story of fifty naps counts them.
const REDIRECTS: usize = 3;

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.deploy(&App::new(APP).replicas(2).host(HOST).annotate("holdFor", "1m")).await?;
    space.nap(APP).await?;
    space.until_asleep(APP, APP).await?;
    let address = space.cluster_address(APP, 80).await?;
    let begun = space.world.audit.now()?;

    let mut visitors = JoinSet::new();
    for number in 0..EACH_WAY {
        for (to, host, most) in [(TRAEFIK, HOST, REDIRECTS), (address, APP, 0)] {
            visitors.spawn(async move {
                let call = Call::get(format!("/crowd?n={number}"));
                let journey = Caller::fresh(to, host).follow(&call, most).await?;
                journey.reply.ensure_from_app()?;
                anyhow::Ok(journey.took)
            });
        }
    }
    let mut longest = std::time::Duration::ZERO;
    let mut lost = Vec::new();
    while let Some(visitor) = visitors.join_next().await {
        match visitor.context("a visitor panicked")? {
            Ok(took) => longest = longest.max(took),
            Err(error) => lost.push(format!("{error:#}")),
        }
    }
    ensure!(lost.is_empty(), "{} of {} were not answered:\n{}", lost.len(), 2 * EACH_WAY, lost.join("\n"));

    space.until_awake(APP, APP, 2).await?;
    let scalings = space.world.audit.scalings_since(begun, &space.namespace, APP)?;
    ensure!(
        scalings.len() == 1 && scalings[0].replicas == 2,
        "expected one write that changed the replicas, the audit log has {scalings:?}"
    );
    ensure!(scalings[0].verb == "patch", "the wake was no patch: {scalings:?}");
    let longest = u64::try_from(longest.as_millis())?;
    Ok(vec![("answered", 2 * EACH_WAY as u64), ("scalings", 1), ("longest ms", longest)])
}
