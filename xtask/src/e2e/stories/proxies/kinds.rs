//! Asleep: every kind of request that wakes the app, and what each is answered.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::stage::Lane;
use crate::e2e::http::{Call, Content, Journey, call_over_grpc, fnv, upgrade_and_echo};

/// As often as a browser follows.
pub(super) const MOST_REDIRECTS: usize = 20;
const TARGET: &str = "/a%20b/%C3%BC?x=1&y=%2Fz%3F&&empty=";
/// Where Envoy without Lua sends a client first.
const HOP: &str = "/.kubenap/wake?u=";
/// How long a caller who is told to come again does so.
const PATIENCE: Duration = Duration::from_secs(60);

/// A GET whose path and query must arrive as they were sent.
pub(super) async fn get(lane: &Lane) -> Result<String> {
    let journey = lane.visitor().follow(&Call::get(TARGET), MOST_REDIRECTS).await?;
    journey.reply.ensure_from_app()?;
    let arrived = journey.reply.said("path")?;
    ensure!(arrived == TARGET, "the app saw {arrived}");
    for location in &journey.redirects {
        ensure!(location == TARGET || *location == format!("{HOP}{TARGET}"), "a redirect to {location}");
    }
    Ok(told(&journey))
}

/// A HEAD, which the app's own header proves to be answered by it.
pub(super) async fn head(lane: &Lane) -> Result<String> {
    let journey = lane.visitor().follow(&Call::head("/head?x=1"), MOST_REDIRECTS).await?;
    let reply = &journey.reply;
    ensure!(reply.status == 200 && reply.headers.contains_key("x-pod"), "not the app's 200: {reply:?}");
    ensure!(reply.body.is_empty(), "a HEAD was answered with a body");
    Ok(told(&journey))
}

/// A POST with a length, as of a file.
pub(super) async fn post(lane: &Lane) -> Result<String> {
    upload(lane, "/post", Content::Sized).await
}

/// A POST whose end is told by its last chunk.
pub(super) async fn chunked(lane: &Lane) -> Result<String> {
    upload(lane, "/chunked", Content::Chunked).await
}

async fn upload(lane: &Lane, target: &str, content: fn(Bytes) -> Content) -> Result<String> {
    // 900 kB with no two blocks alike.
    let body: Bytes = (0u32..225_000).flat_map(u32::to_be_bytes).collect();
    let journey = lane.visitor().follow(&Call::post(target, content(body.clone())), MOST_REDIRECTS).await?;
    journey.reply.ensure_from_app()?;
    let (method, bytes) = (journey.reply.said("method")?, journey.reply.said("bytes")?);
    let whole =
        bytes == body.len().to_string() && journey.reply.said("fnv")? == format!("{:016x}", fnv(&body));
    ensure!(method == "POST" && whole, "the app received another request: {:?}", journey.reply);
    Ok(told(&journey))
}

/// A WebSocket handshake and an echo.
pub(super) async fn websocket(lane: &Lane) -> Result<String> {
    let begun = Instant::now();
    let mut before = String::new();
    while begun.elapsed() < PATIENCE {
        match upgrade_and_echo(lane.site.http, &lane.site.host, "are you awake?").await? {
            101 => return Ok(format!("{before}101, {}", seconds(begun.elapsed()))),
            status => before = format!("{status}, then "),
        }
        ensure!(!lane.way.substitutes(), "the handshake was answered {before}");
        sleep(Duration::from_millis(500)).await;
    }
    bail!("no WebSocket within {PATIENCE:?}: {before}")
}

/// A gRPC call; a client that is told `UNAVAILABLE` calls again.
pub(super) async fn grpc(lane: &Lane) -> Result<String> {
    let begun = Instant::now();
    let mut before = String::new();
    while begun.elapsed() < PATIENCE {
        match &*call_over_grpc(lane.site.grpc, &lane.site.host, b"are you awake?").await? {
            "0" => return Ok(format!("{before}0 (OK), {}", seconds(begun.elapsed()))),
            "14" => "14 (UNAVAILABLE), then ".clone_into(&mut before),
            status => bail!("the call ended with {status}"),
        }
        ensure!(!lane.way.substitutes(), "the call was answered {before}");
        sleep(Duration::from_millis(500)).await;
    }
    bail!("no gRPC answer within {PATIENCE:?}: {before}")
}

/// What a visitor met on the way to the app's 200.
pub(super) fn told(journey: &Journey) -> String {
    let redirects = match journey.redirects.len() {
        0 => String::new(),
        1 => "307 → ".to_owned(),
        more => format!("{more} × 307 → "),
    };
    format!("{redirects}{}, {}", journey.reply.status, seconds(journey.took))
}

/// As the matrix shows a time.
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}
