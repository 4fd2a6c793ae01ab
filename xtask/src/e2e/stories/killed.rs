//! One of two members dies without a goodbye while apps are awake, asleep and waking, and an ordinary client hardly notices.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt as _;
use kube::api::ListParams;
use tokio::time::{Instant, sleep, sleep_until};

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::Caller;
use crate::e2e::members::Settings;
use crate::e2e::visitors::{Met, Patience, Visitors};
use crate::e2e::world::{Space, eventually};

const AWAKE: &str = "awake";
const ASLEEP: &str = "asleep";
const WAKING: &str = "waking";
/// How long visitors come after the death.
const WINDOW: Duration = Duration::from_secs(15);
/// How soon no Service may lead to the dead one any more.
const CLEARED: Duration = Duration::from_secs(20);
/// Each visitor of an app comes again this long after its answer.
const EVERY: Duration = Duration::from_millis(60);
const EACH_WAY: usize = 2;

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    for (app, boot) in [(AWAKE, 0), (ASLEEP, 0), (WAKING, 4)] {
        let app = App::new(app).host(&host(app)).boot(Duration::from_secs(boot));
        space.deploy(&app.stop(Duration::from_secs(5))).await?;
    }
    let members = &space.world.members;
    let mut all = Vec::new();
    let follower = members.follower().await?;
    let death = async || members.crash(&follower).await;
    all.push(round(space, death).await.context("SIGKILL of the follower's process")?);
    members.ensure(&Settings::default()).await?;
    let leader = members.leader().await?;
    let death = async || members.lose(&leader).await;
    all.push(round(space, death).await.context("loss of the leader's pod")?);
    members.ensure(&Settings::default()).await?;

    let sum = |of: fn(&Met) -> u64| all.iter().flatten().map(of).sum::<u64>();
    Ok(vec![
        ("deaths", all.len() as u64),
        ("requests", sum(|met| met.requests)),
        ("tried again", sum(|met| met.retried)),
        ("lost", sum(|met| met.lost.len() as u64)),
        ("longest ms", all.iter().flatten().map(|met| met.longest_ms).max().unwrap_or(0)),
    ])
}

/// A death under traffic: what was met by visitors of the app that is awake, and of the two others.
async fn round(space: &Space, death: impl AsyncFnOnce() -> Result<()>) -> Result<[Met; 2]> {
    for app in [ASLEEP, WAKING] {
        space.nap(app).await?;
        space.until_asleep(app, app).await?;
    }
    let (mut awake, mut others) = (Visitors::default(), Visitors::default());
    // A client of an app that is awake has nothing to try again for.
    invite(space, &mut awake, AWAKE, Patience::NONE).await?;
    invite(space, &mut others, WAKING, Patience::ORDINARY).await?;
    sleep(Duration::from_millis(1500)).await;
    let phase = space.phase(WAKING).await?;
    ensure!(phase == "waking", "{WAKING} must be on its way when the member dies, it is {phase}");
    death().await?;
    let died = Instant::now();
    invite(space, &mut others, ASLEEP, Patience::ORDINARY).await?;
    sleep_until(died + WINDOW).await;
    let (awake, others) = (awake.end().await?, others.end().await?);

    awake.ensure_none_lost("visitors of the app that is awake", 300)?;
    let (lost, all) = (others.lost.len() as u64, awake.requests + others.requests);
    let line = format!("{lost} of {all} requests were lost, {} were tried again", others.retried);
    crate::e2e::say(&line);
    ensure!(others.requests >= 200, "only {} requests", others.requests);
    ensure!(lost * 100 <= all, "more than one in a hundred: {line}:\n{}", others.lost.join("\n"));
    let left = CLEARED.saturating_sub(died.elapsed());
    eventually("no Service leads to the dead", left, async || nothing_dead(space).await).await?;
    for app in [AWAKE, ASLEEP, WAKING] {
        space.until_awake(app, app, 1).await?;
    }
    Ok([awake, others])
}

async fn invite(space: &Space, visitors: &mut Visitors, app: &str, patience: Patience) -> Result<()> {
    let address = space.cluster_address(app, 80).await?;
    for _ in 0..EACH_WAY {
        for (way, caller) in [
            ("through Traefik", Caller::fresh(TRAEFIK, host(app))),
            ("to the ClusterIP", Caller::fresh(address, app)),
        ] {
            visitors.invite(&format!("{app} {way}"), caller, EVERY, patience);
        }
    }
    Ok(())
}

/// Fails if a Service leads to an address of KubeNap's at which no member lives.
async fn nothing_dead(space: &Space) -> Result<()> {
    let living = space.world.members.living().await?;
    let living: BTreeSet<_> = living.into_iter().map(|member| member.address.to_string()).collect();
    for service in space.api::<Service>().list(&ListParams::default()).await? {
        let ours = space.our_addresses(&service.name_any()).await?;
        let dead: Vec<_> = ours.difference(&living).collect();
        ensure!(dead.is_empty(), "{} leads to {dead:?}, members live at {living:?}", service.name_any());
    }
    Ok(())
}

fn host(app: &str) -> String {
    format!("killed-{app}.test")
}
