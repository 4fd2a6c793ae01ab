//! The leader dies in each step of a nap, and the app is never without an answer, nor without its count.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use kube::ResourceExt as _;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::members::Settings;
use crate::e2e::visitors::{Patience, Visitors};
use crate::e2e::world::{Space, eventually};

const BUSY: &str = "busy";
const BUSY_HOST: &str = "leader-busy.test";
const STILL: &str = "still";
const COUNT: i32 = 2;

/// When the leader dies.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// N2: the phase is drowsy, and perhaps no slice is there yet.
    Armed,
    /// N3: the slices of both members are there.
    Substituted,
    /// N4, N5: in the middle of the drowsy window.
    Drowsy,
    /// N6: zero replicas are written, and pods still run.
    ScaledDown,
}

const STEPS: [Step; 4] = [Step::Armed, Step::Substituted, Step::Drowsy, Step::ScaledDown];
/// Until somebody leads again, a client may have to try for as long as a process takes to start.
const PATIENCE: Patience = Patience { tries: 25, pause: Duration::from_millis(200) };

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let app = |name| App::new(name).replicas(COUNT).stop(Duration::from_secs(5));
    space.deploy(&app(BUSY).host(BUSY_HOST)).await?;
    space.deploy(&app(STILL)).await?;
    let (mut requests, mut retried, mut asleep) = (0, 0, 0);
    for step in STEPS {
        let mut visitors = Visitors::default();
        let direct = Caller::fresh(space.cluster_address(BUSY, 80).await?, BUSY);
        visitors.invite(
            "through Traefik",
            Caller::fresh(TRAEFIK, BUSY_HOST),
            Duration::from_millis(80),
            PATIENCE,
        );
        visitors.invite("to the ClusterIP", direct, Duration::from_millis(80), PATIENCE);
        let slept = dies(space, step).await.with_context(|| format!("the leader dies: {step:?}"))?;
        asleep += u64::from(slept);
        // The next leader carries out what was wished of the dead one: without visitors nobody would end that nap.
        eventually("what was wished of the visited app is done", Duration::from_secs(90), async || {
            ensure_done(space, BUSY).await
        })
        .await?;
        space.until_awake(BUSY, BUSY, COUNT).await.with_context(|| format!("after {step:?}"))?;
        let met = visitors.end().await?;
        met.ensure_none_lost(&format!("the leader dies: {step:?}"), 20)?;
        (requests, retried) = (requests + met.requests, retried + met.retried);
    }
    Ok(vec![
        ("deaths", STEPS.len() as u64),
        ("requests", requests),
        ("tried again", retried),
        ("lost", 0),
        ("ended asleep", asleep),
    ])
}

/// One nap of both apps, and one death. Whether the app that nobody visits ended asleep.
async fn dies(space: &Space, step: Step) -> Result<bool> {
    let members = &space.world.members;
    let leader = members.leader().await?;
    let process = members.process(&leader).await?;
    let wish = json!({"metadata": {"annotations": {"kubenap/wish": "forceNap"}}});
    let begun = space.world.audit.now()?;
    let reached = async {
        until(space, step).await?;
        members.end(&leader, process).await
    };
    let wished = async {
        // The watch is there first.
        sleep(Duration::from_millis(500)).await;
        for app in [BUSY, STILL] {
            space.patch(app, &wish).await?;
        }
        Ok(())
    };
    futures::future::try_join(reached, wished).await?;
    members.ensure(&Settings::default()).await?;

    let slept = eventually("the app has ended its nap", Duration::from_secs(90), async || {
        // The next leader may carry out the wish of the dead one only now, with the app awake in between.
        ensure_done(space, STILL).await?;
        let awake = space.ensure_untouched(STILL, STILL).await;
        let (phase, replicas) = (space.phase(STILL).await?, space.replicas(STILL).await?);
        let count = space.annotation(STILL, "kubenap/restoreReplicas").await?;
        match (phase.as_str(), replicas) {
            ("awake", COUNT) => awake.map(|()| false),
            ("asleep", 0) => {
                ensure!(count.as_deref() == Some("2"), "asleep, to be woken to {count:?}");
                let ours = space.our_addresses(STILL).await?;
                ensure!(ours.len() == 2, "KubeNap's addresses: {ours:?}");
                Ok(true)
            }
            _ => bail!("phase {phase}, {replicas} replicas, to be restored: {count:?}"),
        }
    })
    .await?;
    let scalings = space.world.audit.scalings_since(begun, &space.namespace, STILL)?;
    ensure!(scalings.len() <= 1, "one nap changes the replicas once: {scalings:?}");
    // Pods that end still answer for a while: only who comes after them wakes the app.
    let mut neighbour = space.neighbour(STILL).await?;
    eventually("the app is awake for its neighbour", Duration::from_secs(90), async || {
        neighbour.send(&Call::get("/")).await?.ensure_from_app()?;
        space.ensure_untouched(STILL, STILL).await?;
        let replicas = space.replicas(STILL).await?;
        ensure!(replicas == COUNT, "{replicas} replicas");
        Ok(())
    })
    .await?;
    space.until_awake(STILL, STILL, COUNT).await?;
    Ok(slept)
}

/// Fails as long as a nap is wished of the app.
async fn ensure_done(space: &Space, app: &str) -> Result<()> {
    let wish = space.annotation(app, "kubenap/wish").await?;
    ensure!(wish.is_none(), "{app}: {wish:?} is wished");
    Ok(())
}

/// Waits for the moment, as a watch shows it.
async fn until(space: &Space, step: Step) -> Result<()> {
    let wanted = if matches!(step, Step::ScaledDown) { "asleep" } else { "drowsy" };
    let one = WatchParams::default().fields(&format!("metadata.name={STILL}")).timeout(60);
    let mut events = space.api::<Deployment>().watch(&one, "0").await?.boxed();
    let seen = async {
        while let Some(event) = events.next().await {
            let (WatchEvent::Added(deployment) | WatchEvent::Modified(deployment)) = event? else { continue };
            if deployment.annotations().get("kubenap/phase").is_some_and(|phase| phase == wanted) {
                return Ok(());
            }
        }
        bail!("the watch ended")
    };
    timeout(Duration::from_secs(60), seen).await.with_context(|| format!("the app is not {wanted}"))??;
    if matches!(step, Step::Substituted | Step::Drowsy) {
        eventually("both members have written their slices", Duration::from_secs(20), async || {
            let ours = space.our_addresses(STILL).await?;
            ensure!(ours.len() == 2, "{ours:?}");
            Ok(())
        })
        .await?;
    }
    if matches!(step, Step::Drowsy) {
        sleep(Duration::from_millis(1500)).await;
        let phase = space.phase(STILL).await?;
        ensure!(phase == "drowsy", "the window is over: {phase}");
    }
    Ok(())
}
