//! KubeNap is rolled while an app sleeps, and while 400 requests are held, and no request is lost.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::time::sleep;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller, Content};
use crate::e2e::members::{HOME, RELEASE};
use crate::e2e::visitors::{Met, Patience, Visitors};
use crate::e2e::world::{Space, eventually};

const SLEEPER: &str = "sleeper";
const HOST: &str = "rolled-sleeper.test";
const SLOW: &str = "slow";
const SLOW_HOST: &str = "rolled-slow.test";
/// Longer than it takes until both new members are ready and both old ones have begun to leave.
const BOOT: Duration = Duration::from_secs(10);
const HELD_EACH_WAY: usize = 200;
/// How often the sleeping app is visited while KubeNap is rolled; it is put to sleep again after each visit.
const VISITS: u64 = 4;

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.deploy(&App::new(SLEEPER).replicas(2).host(HOST).idle_after("2s")).await?;
    space.deploy(&App::new(SLOW).host(SLOW_HOST).boot(BOOT)).await?;
    let (visits, redirects) = now_and_then(space).await.context("rolled while an app sleeps")?;
    let held = while_held(space).await.context("rolled while requests are held")?;
    Ok(vec![
        ("visits", visits),
        ("most redirects", redirects),
        ("held", held.requests),
        ("held and redirected", held.redirected),
        ("lost", 0),
        ("longest held ms", held.longest_ms),
    ])
}

/// Before, in the middle of and after a roll-out a visitor finds the app asleep, and gets its answer.
async fn now_and_then(space: &Space) -> Result<(u64, u64)> {
    space.until_asleep(SLEEPER, SLEEPER).await?;
    let (mut visits, mut redirects) = (0, 0);
    let visiting = async {
        while visits < VISITS {
            for (to, host) in [(TRAEFIK, HOST), (space.cluster_address(SLEEPER, 80).await?, SLEEPER)] {
                asleep_or_nearly(space).await?;
                let journey = Caller::fresh(to, host).follow(&Call::get("/now-and-then"), 20).await?;
                journey.reply.ensure_from_app()?;
                visits += 1;
                redirects = redirects.max(journey.redirects.len() as u64);
            }
        }
        anyhow::Ok(())
    };
    let (rolled, visited) = tokio::join!(roll(space), visiting);
    rolled?;
    visited.with_context(|| format!("after {visits} visits"))?;
    // One that is told to come again by a member that leaves meets two, and no more.
    ensure!(redirects <= 2, "a visitor was redirected {redirects} times");
    space.until_asleep(SLEEPER, SLEEPER).await.context("after the roll-out")?;
    Ok((visits, redirects))
}

/// The roll-out goes on meanwhile, so that how many members there are says nothing.
async fn asleep_or_nearly(space: &Space) -> Result<()> {
    eventually("the app sleeps", Duration::from_secs(90), async || {
        let (replicas, phase) = (space.replicas(SLEEPER).await?, space.phase(SLEEPER).await?);
        ensure!(replicas == 0 && phase == "asleep", "{replicas} replicas, phase {phase}");
        let pods = space.pods(SLEEPER).await?.len();
        ensure!(pods == 0, "{pods} pods are left");
        Ok(())
    })
    .await
}

/// 400 requests wait for an app that boots slowly, and both members that hold them leave.
async fn while_held(space: &Space) -> Result<Met> {
    space.nap(SLOW).await?;
    space.until_asleep(SLOW, SLOW).await?;
    let address = space.cluster_address(SLOW, 80).await?;
    let mut visitors = Visitors::default();
    let begun = space.world.audit.now()?;
    let rolling = tokio::time::Instant::now();
    let rolled = async {
        // The old members are to hold all of them, and to leave before the app is ready.
        restart(space).await?;
        sleep(Duration::from_millis(500)).await;
        for number in 0..HELD_EACH_WAY {
            let get = Call::get(format!("/held?n={number}"));
            visitors.ask("GET through Traefik", Caller::fresh(TRAEFIK, SLOW_HOST), get, Patience::NONE);
            let body = Content::Sized(Bytes::from(format!("order {number}")));
            let post = Call::post(format!("/held?n={number}"), body);
            visitors.ask("POST to the ClusterIP", Caller::fresh(address, SLOW), post, Patience::NONE);
        }
        wait_for_roll(space).await
    };
    rolled.await?;
    let met = visitors.end().await?;
    crate::e2e::say(&format!("rolled in {:.1} s: {met:?}", rolling.elapsed().as_secs_f64()));
    met.ensure_none_lost("held through a roll-out", 2 * HELD_EACH_WAY as u64)?;
    ensure!(
        u128::from(met.longest_ms) >= BOOT.as_millis() / 2,
        "nothing was held: the longest took {} ms",
        met.longest_ms
    );
    let scalings = space.world.audit.scalings_since(begun, &space.namespace, SLOW)?;
    ensure!(scalings.len() == 1, "expected one write that changed the replicas, found {scalings:?}");
    space.until_awake(SLOW, SLOW, 1).await?;
    Ok(met)
}

async fn roll(space: &Space) -> Result<()> {
    restart(space).await?;
    wait_for_roll(space).await
}

async fn restart(space: &Space) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}");
    space.world.kubectl(&["-n", HOME, "rollout", "restart", &deployment]).await.map(drop)
}

/// Until both new members run and both old ones have left.
async fn wait_for_roll(space: &Space) -> Result<()> {
    let deployment = format!("deployment/{RELEASE}");
    let world = &space.world;
    world.kubectl(&["-n", HOME, "rollout", "status", &deployment, "--timeout=55s"]).await?;
    eventually("the old members have left", Duration::from_secs(90), async || {
        let pods =
            world.kubectl(&["-n", HOME, "get", "pods", "-l", "app.kubernetes.io/name=kubenap", "-o", "name"]);
        let pods = pods.await?;
        ensure!(pods.lines().count() == 2, "{pods}");
        Ok(())
    })
    .await?;
    world.members.ensure_led().await
}
