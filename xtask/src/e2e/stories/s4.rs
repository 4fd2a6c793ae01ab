//! No request is lost in fifty naps and wakes under traffic, and none is redirected twice.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::http::{Call, Caller};
use crate::e2e::world::{Space, eventually};

/// The apps sleep and wake side by side, so that the story takes minutes and not a quarter of an hour.
const APPS: [(&str, &str); 2] = [("one", "s4-one.test"), ("two", "s4-two.test")];
const CYCLES: u64 = 25;
/// How long an app must serve on after SIGTERM to lose nothing of its own in a nap, or in any rollout: the controller of
/// EndpointSlices tries again only after 1 s when its own view was too old, and Traefik takes in a change up to 2 s later.
/// With 2.5 s one of 12,408 requests was lost, on a machine under load 4 of 10,985: 502 and 504 by Traefik, for pods that
/// had ended while it still knew them.
const SERVES_ON: Duration = Duration::from_secs(5);
/// Visitors of each app: two of each kind.
const VISITORS: usize = 8;
const REQUESTS: u64 = 5_000;
/// How much later than the other one member may hear of the pods. One that lags by more sends a request back once more: a
/// slow machine's doing.
const LAG: Duration = Duration::from_secs(1);

/// What all visitors saw together.
#[derive(Default)]
struct Tally {
    over: AtomicBool,
    requests: AtomicU64,
    redirected: AtomicU64,
    redirected_again: AtomicU64,
    /// Those of them that went on for longer than members lag after they had been redirected.
    lagged: AtomicU64,
    longest_ms: AtomicU64,
    lost: Mutex<Vec<String>>,
}

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    let tally = Arc::new(Tally::default());
    let begun = space.world.audit.now()?;
    let mut visitors = JoinSet::new();
    for (app, host) in APPS {
        // On a slow machine a wake may take longer than the usual ten seconds, after which whoever waits is sent back.
        space.deploy(&App::new(app).host(host).stop(SERVES_ON).annotate("holdFor", "1m")).await?;
        let address = space.cluster_address(app, 80).await?;
        let callers = [
            ("fresh through Traefik", Caller::fresh(TRAEFIK, host)),
            ("kept alive through Traefik", Caller::kept(TRAEFIK, host)),
            ("fresh to the ClusterIP", Caller::fresh(address, app)),
            ("kept alive to the ClusterIP", Caller::kept(address, app)),
        ];
        for (who, caller) in callers.into_iter().cycle().take(VISITORS) {
            let seed = visitors.len() as u64 + 1;
            visitors.spawn(trickle(Arc::clone(&tally), format!("{app}, {who}"), caller, seed));
        }
    }
    let cycled = futures::future::try_join_all(APPS.map(|(app, _)| cycle(space, app, &tally))).await;
    tally.over.store(true, Ordering::Relaxed);
    while let Some(visitor) = visitors.join_next().await {
        visitor.context("a visitor panicked")?;
    }
    let naps: u64 = cycled?.into_iter().sum();

    let lost = tally.lost.lock().map(|lost| lost.clone()).unwrap_or_default();
    let requests = tally.requests.load(Ordering::Relaxed);
    let mut scaled_to_zero = 0;
    for (app, _) in APPS {
        let scalings = space.world.audit.scalings_since(begun, &space.namespace, app)?;
        scaled_to_zero += scalings.iter().filter(|write| write.replicas == 0).count() as u64;
    }
    ensure!(
        lost.is_empty(),
        "{} of {requests} requests were lost in {naps} naps:\n{}",
        lost.len(),
        lost.join("\n")
    );
    let (again, lagged) =
        (tally.redirected_again.load(Ordering::Relaxed), tally.lagged.load(Ordering::Relaxed));
    ensure!(
        again == lagged && lagged <= (VISITORS * APPS.len()) as u64,
        "none of {requests} requests was lost in {naps} naps, but {again} were redirected twice, {lagged} of them \
         because a member lagged"
    );
    ensure!(scaled_to_zero >= naps, "{naps} naps, but the audit log shows {scaled_to_zero} scalings to zero");
    Ok(vec![
        ("requests", requests),
        ("lost", 0),
        ("naps", naps),
        ("redirected", tally.redirected.load(Ordering::Relaxed)),
        ("redirected twice by a lag", lagged),
        ("longest ms", tally.longest_ms.load(Ordering::Relaxed)),
    ])
}

/// Naps by force and wakes by the visitors' traffic, until there were enough of both.
async fn cycle(space: &Space, app: &str, tally: &Tally) -> Result<u64> {
    let mut naps = 0;
    while naps < CYCLES || tally.requests.load(Ordering::Relaxed) < REQUESTS {
        let before = space.pods(app).await?;
        space.nap(app).await.with_context(|| format!("nap {} of {app}", naps + 1))?;
        let after = space.pods(app).await?;
        let left: Vec<_> = before.intersection(&after).collect();
        ensure!(left.is_empty(), "nap {} of {app} left pods behind: {left:?}", naps + 1);
        naps += 1;
        eventually(&format!("{app} is woken by its visitors"), Duration::from_secs(60), async || {
            let (phase, ready) = (space.phase(app).await?, space.ready_replicas(app).await?);
            ensure!(phase == "awake" && ready == 1, "phase {phase}, {ready} ready");
            Ok(())
        })
        .await?;
    }
    Ok(naps)
}

/// One visitor: a request, a pause of 50 to 300 ms, the next request.
async fn trickle(tally: Arc<Tally>, who: String, mut caller: Caller, seed: u64) {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let begun = Instant::now();
    for number in 0u64.. {
        if tally.over.load(Ordering::Relaxed) {
            return;
        }
        let journey = caller.follow(&Call::get(format!("/trickle?n={number}")), 3).await;
        tally.requests.fetch_add(1, Ordering::Relaxed);
        let answered = journey.and_then(|journey| {
            let ms = u64::try_from(journey.took.as_millis()).unwrap_or(u64::MAX);
            tally.longest_ms.fetch_max(ms, Ordering::Relaxed);
            tally.redirected.fetch_add(journey.redirects.len().min(1) as u64, Ordering::Relaxed);
            let again = journey.redirects.len() > 1;
            let lagged = again && journey.redirected.is_some_and(|first| first.elapsed() > LAG);
            tally.redirected_again.fetch_add(u64::from(again), Ordering::Relaxed);
            tally.lagged.fetch_add(u64::from(lagged), Ordering::Relaxed);
            journey.reply.ensure_from_app()
        });
        if let Err(error) = answered {
            let line =
                format!("{who}, request {number}, second {:.1}: {error:#}", begun.elapsed().as_secs_f64());
            crate::e2e::say(&format!("LOST: {line}"));
            if let Ok(mut lost) = tally.lost.lock() {
                lost.push(line);
            }
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        sleep(Duration::from_millis(50 + random % 251)).await;
    }
}
