//! The API server hangs, and is gone, while apps are awake, asleep and waking: who is served goes on being served, who
//! waits is answered when it is back.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rustix::process::{Signal, kill_process};
use tokio::time::{Instant, sleep, sleep_until};

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::frozen::Frozen;
use crate::e2e::http::{Call, Caller, Content};
use crate::e2e::members::Settings;
use crate::e2e::visitors::{Met, Patience, Visitors};
use crate::e2e::world::{Space, eventually};

const AWAKE: &str = "awake";
const ASLEEP: &str = "asleep";
const WAKING: &str = "waking";
/// How many pods each of the two that sleep is to come back with.
const COUNT: i32 = 2;
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(20);
/// How many requests of each kind are made of a sleeping app while it is away.
const ASKS: usize = 10;

/// What the API server does.
#[derive(Clone, Copy, Debug)]
enum Outage {
    /// It takes connections, and says nothing.
    Hangs,
    /// It refuses connections, and comes back as another process.
    Ends,
}

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.deploy(&App::new(AWAKE).host(&host(AWAKE))).await?;
    space.deploy(&App::new(ASLEEP).replicas(COUNT).host(&host(ASLEEP))).await?;
    space.deploy(&App::new(WAKING).replicas(COUNT).host(&host(WAKING)).boot(Duration::from_secs(5))).await?;
    let (mut steady, mut held, mut longest) = (0, 0, 0);
    for outage in [Outage::Hangs, Outage::Ends] {
        let (awake, asked) =
            without(space, outage).await.with_context(|| format!("the API server {outage:?}"))?;
        steady += awake;
        held += asked.requests;
        longest = longest.max(asked.longest_ms);
    }
    Ok(vec![("requests awake", steady), ("held", held), ("lost", 0), ("longest held ms", longest)])
}

/// One outage: how many requests of the app that is awake there were, and what was met by those who were held.
async fn without(space: &Space, outage: Outage) -> Result<(u64, Met)> {
    for app in [ASLEEP, WAKING] {
        space.nap(app).await?;
        space.until_asleep(app, app).await?;
    }
    let (mut steady, mut held) = (Visitors::default(), Visitors::default());
    let awake = space.cluster_address(AWAKE, 80).await?;
    let direct = space.cluster_address(ASLEEP, 80).await?;
    let waking = space.neighbour(WAKING).await?;
    for caller in
        [Caller::fresh(TRAEFIK, host(AWAKE)), Caller::kept(TRAEFIK, host(AWAKE)), Caller::fresh(awake, AWAKE)]
    {
        steady.invite("the app that is awake", caller, Duration::from_millis(50), Patience::NONE);
    }
    held.ask("POST to the app that wakes", waking, order(0), Patience::NONE);
    held.ask(
        "GET of the app that wakes",
        Caller::fresh(TRAEFIK, host(WAKING)),
        Call::get("/wakes"),
        Patience::NONE,
    );
    eventually("it is on its way", Duration::from_secs(10), async || {
        let phase = space.phase(WAKING).await?;
        ensure!(phase == "waking", "it is {phase}");
        Ok(())
    })
    .await?;
    let before = space.world.audit.now()?;

    let back = outage.begin(space)?;
    let begun = Instant::now();
    // Nobody asks it anything until it is back, not even for the answers' sake.
    sleep(Duration::from_secs(2)).await;
    for number in 0..ASKS {
        let get = Call::get(format!("/held?n={number}"));
        held.ask("GET of the app that sleeps", Caller::fresh(TRAEFIK, host(ASLEEP)), get, Patience::NONE);
        held.ask("POST to the app that sleeps", Caller::fresh(direct, ASLEEP), order(number), Patience::NONE);
    }
    sleep_until(begun + AWAY).await;
    let meanwhile = held.answered();
    back.end(space).await?;

    let steady = steady.end().await?;
    steady.ensure_none_lost("visitors of the app that is awake", 300)?;
    let held = held.end().await?;
    held.ensure_none_lost("those who were held", 2 * ASKS as u64 + 2)?;
    // Otherwise the API server was not away at all.
    ensure!(meanwhile <= 2, "{meanwhile} were answered while the API server was away");
    for app in [ASLEEP, WAKING] {
        space.until_awake(app, app, COUNT).await.with_context(|| app.to_owned())?;
    }
    space.until_awake(AWAKE, AWAKE, 1).await?;
    let scalings = space.world.audit.scalings_since(before, &space.namespace, ASLEEP)?;
    ensure!(scalings.len() == 1, "expected one write that changed the replicas, found {scalings:?}");
    space.world.members.ensure(&Settings::default()).await?;
    Ok((steady.requests, held))
}

/// What brings it back.
enum Back {
    Thaw(Frozen),
    Start,
}

impl Outage {
    fn begin(self, space: &Space) -> Result<Back> {
        let process = space.world.cluster.pid("apiserver")?;
        match self {
            Self::Hangs => Ok(Back::Thaw(Frozen::new(process)?)),
            Self::Ends => {
                kill_process(process, Signal::KILL).context("end the API server")?;
                Ok(Back::Start)
            }
        }
    }
}

impl Back {
    async fn end(self, space: &Space) -> Result<()> {
        match self {
            Self::Thaw(frozen) => drop(frozen),
            Self::Start => space.world.cluster.start_api_server().await?,
        }
        eventually("the API server answers", Duration::from_secs(60), async || {
            space.phase(AWAKE).await.map(drop)
        })
        .await
    }
}

fn order(number: usize) -> Call {
    Call::post(format!("/order?n={number}"), Content::Sized(Bytes::from(format!("order {number}"))))
}

fn host(app: &str) -> String {
    format!("away-{app}.test")
}
