//! An app naps and wakes by one source alone: Prometheus that scrapes the real Traefik, or that Traefik's access log.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Counts;
use crate::e2e::app::{App, while_visited};
use crate::e2e::cluster::{PROMETHEUS, TRAEFIK};
use crate::e2e::http::{Call, Caller};
use crate::e2e::members::Settings;
use crate::e2e::world::{Space, throughout};

/// Three times the apps' `idleAfter`.
const USED: Duration = Duration::from_secs(15);

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let sources = [
        ("by-log", "logs=pods:app=traefik".to_owned()),
        ("by-prometheus", format!("prometheus=http://{PROMETHEUS}")),
    ];
    let mut naps = 0;
    for (app, source) in sources {
        let settings = Settings { source: source.clone(), ..Settings::default() };
        space.world.members.ensure(&settings).await?;
        naps += alone(space, app).await.with_context(|| format!("by {source} alone"))?;
    }
    Ok(vec![("sources", 2), ("naps", naps)])
}

/// A used app does not nap, a quiet one does, and its next visitor wakes it.
async fn alone(space: &Space, app: &str) -> Result<u64> {
    let host = format!("{app}.sources.test");
    space.deploy(&App::new(app).host(&host).annotate("idleAfter", "5s")).await?;
    let mut visitor = Caller::kept(TRAEFIK, &host);
    throughout(USED, async || {
        visitor.send(&Call::get("/used")).await?.ensure_from_app()?;
        let phase = space.phase(app).await?;
        ensure!(phase == "awake", "phase {phase} though it is used");
        Ok(())
    })
    .await?;
    space.until_asleep(app, app).await.context("quiet")?;
    let journey = Caller::fresh(TRAEFIK, &host).follow(&Call::get("/wake"), 1).await?;
    journey.reply.ensure_from_app()?;
    while_visited(&host, space.until_awake(app, app, 1)).await?;
    space.until_asleep(app, app).await.context("quiet again")?;
    Ok(2)
}
