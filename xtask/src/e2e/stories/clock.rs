//! A member whose clock is five minutes off, leading or not, neither naps too early nor too late, nor fights for the lead.

use std::net::SocketAddr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use tokio::time::Instant;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::http::{Call, Caller, Content};
use crate::e2e::members::{HOME, Settings};
use crate::e2e::outsider::{ADDRESS, IDENTITY, Outsider};
use crate::e2e::world::{Space, throughout};

/// How many seconds its clock is ahead.
const SKEWS: [i64; 2] = [-300, 300];
const IDLE_AFTER: Duration = Duration::from_secs(6);

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let mut slowest = 0;
    for ahead in SKEWS {
        slowest = slowest.max(with(space, ahead).await.with_context(|| format!("a clock {ahead:+} s off"))?);
    }
    space.world.members.ensure(&Settings::default()).await?;
    Ok(vec![
        ("clocks", 2),
        ("naps", 8),
        ("early", 0),
        ("changes of the lead", 0),
        ("longest until asleep ms", slowest),
    ])
}

async fn with(space: &Space, ahead: i64) -> Result<u64> {
    let members = &space.world.members;
    members.ensure(&Settings::default()).await?;
    // With one pod beside it there are two members.
    members.stop(&members.follower().await?).await?;
    let outsider = Outsider::start(&space.world.cluster, ahead).await?;
    is_off(space, ahead).await?;
    let side = if ahead < 0 { "behind" } else { "ahead" };
    let beside = cycle(space, &format!("led-{side}")).await.context("while a pod leads")?;

    members.stop(&members.leader().await?).await?;
    outsider.until_it_leads().await?;
    members.run_only(1).await?;
    let leading = cycle(space, &format!("leads-{side}")).await.context("while it leads")?;
    outsider.leave().await?;
    Ok(beside.max(leading))
}

/// One nap by hand, a wake through the member whose clock is off, and a nap by itself, neither too early nor much too
/// late. How long the app was awake between, in milliseconds.
async fn cycle(space: &Space, app: &str) -> Result<u64> {
    let idle_after = format!("{}s", IDLE_AFTER.as_secs());
    let host = format!("clock-{app}.test");
    space.deploy(&App::new(app).replicas(2).host(&host).idle_after(&idle_after)).await?;
    let lead = lead(space).await?;
    space.nap(app).await?;
    space.until_asleep(app, app).await?;

    // No proxy sees this one: only who woke the app knows when that was.
    let post = Call::post("/order", Content::Sized(Bytes::from_static(b"one coffee")));
    Caller::fresh(wake_port(space, app).await?, app).send(&post).await?.ensure_from_app()?;
    let answered = Instant::now();
    throughout(IDLE_AFTER.saturating_sub(Duration::from_millis(500)), async || {
        let phase = space.phase(app).await?;
        ensure!(
            phase == "waking" || phase == "awake",
            "{phase} {} ms after it was used",
            answered.elapsed().as_millis()
        );
        Ok(())
    })
    .await?;
    space.until_asleep(app, app).await?;
    let took = answered.elapsed();
    let count = space.annotation(app, "kubenap/restoreReplicas").await?;
    ensure!(count.as_deref() == Some("2"), "to be woken to {count:?}");
    let after = self::lead(space).await?;
    ensure!(after == lead, "the lead was {lead:?}, and then {after:?}");
    // It is not to nap and wake on beside the next.
    space.label(app, "kubenap/enabled", serde_json::Value::Null).await?;
    space.until_awake(app, app, 2).await?;
    Ok(u64::try_from(took.as_millis())?)
}

/// Where the outsider stands in for the app.
async fn wake_port(space: &Space, app: &str) -> Result<SocketAddr> {
    let slices = space.our_slices(app).await?;
    let its_own = slices.into_iter().find(|slice| {
        slice.endpoints.iter().any(|endpoint| endpoint.addresses.contains(&ADDRESS.to_string()))
    });
    let ports = its_own.context("the outsider has no slice")?.ports.unwrap_or_default();
    let http = ports.into_iter().find(|port| port.name.as_deref() == Some("http"));
    let number = http.and_then(|port| port.port).context("its slice has no port")?;
    Ok(SocketAddr::new(ADDRESS, u16::try_from(number)?))
}

/// Who leads, and how often the lead has changed.
async fn lead(space: &Space) -> Result<(String, i32)> {
    let lease = Api::<Lease>::namespaced(space.world.client.clone(), HOME).get("kubenap").await?;
    let spec = lease.spec.context("the leader's Lease is empty")?;
    Ok((spec.holder_identity.unwrap_or_default(), spec.lease_transitions.unwrap_or(0)))
}

/// Fails unless the outsider's clock is what it is to be: its Lease shows it.
async fn is_off(space: &Space, ahead: i64) -> Result<()> {
    let leases = Api::<Lease>::namespaced(space.world.client.clone(), HOME);
    let lease = leases.get(&format!("kubenap-{IDENTITY}")).await?;
    let renewed = lease.spec.and_then(|spec| spec.renew_time).context("its Lease has no time")?;
    let now = i64::try_from(crate::e2e::clock::now().duration_since(UNIX_EPOCH)?.as_secs())?;
    let found = renewed.0.as_second() - now;
    ensure!((found - ahead).abs() < 30, "its clock is {found:+} s off, not {ahead:+} s");
    Ok(())
}
