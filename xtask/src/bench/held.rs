//! (c) Many requests held for one app: all answered, what each costs, and one scale for all of them.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::apps::{App, QUICK_NAPS, Space, eventually};
use super::figures::{Part, Row, Values};
use super::launcher::Bench;
use super::load::milliseconds;
use super::plot::Plot;
use crate::e2e::say;

/// The app takes so long to boot, so that all of them are there before it is.
const BOOT: Duration = Duration::from_secs(30);
/// How long an answer may take, from the first byte to the last, redirects included.
const PATIENCE: Duration = Duration::from_secs(100);
/// Memory for each held connection, in bytes.
const PROMISED: f64 = 20.0 * 1024.0;
/// Connections that are opened at a time.
const OPENING: usize = 100;

/// What one rush was like.
struct Rush {
    count: usize,
    answered: usize,
    first_loss: Option<String>,
    bytes_each: f64,
    wakes: usize,
    /// From the first answer to each, in milliseconds.
    spread: Values,
}

pub(crate) async fn run(bench: &Bench) -> Result<Part> {
    let space = Space::make(bench, "c").await?;
    let mut rushes = Vec::new();
    let counts: &[usize] = if bench.quick { &[1_000] } else { &[1_000, 10_000] };
    for &count in counts {
        // A fresh program each time: memory that an earlier rush has left would hide what this one needs.
        bench.members.start(2, &QUICK_NAPS).await?;
        // Asleep from the beginning: at zero, and it says to how many.
        let annotations =
            json!({"kubenap/replicaCount": "1", "kubenap/holdFor": "90s", "kubenap/wakeTimeout": "90s"});
        let app =
            App { replicas: 0, boot: BOOT, annotations, routed: false, ..App::new(format!("held-{count}")) };
        space.create(&app).await?;
        space.until_asleep(&app).await?;
        // kube-proxy hears of it later.
        sleep(Duration::from_secs(3)).await;
        rushes.push(rush(&space, &app, count).await.with_context(|| format!("{count} requests"))?);
    }
    space.remove().await?;
    Ok(part(&rushes))
}

async fn rush(space: &Space<'_>, app: &App, count: usize) -> Result<Rush> {
    let members = &space.bench.members;
    let at = space.address(app).await?;
    let log = space.bench.log()?;
    let before: u64 = members.usage().await?.iter().map(|usage| usage.resident).sum();
    let opening = std::sync::Arc::new(tokio::sync::Semaphore::new(OPENING));
    let mut visitors = JoinSet::new();
    for nth in 0..count {
        let (opening, host) = (std::sync::Arc::clone(&opening), app.host());
        visitors.spawn(async move { visitor(at, &host, nth, &opening).await });
    }
    let held = count;
    eventually("all of them are held", BOOT, async || {
        let now = members.sum("kubenap_held_requests").await?;
        #[expect(clippy::cast_precision_loss, reason = "a count of requests is small")]
        let wanted = held as f64;
        ensure!(now >= wanted, "{now} are");
        Ok(())
    })
    .await?;
    let during: u64 = members.usage().await?.iter().map(|usage| usage.resident).sum();
    #[expect(clippy::cast_precision_loss, reason = "memory of a process fits")]
    let bytes_each = during.saturating_sub(before) as f64 / count as f64;
    say(&format!("{count} held: {bytes_each:.0} bytes each"));
    let (mut moments, mut first_loss) = (Vec::new(), None);
    while let Some(done) = visitors.join_next().await {
        match done? {
            Ok(moment) => moments.push(moment),
            Err(error) => first_loss = first_loss.or(Some(format!("{error:#}"))),
        }
    }
    space.until_awake(app).await?;
    let first = moments.iter().min().copied().unwrap_or_else(Instant::now);
    Ok(Rush {
        count,
        answered: moments.len(),
        first_loss,
        bytes_each,
        wakes: log.wakes(&space.name, &app.name)?,
        spread: Values::of(moments.iter().map(|moment| milliseconds(*moment - first)).collect()),
    })
}

/// A request as a proxy sends it, and the redirect that it gets, on bare sockets: ten thousand of these are to cost
/// the client little. The moment at which the app's answer was whole.
async fn visitor(
    at: SocketAddr,
    host: &str,
    nth: usize,
    opening: &tokio::sync::Semaphore,
) -> Result<Instant> {
    let permit = opening.acquire().await.context("no more are opened")?;
    let mut stream = timeout(PATIENCE, TcpStream::connect(at)).await??;
    let head = format!(
        "GET /held?n={nth} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await?;
    // Let go only when it is on its way, so that the listeners' queues never overflow.
    drop(permit);
    let mut redirects = 0;
    loop {
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.context("no answer in time")??;
        if answer.starts_with("HTTP/1.1 200 ") {
            ensure!(
                answer.contains("pod=") && answer.contains(&format!("n={nth} ")),
                "not its answer: {answer:?}"
            );
            return Ok(Instant::now());
        }
        let first = answer.lines().next().unwrap_or("nothing").to_owned();
        ensure!(answer.starts_with("HTTP/1.1 307 ") && redirects < 8, "{first} after {redirects} redirects");
        redirects += 1;
        let _permit = opening.acquire().await.context("no more are opened")?;
        stream = timeout(PATIENCE, TcpStream::connect(at)).await??;
        stream.write_all(head.as_bytes()).await?;
    }
}

fn part(rushes: &[Rush]) -> Part {
    let mut rows = Vec::new();
    let mut lines = Vec::new();
    for rush in rushes {
        let count = rush.count;
        #[expect(clippy::cast_precision_loss, reason = "a count of requests is small")]
        let (answered, wakes) = (rush.answered as f64, rush.wakes as f64);
        let loss = rush.first_loss.clone().unwrap_or_else(|| "none lost".to_owned());
        rows.push(
            Row::new(format!("{count} held: answered by the app"), answered, rush.answered.to_string(), loss)
                .promised(rush.answered == count),
        );
        let each = format!("{:.1} KB", rush.bytes_each / 1024.0);
        rows.push(
            Row::new(format!("{count} held: memory for each"), rush.bytes_each, each, "at most 20 KB")
                .promised(rush.bytes_each <= PROMISED),
        );
        rows.push(
            Row::new(format!("{count} held: scales from zero"), wakes, rush.wakes.to_string(), "1")
                .promised(rush.wakes == 1),
        );
        let last = rush.spread.at(1.0) / 1000.0;
        rows.push(Row::new(
            format!("{count} held: first answer to the last"),
            last,
            format!("{last:.1} s"),
            "let go by and by, for the first pod's sake",
        ));
        lines.push((format!("{count} requests"), rush.spread.clone()));
    }
    let plot = Plot {
        file: "held".to_owned(),
        title: "Answers to requests that were held, after the first".to_owned(),
        axis: "milliseconds".to_owned(),
        lines,
    };
    Part {
        name: "c",
        title: "Requests held for one app",
        how: format!(
            "An app that takes {} s to boot gets all of them at once, as a proxy would send them, at its Service's address; \
             each is held, redirected, and answered by the app at the same address. Memory is what both members together \
             have more resident when all are held than before the first came. Scales are counted in the API server's \
             audit log.",
            BOOT.as_secs()
        ),
        rows,
        plots: vec![plot],
    }
}
