//! Whatever lies Prometheus and the ingress tell, nobody naps, and when they are honest again naps go on.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::time::sleep;

use super::Counts;
use crate::e2e::app::{App, while_visited};
use crate::e2e::cluster::{PROMETHEUS, TRAEFIK};
use crate::e2e::http::{Call, Caller};
use crate::e2e::liar::{Liar, Lie, Speech};
use crate::e2e::members::Settings;
use crate::e2e::visitors::{Patience, Visitors};
use crate::e2e::world::{Space, eventually, throughout};

/// An app and the one source that it listens to.
struct Listener {
    app: &'static str,
    source: &'static str,
    host: &'static str,
}

const LISTENERS: [Listener; 2] = [
    Listener { app: "to-prometheus", source: "prometheus", host: "lies-prometheus.test" },
    Listener { app: "to-ingress", source: "ingress", host: "lies-ingress.test" },
];
const LIES: [Lie; 7] = [Lie::Empty, Lie::Html, Lie::Fails, Lie::Slow, Lie::CutOff, Lie::Old, Lie::Reset];
/// Enough for a nap of an app whose `idleAfter` is 3 s, drowsy phase included, if the lie were believed.
const BELIEVED: Duration = Duration::from_secs(9);

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let node = PROMETHEUS.ip();
    let (prometheus, page) = (SocketAddr::new(node, 9190), SocketAddr::new(node, 9191));
    let liars = [
        Liar::listen(prometheus, PROMETHEUS, Speech::Prometheus).await?,
        Liar::listen(page, SocketAddr::new(TRAEFIK.ip(), 8080), Speech::Page).await?,
    ];
    let sources =
        json!([format!("prometheus=http://{prometheus}"), format!("ingress=http://{page}/metrics")]);
    space.world.members.ensure(&Settings { flags: vec![("source", sources)], ..Settings::default() }).await?;
    for Listener { app, source, host } in LISTENERS {
        space.deploy(&App::new(app).host(host).idle_after("3s").annotate("metrics", source)).await?;
    }
    all_nap(space).await.context("before the first lie")?;

    for lie in LIES {
        awake_and_honest(space).await.with_context(|| format!("before the lie {lie:?}"))?;
        for liar in &liars {
            liar.tell(lie);
        }
        let believed = nobody_naps(space, &LISTENERS, &liars).await;
        for liar in &liars {
            liar.tell(Lie::Honest);
        }
        believed.with_context(|| format!("the lie {lie:?} was believed"))?;
    }
    let [prometheus, ingress] = &liars;
    awake_and_honest(space).await?;
    prometheus.tell(Lie::Cached);
    let believed = nobody_naps(space, &LISTENERS[..1], &liars[..1]).await;
    prometheus.tell(Lie::Honest);
    believed.context("answers of a cache were believed")?;
    let requests = unseen(space, ingress).await.context("a page of metrics that stands still")?;
    all_nap(space).await.context("after the last lie")?;
    let asked = liars.iter().map(Liar::asked).sum();
    // Sources at those addresses are gone with this story.
    space.world.members.ensure(&Settings::default()).await?;
    Ok(vec![
        ("lies", 2 * LIES.len() as u64 + 2),
        ("answers", asked),
        ("naps believed", 0),
        ("unseen requests", requests),
    ])
}

async fn all_nap(space: &Space) -> Result<()> {
    for Listener { app, .. } in LISTENERS {
        space.until_asleep(app, app).await?;
    }
    Ok(())
}

/// Both are awake, with visitors until now, and both sources answer.
async fn awake_and_honest(space: &Space) -> Result<()> {
    let [one, other] = &LISTENERS;
    for Listener { host, .. } in &LISTENERS {
        Caller::fresh(TRAEFIK, *host).follow(&Call::get("/"), 3).await?.reply.ensure_from_app()?;
    }
    let ready = async {
        for Listener { app, .. } in &LISTENERS {
            space.until_awake(app, app, 1).await?;
        }
        eventually("every source answers every member", Duration::from_secs(40), async || {
            for member in space.world.members.living().await? {
                let samples = space.world.members.metrics(&member.identity).await?;
                let up =
                    samples.iter().filter(|sample| sample.name == "kubenap_source_up" && sample.value > 0.5);
                ensure!(up.count() == 2, "not all are up at {}", member.identity);
            }
            Ok(())
        })
        .await?;
        // A poll or two with the visitors in it.
        sleep(Duration::from_millis(1500)).await;
        Ok(())
    };
    while_visited(one.host, while_visited(other.host, ready)).await
}

async fn nobody_naps(space: &Space, listeners: &[Listener], liars: &[Liar]) -> Result<()> {
    let before: Vec<_> = liars.iter().map(Liar::asked).collect();
    throughout(BELIEVED, async || {
        for Listener { app, .. } in listeners {
            let (phase, replicas) = (space.phase(app).await?, space.replicas(app).await?);
            ensure!(phase == "awake" && replicas == 1, "{app}: phase {phase}, {replicas} replicas");
        }
        Ok(())
    })
    .await?;
    let asked = liars.iter().zip(&before).all(|(liar, before)| liar.asked() > *before);
    ensure!(asked, "nobody asked, so nothing was shown");
    Ok(())
}

/// That a page without timestamps is old cannot be told from its words: the drowsy phase tells it. How many requests
/// there were that no source saw.
async fn unseen(space: &Space, ingress: &Liar) -> Result<u64> {
    let Listener { app, host, .. } = &LISTENERS[1];
    awake_and_honest(space).await?;
    ingress.tell(Lie::Cached);
    let mut visitors = Visitors::default();
    let direct = Caller::fresh(space.cluster_address(app, 80).await?, *app);
    visitors.invite(
        "through Traefik",
        Caller::fresh(TRAEFIK, *host),
        Duration::from_millis(150),
        Patience::NONE,
    );
    visitors.invite("to the ClusterIP", direct, Duration::from_millis(150), Patience::NONE);
    let kept = throughout(2 * BELIEVED, async || {
        let replicas = space.replicas(app).await?;
        ensure!(replicas == 1, "it was put to sleep under its visitors' eyes: {replicas} replicas");
        Ok(())
    })
    .await;
    ingress.tell(Lie::Honest);
    let met = visitors.end().await?;
    kept?;
    met.ensure_none_lost("visitors whom no source sees", 50)?;
    Ok(met.requests)
}
