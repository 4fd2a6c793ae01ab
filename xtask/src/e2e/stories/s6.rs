//! What people do to an app in the middle of a nap is respected.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::world::{Space, eventually, throughout};

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

async fn drowsy_is_cancelled(space: &Space) -> Result<()> {
    space.deploy(&App::new("light")).await?;
    let begun = space.world.audit.now()?;
    let id = space.id("light");
    let arguments = ["nap", &id];
    let nap = space.world.kubenap(&arguments, Duration::from_secs(60));
    let visit = async {
        eventually("light is drowsy", Duration::from_secs(30), async || {
            let (phase, ours) = (space.phase("light").await?, space.our_addresses("light").await?);
            ensure!(phase == "drowsy" && ours.len() == 2, "phase {phase}, KubeNap's addresses {ours:?}");
            Ok(())
        })
        .await?;
        // kube-proxy picks among the pod and the two members; one of so many comes to a member.
        let mut visitor = space.neighbour("light").await?;
        for _ in 0..30 {
            visitor.send(&Call::get("/drowsy")).await?.ensure_from_app()?;
            sleep(Duration::from_millis(40)).await;
        }
        Ok(())
    };
    let (ran, ()) = futures::future::try_join(nap, visit).await?;
    ensure!(ran.code == 4, "expected exit code 4 (cancelled), got {ran:?}");
    ensure!(!ran.stderr.trim().is_empty(), "a cancelled nap does not say why");
    let scalings = space.world.audit.scalings_since(begun, &space.namespace, "light")?;
    ensure!(scalings.is_empty(), "a cancelled nap changed the replicas: {scalings:?}");
    space.until_awake("light", "light", 1).await
}

async fn undo_while_asleep(space: &Space) -> Result<()> {
    space.deploy(&App::new("undone").replicas(2)).await?;
    // A nap before the rollout, so that what undo brings back has KubeNap's annotations of another time.
    space.nap("undone").await?;
    wake(space, "undone").await?;
    space.until_awake("undone", "undone", 2).await?;
    space.kubectl(&["set", "env", "deployment/undone", "COLOUR=blue"]).await?;
    space.kubectl(&["rollout", "status", "deployment/undone", "--timeout=60s"]).await?;
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
    space.deploy(&App::new("second").behind("first").annotate("idleAfter", "4s")).await?;
    space.deploy(&App::new("first").host("s6-shared.test").annotate("idleAfter", "4s")).await?;
    space.until_asleep("first", "first").await?;
    space.until_asleep("second", "first").await?;
    let mut visitor = Caller::fresh(TRAEFIK, "s6-shared.test");
    visitor.follow(&Call::get("/"), 1).await?.reply.ensure_from_app()?;
    for app in ["first", "second"] {
        eventually(&format!("{app} is woken too"), Duration::from_secs(30), async || {
            let ready = space.ready_replicas(app).await?;
            ensure!(ready == 1, "{ready} are ready");
            Ok(())
        })
        .await?;
    }
    // With no more visitors they would nap again and disturb what follows.
    for app in ["first", "second"] {
        space.label(app, "kubenap/enabled", serde_json::Value::Null).await?;
    }
    space.until_awake("first", "first", 1).await
}

async fn zero_of_somebody_else(space: &Space) -> Result<()> {
    space.deploy(&App::new("parked")).await?;
    space.kubectl(&["scale", "deployment/parked", "--replicas=0"]).await?;
    let mut visitor = space.neighbour("parked").await?;
    eventually("the parked app's pod is gone", Duration::from_secs(30), async || {
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
