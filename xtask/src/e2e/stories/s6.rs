//! What people do to an app in the middle of a nap is respected.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::time::{Instant, sleep};

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::world::{Ran, Space, eventually, throughout};

/// How often a nap is tried again that ended because the machine stood still while the app was drowsy.
const TRIES: usize = 4;
/// The app is drowsy for longer than this, and so is asked meanwhile if its visitors come more often.
const OFTEN: Duration = Duration::from_secs(1);

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    drowsy_is_cancelled(space).await.context("a request in the drowsy phase")?;
    undo_while_asleep(space).await.context("kubectl rollout undo while asleep")?;
    scaled_up_while_asleep(space).await.context("kubectl scale while asleep")?;
    two_ports(space).await.context("a Service with two ports")?;
    two_deployments(space).await.context("two Deployments behind one Service")?;
    zero_of_somebody_else(space).await.context("kubectl scale --replicas=0 without replicaCount")?;
    zero_with_a_count(space).await.context("kubectl scale --replicas=0 with replicaCount")?;
    Ok(vec![("cases", 7)])
}

/// Its visitors come all the time, so also in the drowsy phase.
async fn drowsy_is_cancelled(space: &Space) -> Result<()> {
    space.deploy(&App::new("light")).await?;
    for _ in 0..TRIES {
        let begun = space.world.audit.now()?;
        let (ran, apart) = nap_under_visits(space, "light").await?;
        if ran.code == 0 && apart > OFTEN {
            space
                .until_awake("light", "light", 1)
                .await
                .context("after a nap that nobody's request cancelled")?;
            continue;
        }
        ensure!(
            ran.code == 4,
            "expected exit code 4 (cancelled), got {ran:?}; requests were {apart:?} apart"
        );
        ensure!(!ran.stderr.trim().is_empty(), "a cancelled nap does not say why");
        let writes = space.world.audit.writes_since(begun, &space.namespace, "light")?;
        let drowsy = writes.iter().any(|write| write.phase.as_deref() == Some("drowsy"));
        ensure!(drowsy, "it never was drowsy: {writes:?}");
        let scalings = space.world.audit.scalings_since(begun, &space.namespace, "light")?;
        ensure!(scalings.is_empty(), "a cancelled nap changed the replicas: {scalings:?}");
        return space.until_awake("light", "light", 1).await;
    }
    bail!("the machine stood still in each of {TRIES} naps")
}

/// `kubenap nap`, while a neighbour asks all the time, and the longest for which it did not.
async fn nap_under_visits(space: &Space, app: &str) -> Result<(Ran, Duration)> {
    let mut visitor = space.neighbour(app).await?;
    let (mut last, mut apart) = (Instant::now(), Duration::ZERO);
    let ran = {
        // kube-proxy picks among the pod and, while it is drowsy, the two members.
        let visits = async {
            loop {
                visitor.send(&Call::get("/drowsy")).await?.ensure_from_app()?;
                apart = apart.max(last.elapsed());
                last = Instant::now();
                sleep(Duration::from_millis(40)).await;
            }
        };
        let id = space.id(app);
        let line = ["nap", id.as_str()];
        tokio::select! {
            ran = space.world.kubenap(&line, Duration::from_secs(120)) => ran?,
            stopped = visits => return stopped,
        }
    };
    Ok((ran, apart.max(last.elapsed())))
}

async fn undo_while_asleep(space: &Space) -> Result<()> {
    space.deploy(&App::new("undone").replicas(2)).await?;
    // A nap before the rollout, so that what undo brings back has KubeNap's annotations of another time.
    space.nap("undone").await?;
    wake(space, "undone").await?;
    space.until_awake("undone", "undone", 2).await?;
    space.kubectl(&["set", "env", "deployment/undone", "COLOUR=blue"]).await?;
    space.kubectl(&["rollout", "status", "deployment/undone", "--timeout=120s"]).await?;
    space.nap("undone").await?;
    space.until_asleep("undone", "undone").await?;
    space.kubectl(&["rollout", "undo", "deployment/undone"]).await?;
    sleep(Duration::from_secs(3)).await;
    wake(space, "undone").await?;
    space.until_awake("undone", "undone", 2).await
}

async fn scaled_up_while_asleep(space: &Space) -> Result<()> {
    space.deploy(&App::new("scaled").replicas(3)).await?;
    space.nap("scaled").await?;
    space.until_asleep("scaled", "scaled").await?;
    space.kubectl(&["scale", "deployment/scaled", "--replicas=2"]).await?;
    space.until_awake("scaled", "scaled", 2).await?;
    wake(space, "scaled").await
}

async fn two_ports(space: &Space) -> Result<()> {
    space.deploy(&App::new("ports")).await?;
    for (port, container_port) in [(80, "8080"), (8090, "9090")] {
        space.nap("ports").await?;
        space.until_asleep("ports", "ports").await?;
        let address = space.cluster_address("ports", port).await?;
        let reply = Caller::fresh(address, "ports").send(&Call::get("/")).await?;
        reply.ensure_from_app()?;
        let answered = reply.said("port")?;
        ensure!(answered == container_port, "asked at port {port}, answered by {answered}");
        space.until_awake("ports", "ports", 1).await?;
    }
    Ok(())
}

async fn two_deployments(space: &Space) -> Result<()> {
    space.deploy(&App::new("second").behind("first").idle_after("4s")).await?;
    space.deploy(&App::new("first").host("s6-shared.test").idle_after("4s")).await?;
    space.until_asleep("first", "first").await?;
    space.until_asleep("second", "first").await?;
    // With no more visitors they would nap again before each was seen awake.
    for app in ["first", "second"] {
        space.annotate(app, "idleAfter", "1h").await?;
    }
    let mut visitor = Caller::fresh(TRAEFIK, "s6-shared.test");
    visitor.follow(&Call::get("/"), 3).await?.reply.ensure_from_app()?;
    for app in ["first", "second"] {
        space.until_awake(app, "first", 1).await?;
    }
    Ok(())
}

async fn zero_of_somebody_else(space: &Space) -> Result<()> {
    space.deploy(&App::new("parked")).await?;
    space.kubectl(&["scale", "deployment/parked", "--replicas=0"]).await?;
    let mut visitor = space.neighbour("parked").await?;
    eventually("the parked app's pod is gone", Duration::from_secs(90), async || {
        ensure!(space.pods("parked").await?.is_empty(), "its pod still runs");
        Ok(())
    })
    .await?;
    throughout(Duration::from_secs(8), async || {
        let ours = space.our_addresses("parked").await?;
        ensure!(ours.is_empty(), "KubeNap put itself into a Service that is parked: {ours:?}");
        let reply = visitor.send(&Call::get("/")).await;
        ensure!(reply.is_err(), "somebody answered for a parked app: {reply:?}");
        let replicas = space.replicas("parked").await?;
        ensure!(replicas == 0, "a parked app was woken to {replicas}");
        Ok(())
    })
    .await
}

async fn zero_with_a_count(space: &Space) -> Result<()> {
    space.deploy(&App::new("counted").annotate("replicaCount", "2")).await?;
    space.kubectl(&["scale", "deployment/counted", "--replicas=0"]).await?;
    space.until_asleep("counted", "counted").await?;
    wake(space, "counted").await?;
    space.until_awake("counted", "counted", 2).await
}

/// One request from inside the cluster, which must end in the app's answer.
async fn wake(space: &Space, app: &str) -> Result<()> {
    space.neighbour(app).await?.send(&Call::get("/")).await?.ensure_from_app()
}
