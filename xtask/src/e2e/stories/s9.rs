//! Members leave, die and are missing, and no app is stranded.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::http::Call;
use crate::e2e::members::Settings;
use crate::e2e::world::{Space, eventually};

/// What `KubeNap` writes on a Deployment.
const TRACES: [&str; 7] = ["phase", "epoch", "restoreReplicas", "since", "reason", "wakePorts", "wish"];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    for app in ["left", "freed", "one", "two"] {
        space.deploy(&App::new(app).replicas(2)).await?;
    }
    a_member_crashes(space).await.context("SIGKILL of a member while an app sleeps")?;
    the_leader_leaves(space).await.context("SIGTERM of the leader while an app sleeps")?;
    the_label_goes(space).await.context("the label is taken away while asleep")?;
    doctor(space).await?;
    nobody_is_there(space).await.context("with both members dead")?;
    Ok(vec![("cases", 5)])
}

/// It comes back as the same member, and is soon in the app's endpoints again.
async fn a_member_crashes(space: &Space) -> Result<()> {
    space.nap("left").await?;
    space.until_asleep("left", "left").await?;
    let members = &space.world.members;
    let before = space.our_addresses("left").await?;
    members.crash(&members.leader().await?).await?;
    members.ensure(&Settings::default()).await?;
    space.until_asleep("left", "left").await?;
    let after = space.our_addresses("left").await?;
    ensure!(after == before, "before the crash {before:?}, after it {after:?}");
    space.neighbour("left").await?.send(&Call::get("/")).await?.ensure_from_app()?;
    space.until_awake("left", "left", 2).await
}

async fn the_leader_leaves(space: &Space) -> Result<()> {
    space.nap("left").await?;
    space.until_asleep("left", "left").await?;
    let members = &space.world.members;
    let (leader, other) = (members.leader().await?, members.follower().await?);
    let code = members.stop(&leader).await?;
    ensure!(code == 0, "a member that was told to leave ended with exit code {code}");
    let ours = space.our_addresses("left").await?;
    let stays = members.address(&other).await?.to_string();
    ensure!(ours == BTreeSet::from([stays]), "after {leader} has left: {ours:?}");
    space.neighbour("left").await?.send(&Call::get("/")).await?.ensure_from_app()?;
    space.until_awake("left", "left", 2).await?;
    eventually("the other member leads", Duration::from_secs(60), async || {
        let now = members.leader().await?;
        ensure!(now == other, "{now} leads");
        Ok(())
    })
    .await?;
    members.ensure(&Settings::default()).await
}

async fn the_label_goes(space: &Space) -> Result<()> {
    space.nap("freed").await?;
    space.until_asleep("freed", "freed").await?;
    space.label("freed", "kubenap/enabled", Value::Null).await?;
    space.until_awake("freed", "freed", 2).await?;
    eventually("every trace is gone", Duration::from_secs(60), async || no_trace(space, "freed").await).await
}

async fn doctor(space: &Space) -> Result<()> {
    // A member has just begun, and may not have asked its sources yet.
    eventually("the doctor is content", Duration::from_secs(60), async || {
        let ran = space.world.kubenap(&["doctor"], Duration::from_secs(60)).await?;
        ensure!(ran.code == 0, "kubenap doctor: exit {}\n{}{}", ran.code, ran.stdout, ran.stderr);
        ensure!(ran.stdout.lines().count() >= 3, "kubenap doctor says too little: {:?}", ran.stdout);
        Ok(())
    })
    .await
}

async fn nobody_is_there(space: &Space) -> Result<()> {
    for app in ["one", "two"] {
        space.nap(app).await?;
        space.until_asleep(app, app).await?;
    }
    let world = &space.world;
    world.members.kill().await?;

    let woken = world.kubenap(&["wake", &space.id("one")], Duration::from_secs(180)).await?;
    ensure!(woken.code == 0, "kubenap wake: exit {}: {}", woken.code, woken.stderr.trim());
    space.until_awake("one", "one", 2).await.context("kubenap wake")?;
    let restored = world.kubenap(&["restore", "--all"], Duration::from_secs(120)).await?;
    ensure!(restored.code == 0, "kubenap restore --all: exit {}: {}", restored.code, restored.stderr.trim());
    for app in ["left", "freed", "one", "two"] {
        space.until_awake(app, app, 2).await.context("kubenap restore --all")?;
        no_trace(space, app).await.context("kubenap restore --all")?;
    }

    let id = space.id("one");
    // The dead leader's Lease counts for 15 s more.
    eventually("kubenap nap says that nobody leads", Duration::from_secs(120), async || {
        let nap = world.kubenap(&["nap", &id], Duration::from_secs(90)).await?;
        ensure!(nap.code == 1, "kubenap nap: exit {}: {}", nap.code, nap.stderr.trim());
        ensure!(
            nap.stderr.to_lowercase().contains("leader"),
            "no hint about the leader: {}",
            nap.stderr.trim()
        );
        Ok(())
    })
    .await?;
    space.until_awake("one", "one", 2).await.context("after a nap that was refused")?;
    world.members.ensure(&Settings::default()).await
}

/// Fails if anything that `KubeNap` writes is left on the Deployment.
async fn no_trace(space: &Space, app: &str) -> Result<()> {
    for key in TRACES {
        let value = space.annotation(app, &format!("kubenap/{key}")).await?;
        ensure!(value.is_none(), "kubenap/{key} is still {value:?} on {app}");
    }
    Ok(())
}
