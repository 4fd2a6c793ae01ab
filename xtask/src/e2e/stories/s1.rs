//! A quiet app naps by itself, and the next visitor's request wakes it as it was.

use std::cell::RefCell;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Counts;
use crate::e2e::app::{App, while_visited};
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::world::{Space, eventually};

const HOST: &str = "s1.test";
const TARGET: &str = "/a%20b/%C3%BC?x=1&y=%2Fz%3F&&empty=";

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    // It takes its time to boot, so that the phase "waking" can be seen.
    let app = App::new("quiet").replicas(3).host(HOST).boot(Duration::from_millis(1500));
    space.deploy(&app).await?;
    let spec = space.spec_text("quiet").await?;
    let first = space.status("quiet").await?;
    ensure!(first["phase"] == "awake", "status before the nap: {first}");

    // However long all that took: only now is it idle.
    let phases = RefCell::new(vec!["awake".to_owned()]);
    space.annotate("quiet", "idleAfter", "5s").await?;
    watching(space, &phases, space.until_asleep("quiet", "quiet")).await?;
    ensure!(*phases.borrow() == ["awake", "drowsy", "asleep"], "phases on the way to sleep: {phases:?}");
    let remembered = space.annotation("quiet", "kubenap/restoreReplicas").await?;
    ensure!(remembered.as_deref() == Some("3"), "restoreReplicas is {remembered:?}");
    let asleep = space.status("quiet").await?;
    ensure!(asleep["restoreReplicas"] == 3 && asleep["replicas"] == 0, "status asleep: {asleep}");

    let mut visitor = Caller::fresh(TRAEFIK, HOST);
    let visit = async {
        let call = Call::get(TARGET);
        let journey = visitor.follow(&call, 3).await?;
        while_visited(HOST, space.until_awake("quiet", "quiet", 3)).await?;
        Ok(journey)
    };
    let journey = watching(space, &phases, visit).await?;
    ensure!(journey.redirects == [TARGET], "expected one redirect to {TARGET}, got {:?}", journey.redirects);
    journey.reply.ensure_from_app()?;
    let arrived = journey.reply.said("path")?;
    ensure!(arrived == TARGET, "the app saw {arrived}");
    ensure!(phases.borrow()[3..] == ["waking", "awake"], "phases on the way back: {phases:?}");

    let after = space.spec_text("quiet").await?;
    ensure!(after == spec, "the spec has changed\nbefore: {spec}\nafter:  {after}");
    eventually("all four Events are there", Duration::from_secs(15), async || {
        let events = space.events("quiet").await?;
        for reason in ["Drowsy", "Asleep", "Waking", "Awake"] {
            ensure!(events.iter().any(|(found, _)| found == reason), "no Event {reason} among {events:?}");
        }
        Ok(())
    })
    .await?;
    let took = u64::try_from(journey.took.as_millis())?;
    Ok(vec![("redirects", 1), ("ms from request to answer", took)])
}

/// Does the work and meanwhile notes each new phase that `kubenap status` shows.
async fn watching<T>(
    space: &Space,
    phases: &RefCell<Vec<String>>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let watch = async {
        loop {
            note(space, phases).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let done = tokio::select! {
        done = work => done?,
        stopped = watch => return stopped,
    };
    note(space, phases).await?;
    Ok(done)
}

async fn note(space: &Space, phases: &RefCell<Vec<String>>) -> Result<()> {
    let status = space.status("quiet").await?;
    let phase = status["phase"].as_str().with_context(|| format!("status without a phase: {status}"))?;
    if phases.borrow().last().is_none_or(|last| last != phase) {
        phases.borrow_mut().push(phase.to_owned());
    }
    Ok(())
}
