//! While Prometheus is silent nobody naps, and when it is back naps go on.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Signal, kill_process};
use tokio::net::TcpStream;

use super::Counts;
use crate::e2e::app::{App, while_visited};
use crate::e2e::cluster::{PROMETHEUS, TRAEFIK};
use crate::e2e::frozen::Frozen;
use crate::e2e::http::{Call, Caller};
use crate::e2e::members::Settings;
use crate::e2e::world::{Space, eventually, throughout};

const APP: &str = "measured";
const HOST: &str = "s7.test";
/// Longer than a machine stands still that has much else to do: a gap between its last visitor and an outage is a reason to
/// nap.
const IDLE_AFTER: &str = "8s";
/// Three times as long.
const WATCHED: Duration = Duration::from_secs(24);

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let source = format!("prometheus=http://{PROMETHEUS}");
    space.world.members.ensure(&Settings { source, ..Settings::default() }).await?;
    space.deploy(&App::new(APP).host(HOST).idle_after(IDLE_AFTER)).await?;
    space.until_asleep(APP, APP).await.context("with Prometheus")?;

    wake(space).await?;
    let frozen = Frozen::new(space.world.cluster.pid("prometheus")?)?;
    nobody_naps(space).await.context("while Prometheus hangs")?;
    drop(frozen);
    naps_again(space).await.context("when Prometheus goes on")?;

    wake(space).await?;
    kill_process(space.world.cluster.pid("prometheus")?, Signal::TERM).context("end Prometheus")?;
    eventually("Prometheus refuses connections", Duration::from_secs(60), async || {
        ensure!(TcpStream::connect(PROMETHEUS).await.is_err(), "it still accepts them");
        Ok(())
    })
    .await?;
    let unseen = nobody_naps(space).await.context("while Prometheus is gone");
    space.world.cluster.start_prometheus().await?;
    unseen?;
    naps_again(space).await.context("when Prometheus has been started again")?;
    Ok(vec![("outages", 2)])
}

/// A visitor wakes the app, and visitors keep coming until this returns, so that it is not about to nap then.
async fn wake(space: &Space) -> Result<()> {
    let mut visitor = Caller::fresh(TRAEFIK, HOST);
    visitor.follow(&Call::get("/"), 3).await?.reply.ensure_from_app()?;
    while_visited(HOST, space.until_awake(APP, APP, 1)).await
}

async fn nobody_naps(space: &Space) -> Result<()> {
    throughout(WATCHED, async || {
        let (phase, replicas) = (space.phase(APP).await?, space.replicas(APP).await?);
        ensure!(
            phase == "awake" && replicas == 1,
            "phase {phase}, {replicas} replicas, though nothing is known"
        );
        Ok(())
    })
    .await?;
    until_source_up(space, 0.0).await
}

async fn naps_again(space: &Space) -> Result<()> {
    space.until_asleep(APP, APP).await?;
    until_source_up(space, 1.0).await
}

async fn until_source_up(space: &Space, wanted: f64) -> Result<()> {
    eventually(&format!("the leader's kubenap_source_up is {wanted}"), Duration::from_secs(60), async || {
        let leader = space.world.members.leader().await?;
        let samples = space.world.members.metrics(&leader).await?;
        let source = samples.iter().find(|sample| sample.name == "kubenap_source_up");
        let source = source.context("there is no kubenap_source_up")?;
        ensure!((source.value - wanted).abs() < 0.5, "it is {} with {:?}", source.value, source.labels);
        Ok(())
    })
    .await
}
