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
use crate::e2e::stalls::Stalls;
use crate::e2e::visitors::{Met, Patience, Visitors};
use crate::e2e::world::{Space, eventually};

const AWAKE: &str = "awake";
const ASLEEP: &str = "asleep";
const WAKING: &str = "waking";
/// How many pods each of the two that sleep is to come back with.
const COUNT: i32 = 2;
/// How long the API server is away.
const AWAY: Duration = Duration::from_secs(20);
/// How soon after the API server answers again `KubeNap` must have written that the app is to wake. A new one forbids
/// everything until it has read its rights.
const OWN: Duration = Duration::from_secs(15);
/// How soon after its pods are ready whoever waits must be answered.
const ANSWERED: Duration = Duration::from_secs(10);
/// How long Kubernetes itself may take from that write to ready pods: each controller looks for the API server again only
/// after pauses that grow to a minute, and the node counts as lost until it was heard of.
const KUBERNETES: Duration = Duration::from_secs(150);
/// Of a client that is sent back while its cluster takes Traefik, on the node that was not heard of, for lost.
const SENT_BACK: Patience = Patience { tries: 120, pause: Duration::from_millis(500) };
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
    let (mut steady, mut held, mut retried, mut longest, mut own) = (0, 0, 0, 0, Duration::ZERO);
    for outage in [Outage::Hangs, Outage::Ends] {
        let (awake, asked, scaled) =
            without(space, outage).await.with_context(|| format!("the API server {outage:?}"))?;
        steady += awake;
        held += asked.requests;
        retried += asked.retried;
        longest = longest.max(asked.longest_ms);
        own = own.max(scaled);
    }
    Ok(vec![
        ("requests awake", steady),
        ("held", held),
        ("lost", 0),
        ("tried again", retried),
        ("longest held ms", longest),
        ("scaled up after ms", u64::try_from(own.as_millis())?),
    ])
}

/// One outage: how many requests of the app that is awake there were, what was met by those who were held, and how long
/// after it `KubeNap` had its app scaled up.
async fn without(space: &Space, outage: Outage) -> Result<(u64, Met, Duration)> {
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
    let sent_back = match outage {
        Outage::Hangs => Patience::NONE,
        Outage::Ends => SENT_BACK,
    };
    held.ask(
        "GET of the app that wakes",
        Caller::fresh(TRAEFIK, host(WAKING)),
        Call::get("/wakes"),
        sent_back,
    );
    eventually("it is on its way", Duration::from_secs(30), async || {
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
        held.ask("GET of the app that sleeps", Caller::fresh(TRAEFIK, host(ASLEEP)), get, sent_back);
        held.ask("POST to the app that sleeps", Caller::fresh(direct, ASLEEP), order(number), Patience::NONE);
    }
    sleep_until(begun + AWAY).await;
    let meanwhile = held.answered();
    back.end(space).await?;
    let (answers, stalls) = (Instant::now(), Stalls::since_now());

    let steady = steady.end().await?;
    steady.ensure_none_lost("visitors of the app that is awake", 300)?;
    eventually("KubeNap has written that the app is to wake", OWN, async || {
        let scalings = space.world.audit.scalings_since(before, &space.namespace, ASLEEP)?;
        ensure!(!scalings.is_empty(), "it has not");
        Ok(())
    })
    .await?;
    let scaled = answers.elapsed();
    eventually("pods of both apps are ready", KUBERNETES, async || {
        for app in [ASLEEP, WAKING] {
            ensure!(space.ready_replicas(app).await? > 0, "{app} has none");
        }
        Ok(())
    })
    .await?;
    let (ready, held) = (Instant::now(), held.end().await?);
    held.ensure_none_lost("those who were held", 2 * ASKS as u64 + 2)?;
    let (after, lost) = (ready.elapsed(), stalls.lost());
    ensure!(
        after <= ANSWERED + lost,
        "answered {after:?} after the pods were ready; the machine stood still for {lost:?}"
    );
    // Otherwise the API server was not away at all.
    ensure!(meanwhile <= 2, "{meanwhile} were answered while the API server was away");
    for app in [ASLEEP, WAKING] {
        space.until_awake(app, app, COUNT).await.with_context(|| app.to_owned())?;
    }
    space.until_awake(AWAKE, AWAKE, 1).await?;
    let scalings = space.world.audit.scalings_since(before, &space.namespace, ASLEEP)?;
    ensure!(scalings.len() == 1, "expected one write that changed the replicas, found {scalings:?}");
    space.world.members.ensure(&Settings::default()).await?;
    Ok((steady.requests, held, scaled))
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
