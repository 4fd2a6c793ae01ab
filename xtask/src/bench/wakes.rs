//! (b) Many wakes, by redirect, by pass and by eager pass, beside a plain scale.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::apps::{App, QUICK_NAPS, Space, visit};
use super::figures::{Part, Row, Values};
use super::launcher::Bench;
use super::load::milliseconds;
use super::plot::Plot;
use super::ready::ReadyPods;
use crate::e2e::cluster::TRAEFIK;
use crate::e2e::say;

/// How an app is woken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Redirect,
    Pass,
    Eager,
    /// By a person's scale, without KubeNap.
    Plain,
}

/// One app and what its wakes took.
struct Lane {
    way: Way,
    boot: Duration,
    app: App,
    /// From the request, or the scale, to the moment a watch showed the pod ready.
    to_ready: Vec<f64>,
    /// From that moment to the whole 200; below zero: the answer was there before.
    after_ready: Vec<f64>,
    /// From that moment to the first redirect.
    redirected: Vec<f64>,
    /// From the moment a watch showed the pod's address to the moment it showed it ready.
    addressed: Vec<f64>,
    /// From the request to the whole 200.
    whole: Vec<f64>,
}

const WAYS: [Way; 4] = [Way::Redirect, Way::Pass, Way::Eager, Way::Plain];
const BOOTS: [Duration; 2] = [Duration::ZERO, Duration::from_secs(1)];
/// Between the beginnings of two wakes of a round: longer than the start of a pod, since pods that start in the same moment
/// slow each other down. Many at once are another part's matter.
const STAGGER: Duration = Duration::from_millis(1500);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long after Ready a redirected request may be answered (p95).
const PROMISED: f64 = 50.0;

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Redirect => "307",
            Self::Pass => "pass",
            Self::Eager => "eager pass",
            Self::Plain => "plain scale",
        }
    }
}

impl Lane {
    fn new(way: Way, boot: Duration) -> Self {
        let name = format!("{}-{}", way.name().replace(' ', "-"), boot.as_secs());
        let mode = match way {
            Way::Redirect => json!({"kubenap/wake": "redirect"}),
            Way::Pass | Way::Eager => json!({"kubenap/wake": "pass"}),
            Way::Plain => json!({}),
        };
        // A probe that answers by a redirect is the kubelet's alone; it comes to the same.
        let probe = if way == Way::Pass { "/moved" } else { "/healthz" };
        let app = App {
            enrolled: way != Way::Plain,
            annotations: mode,
            boot,
            probe,
            ..App::new(format!("w{name}"))
        };
        Self {
            way,
            boot,
            app,
            to_ready: Vec::new(),
            after_ready: Vec::new(),
            redirected: Vec::new(),
            addressed: Vec::new(),
            whole: Vec::new(),
        }
    }

    fn title(&self) -> String {
        format!("{}, {} s of boot", self.way.name(), self.boot.as_secs())
    }
}

pub(crate) async fn run(bench: &Bench) -> Result<Part> {
    let space = Space::make(bench, "b").await?;
    bench.members.start(2, &QUICK_NAPS).await?;
    let ready = ReadyPods::follow(space.pods());
    let mut lanes: Vec<Lane> =
        BOOTS.into_iter().flat_map(|boot| WAYS.into_iter().map(move |way| Lane::new(way, boot))).collect();
    for lane in &lanes {
        space.create(&lane.app).await?;
    }
    for lane in &lanes {
        space.until_answers(&lane.app, TRAEFIK).await?;
    }
    let rounds = bench.count(50, 4);
    for round in 0..rounds {
        try_join_all(lanes.iter().map(|lane| put_to_sleep(&space, lane))).await?;
        // Traefik and kube-proxy hear of it up to two seconds later.
        sleep(Duration::from_secs(2)).await;
        let count = lanes.len();
        let woken = lanes.iter_mut().enumerate().map(|(nth, lane)| {
            // Each has each place in a round equally often.
            let place = u32::try_from((nth + round) % count).unwrap_or(0);
            let (space, ready) = (&space, &ready);
            async move {
                sleep(STAGGER * place).await;
                wake(space, ready, lane)
                    .await
                    .with_context(|| format!("wake {} of {}", round + 1, lane.title()))
            }
        });
        try_join_all(woken).await?;
        let kubenaps = lanes.iter().filter(|lane| lane.way != Way::Plain);
        try_join_all(kubenaps.map(|lane| space.until_awake(&lane.app))).await?;
        if (round + 1) % 10 == 0 || bench.quick {
            say(&format!("{} of {rounds} rounds", round + 1));
        }
    }
    drop(ready);
    space.remove().await?;
    Ok(part(&lanes, rounds))
}

async fn put_to_sleep(space: &Space<'_>, lane: &Lane) -> Result<()> {
    if lane.way == Way::Plain {
        space.scale(&lane.app.name, 0).await?;
        return space.until_no_pods(&lane.app.name).await;
    }
    space.wish_nap(&lane.app.name).await?;
    space.until_asleep(&lane.app).await
}

