//! Apps nap and wake by one source alone, each told by a real program: Prometheus, the proxies' own metrics, access logs.

mod fronts;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::sleep;

use self::fronts::Fronts;
use super::Counts;
use super::proxies::Program;
use crate::e2e::app::App;
use crate::e2e::cluster::{PROMETHEUS, TRAEFIK};
use crate::e2e::http::{Call, Caller};
use crate::e2e::members::Settings;
use crate::e2e::world::{Space, eventually, throughout};

/// Longer than a machine stands still that has much else to do: a gap in the traffic is a reason to nap.
const IDLE_AFTER: &str = "8s";
/// Three times as long.
const USED: Duration = Duration::from_secs(24);

/// How often the stories' Prometheus evaluates rules.
const RULES: &str = "5s";
/// Twice as long as what a query shows may be behind then.
const LATE: Duration = Duration::from_secs(60);

/// The sources by their names, in the order in which `--source` gives them: `logs`, `logs-2`, `logs-3`.
fn settings() -> Settings {
    let prometheus = format!("prometheus=http://{PROMETHEUS}?allowQuery=true&ruleInterval={RULES}");
    let logs = [fronts::labels(Program::Nginx), fronts::labels(Program::Envoy), "app=traefik"];
    let logs = logs.map(|labels| format!("logs=pods:{labels}"));
    let all: Vec<_> = ["ingress".to_owned(), prometheus].into_iter().chain(logs).collect();
    Settings { flags: vec![("source", json!(all))], ..Settings::default() }
}

/// An app, the proxy through which it is visited, and the one source that is asked about it.
pub(super) struct Lane {
    pub(super) app: &'static str,
    program: Program,
    source: &'static str,
    /// Whether Traefik knows it by an `IngressRoute`.
    by_route: bool,
    /// Whether it brings a query of its own, in place of what its source counts.
    by_query: bool,
}

const LANES: &[Lane] = &[
    Lane::by_traefik("traefik-prometheus", "prometheus"),
    Lane { by_query: true, ..Lane::by_traefik("traefik-query", "prometheus") },
    Lane::by_traefik("traefik-metrics", "ingress"),
    Lane::by_traefik("traefik-log", "logs-3"),
    Lane { by_route: true, ..Lane::by_traefik("traefik-route", "ingress") },
    Lane { program: Program::Nginx, ..Lane::by_traefik("nginx-log", "logs") },
    Lane { program: Program::Envoy, ..Lane::by_traefik("envoy-log", "logs-2") },
    Lane { program: Program::Envoy, ..Lane::by_traefik("envoy-metrics", "ingress") },
    Lane { program: Program::Envoy, ..Lane::by_traefik("envoy-prometheus", "prometheus") },
];

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.world.members.ensure(&settings()).await?;
    try_join_all(LANES.iter().map(async |lane| space.deploy(&lane.app_in(&space.namespace)).await)).await?;
    let mut behind = Vec::new();
    for lane in LANES {
        behind.push((lane.app, lane.host(), space.cluster_address(lane.app, 80).await?.ip()));
    }
    let fronts = Fronts::start(space, &behind).await?;
    let told = LANES.iter().map(async |lane| {
        let entry = match lane.program {
            Program::Nginx => fronts.nginx,
            Program::Envoy => fronts.envoy,
            _ => TRAEFIK,
        };
        let by = || format!("{}, by {} alone", lane.app, lane.source);
        lane.tell(space, entry).await.with_context(by)
    });
    let naps = try_join_all(told).await?.into_iter().sum();
    Ok(vec![("ways to know", LANES.len() as u64), ("naps", naps)])
}

impl Lane {
    /// An app behind Traefik.
    pub(super) const fn by_traefik(app: &'static str, source: &'static str) -> Self {
        Self { app, program: Program::Traefik, source, by_route: false, by_query: false }
    }

    fn host(&self) -> String {
        format!("{}.sources.test", self.app)
    }

    /// What is deployed.
    pub(super) fn app(&self) -> App {
        let app = App::new(self.app).host(&self.host());
        let app = if self.by_route { app.by_ingress_route() } else { app };
        app.idle_after(IDLE_AFTER).annotate("metrics", self.source)
    }

    /// The same with the query that it brings, if it does.
    fn app_in(&self, namespace: &str) -> App {
        if !self.by_query {
            return self.app();
        }
        let counter = format!(r#"traefik_service_requests_total{{service=~"{namespace}-{}-.+"}}"#, self.app);
        self.app().annotate("query", &format!(r#"sum({counter}) and min(up{{namespace="traefik"}}) == 1"#))
    }

    /// A used app does not nap, a quiet one does, and its next visitor wakes it.
    pub(super) async fn tell(&self, space: &Space, entry: SocketAddr) -> Result<u64> {
        let app = self.app;
        // Before its proxy was there it may have begun to nap.
        self.wake(space, entry).await.context("at first")?;
        let mut visitor = Caller::kept(entry, self.host());
        throughout(USED, async || {
            visitor.send(&Call::get("/used")).await?.ensure_from_app()?;
            let phase = space.phase(app).await?;
            ensure!(phase == "awake", "phase {phase} though it is used");
            Ok(())
        })
        .await?;
        if self.by_query {
            eventually("what it shows is past its last use", LATE, async || {
                let phase = space.phase(app).await?;
                ensure!(phase != "awake", "phase {phase}");
                Ok(())
            })
            .await?;
        }
        space.until_asleep(app, app).await.context("quiet")?;
        self.wake(space, entry).await?;
        if self.by_query {
            // What it shows comes so late that another nap would be the longest part of the story.
            return Ok(1);
        }
        space.until_asleep(app, app).await.context("quiet again")?;
        Ok(2)
    }

    /// A visitor comes, and visitors keep coming until the app is awake.
    async fn wake(&self, space: &Space, entry: SocketAddr) -> Result<()> {
        let mut visitor = Caller::fresh(entry, self.host());
        let visits = async {
            loop {
                visitor.follow(&Call::get("/wake"), 5).await?.reply.ensure_from_app()?;
                sleep(Duration::from_millis(300)).await;
            }
        };
        tokio::select! {
            awake = space.until_awake(self.app, self.app, 1) => awake,
            stopped = visits => stopped,
        }
    }
}
