//! (d) A hundred apps asked for in the same moment, beside a hundred plain scales.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::{join_all, try_join_all};
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::apps::{App, QUICK_NAPS, Space, visit};
use super::figures::{Part, Row, Values};
use super::launcher::Bench;
use super::load::milliseconds;
use super::plot::Plot;
use super::ready::ReadyPods;
use crate::e2e::say;

const PATIENCE: Duration = Duration::from_secs(240);

pub(crate) async fn run(bench: &Bench) -> Result<Part> {
    let count = bench.count(100, 10);
    let plain = scaled(bench, count).await.context("plain scales")?;
    say(&format!("{count} plain scales: the last is ready after {:.1} s", plain.at(1.0) / 1000.0));
    let (woken, first_loss) = woken(bench, count).await.context("wakes")?;
    say(&format!("{count} wakes: the last is answered after {:.1} s", woken.at(1.0) / 1000.0));
    let mut rows = Vec::new();
    #[expect(clippy::cast_precision_loss, reason = "a count of apps is small")]
    let answered = woken.len() as f64;
    let loss = first_loss.unwrap_or_else(|| "none lost".to_owned());
    rows.push(
        Row::new(format!("{count} at once: answered by the app"), answered, woken.len().to_string(), loss)
            .promised(woken.len() == count),
    );
    for (name, part) in [("median", 0.5), ("p95", 0.95), ("last", 1.0)] {
        let ratio = woken.at(part) / plain.at(part);
        let beside = format!("{:.1} s : {:.1} s", woken.at(part) / 1000.0, plain.at(part) / 1000.0);
        rows.push(Row::new(
            format!("{count} at once, {name}: request to 200 : scale to Ready"),
            ratio,
            format!("{ratio:.2}"),
            beside,
        ));
    }
    let plot = Plot {
        file: "together".to_owned(),
        title: format!("{count} apps at once"),
        axis: "seconds".to_owned(),
        lines: [("woken by requests", &woken), ("scaled by hand", &plain)]
            .map(|(name, values)| {
                let seconds = values.all().iter().map(|value| value / 1000.0).collect();
                (name.to_owned(), Values::of(seconds))
            })
            .into(),
    };
    Ok(Part {
        name: "d",
        title: "Many apps woken at once",
        how: format!(
            "{count} apps at zero get one request each in the same moment, at their Services' addresses; before it, {count} \
             like them, not enrolled, are scaled to one in the same moment. How long it takes is the node's work: one \
             machine starts all their pods."
        ),
        rows,
        plots: vec![plot],
    })
}

/// From all scales to each pod's readiness, in milliseconds.
async fn scaled(bench: &Bench, count: usize) -> Result<Values> {
    let space = Space::make(bench, "d0").await?;
    let ready = ReadyPods::follow(space.pods());
    let apps: Vec<_> = (0..count)
        .map(|nth| App { enrolled: false, replicas: 0, routed: false, ..App::new(format!("plain-{nth}")) })
        .collect();
    for app in &apps {
        space.create(app).await?;
    }
    let begun = Instant::now();
    let all = apps.iter().map(|app| async {
        space.scale(&app.name, 1).await?;
        ready.after(&app.name, begun, PATIENCE).await
    });
    let moments = try_join_all(all).await?;
    try_join_all(apps.iter().map(|app| space.scale(&app.name, 0))).await?;
    try_join_all(apps.iter().map(|app| space.until_no_pods(&app.name))).await?;
    drop(ready);
    space.remove().await?;
    Ok(Values::of(moments.into_iter().map(|moment| milliseconds(moment.ready - begun)).collect()))
}

/// From all requests to each whole answer, in milliseconds, and the first loss.
async fn woken(bench: &Bench, count: usize) -> Result<(Values, Option<String>)> {
    let space = Space::make(bench, "d1").await?;
    bench.members.start(2, &QUICK_NAPS).await?;
    let annotations = json!({"kubenap/replicaCount": "1", "kubenap/wakeTimeout": "4m"});
    let apps: Vec<_> = (0..count)
        .map(|nth| App {
            replicas: 0,
            routed: false,
            annotations: annotations.clone(),
            ..App::new(format!("app-{nth}"))
        })
        .collect();
    for app in &apps {
        space.create(app).await?;
    }
    try_join_all(apps.iter().map(|app| space.until_asleep(app))).await?;
    let addresses = try_join_all(apps.iter().map(|app| space.address(app))).await?;
    sleep(Duration::from_secs(3)).await;
    let begun = Instant::now();
    let visits = apps.iter().zip(addresses).map(|(app, at)| async move { visit(at, &app.host()).await });
    let (mut times, mut first_loss) = (Vec::new(), None);
    for answered in join_all(visits).await {
        match answered {
            Ok(visited) => times.push(milliseconds(visited.answered - begun)),
            Err(error) => first_loss = first_loss.or(Some(format!("{error:#}"))),
        }
    }
    try_join_all(apps.iter().map(|app| space.until_awake(app))).await?;
    bench.members.stop_all().await?;
    space.remove().await?;
    Ok((Values::of(times), first_loss))
}