async fn wake(space: &Space<'_>, ready: &ReadyPods, lane: &mut Lane) -> Result<()> {
    let begun = Instant::now();
    let at_ready = ready.after(&lane.app.name, begun, PATIENCE);
    let at_ready = if lane.way == Way::Plain {
        space.scale(&lane.app.name, 1).await?;
        at_ready.await?
    } else {
        let host = lane.app.host();
        let (visited, at_ready) = tokio::try_join!(visit(TRAEFIK, &host), at_ready)?;
        lane.after_ready.push(difference(at_ready.ready, visited.answered));
        lane.redirected.extend(visited.redirected.map(|at| difference(at_ready.ready, at)));
        lane.whole.push(milliseconds(visited.answered - begun));
        at_ready
    };
    lane.to_ready.push(milliseconds(at_ready.ready - begun));
    lane.addressed.push(milliseconds(at_ready.ready - at_ready.address));
    Ok(())
}

/// Milliseconds from one moment to the other, below zero if it came before.
fn difference(from: Instant, to: Instant) -> f64 {
    milliseconds(to.saturating_duration_since(from)) - milliseconds(from.saturating_duration_since(to))
}

fn part(lanes: &[Lane], rounds: usize) -> Part {
    let mut rows = Vec::new();
    let (mut after, mut whole) = (Vec::new(), Vec::new());
    for boot in BOOTS {
        let plain = lanes.iter().find(|lane| lane.way == Way::Plain && lane.boot == boot);
        let plain = plain.map(|lane| Values::of(lane.to_ready.clone())).unwrap_or_default();
        for lane in lanes.iter().filter(|lane| lane.boot == boot && lane.way != Way::Plain) {
            let values = Values::of(lane.after_ready.clone());
            let (median, high) = (values.median(), values.at(0.95));
            let beside = format!("p5 {:.0}, p95 {high:.0} ms", values.at(0.05));
            let what = |of: &str| format!("{}: {of}", lane.title());
            let row =
                Row::new(what("Ready to the whole 200, median"), median, format!("{median:.0} ms"), beside);
            // Where a kubelet shows the address and Ready at once there is nothing to be eager about.
            let eager = lane.way == Way::Eager && !lane.boot.is_zero();
            rows.push(if eager { row.promised(median < 0.0) } else { row });
            if lane.way == Way::Eager {
                let lead = Values::of(lane.addressed.clone());
                let (median, high) = (lead.median(), lead.at(0.95));
                let beside = format!("p5 {:.0}, p95 {high:.0} ms", lead.at(0.05));
                rows.push(Row::new(
                    what("its pod's address to Ready, median"),
                    median,
                    format!("{median:.0} ms"),
                    beside,
                ));
            }
            if lane.way == Way::Redirect {
                let redirected = Values::of(lane.redirected.clone());
                let (median, high_of_it) = (redirected.median(), redirected.at(0.95));
                let beside = format!("p5 {:.0}, p95 {high_of_it:.0} ms", redirected.at(0.05));
                let what_of_it = what("Ready to the redirect, median");
                rows.push(Row::new(what_of_it, median, format!("{median:.0} ms"), beside));
                let row = Row::new(
                    what("Ready to the whole 200, p95"),
                    high,
                    format!("{high:.0} ms"),
                    format!("at most {PROMISED} ms"),
                );
                rows.push(row.promised(high <= PROMISED));
            }
            let total = Values::of(lane.whole.clone());
            let ratio = total.median() / plain.median();
            let beside = format!("{:.0} ms : {:.0} ms", total.median(), plain.median());
            rows.push(Row::new(
                what("request to 200 : plain scale to Ready"),
                ratio,
                format!("{ratio:.2}"),
                beside,
            ));
            after.push((lane.title(), values));
            whole.push((lane.title(), total));
        }
        whole.push((format!("plain scale, {} s of boot", boot.as_secs()), plain));
    }
    let plot = |file: &str, title: &str, lines| Plot {
        file: file.to_owned(),
        title: title.to_owned(),
        axis: "milliseconds".to_owned(),
        lines,
    };
    Part {
        name: "b",
        title: "Waking one app",
        how: format!(
            "{rounds} wakes each through Traefik, of apps that listen at once or after a second, with an HTTP readiness \
             probe each second, two members. Eight apps sleep and wake in each round, one and a half \
             seconds apart and each in each place equally often. \"pass\" is an app whose probe KubeNap cannot run itself (it answers by a redirect), \
             \"eager pass\" one whose probe it can. The client follows redirects; an answer counts when its last byte is \
             there. The plain scale is `replicas: 1` by hand on an app that is not enrolled, until a watch shows its pod \
             Ready: no request could be answered earlier without looking behind the kubelet. And none can be answered \
             before the kubelet has shown the pod's address, which for an app that listens at once is almost together \
             with Ready: eager passing is promised to be earlier where there is something to be earlier than."
        ),
        rows,
        plots: vec![
            plot("wake-after-ready", "From the pod's Ready to the whole 200", after),
            plot("wake-whole", "From the request to the whole 200", whole),
        ],
    }
}
