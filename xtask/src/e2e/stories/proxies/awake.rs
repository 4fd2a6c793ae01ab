//! Awake: what the app answers is its own, byte by byte and header by header, and nothing of it passes through `KubeNap`.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use http::header::{DATE, HeaderName};

use super::stage::{Lane, Stage};
use crate::e2e::http::{Call, Caller, Content, Reply};

/// What every two answers differ in, whoever is asked.
const MOVING: [HeaderName; 2] = [DATE, HeaderName::from_static("x-envoy-upstream-service-time")];
/// How many requests are counted.
const REQUESTS: u64 = 100;

/// An app's answers to a few requests, without what moves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Fingerprint(Vec<Answer>);

/// Status, headers, body.
type Answer = (u16, Vec<(String, String)>, String);

/// Takes it as things are now.
pub(super) async fn fingerprint(lane: &Lane) -> Result<Fingerprint> {
    let calls = [
        Call::get("/a%20b?x=1"),
        Call::head("/a"),
        Call::post("/a", Content::Sized(Bytes::from_static(b"hello"))),
        Call::get("/moved"),
        Call::get("/own502"),
        Call::get("/own503"),
    ];
    let mut seen = Vec::new();
    // Where an error of the app's own is taken for its sleep, there is nothing to compare.
    let own = |call: &Call| call.is_for("/own502") || call.is_for("/own503");
    let calls = calls.into_iter().filter(|call| lane.way.impossible("own").is_none() || !own(call));
    for call in calls {
        seen.push(without_what_moves(&lane.visitor().send(&call).await?)?);
    }
    Ok(Fingerprint(seen))
}

/// The app's own errors and redirect arrive as the app wrote them.
pub(super) async fn own(lane: &Lane, stage: &Stage<'_>) -> Result<String> {
    let before = lane.asks(stage.space).await?;
    for (target, status, said) in [
        ("/own502", 502, "the app's own 502\n"),
        ("/own503", 503, "the app's own 503\n"),
        ("/moved", 307, ""),
    ] {
        let reply = lane.visitor().send(&Call::get(target)).await?;
        ensure!(reply.status == status && reply.text() == said, "{target} was answered {reply:?}");
    }
    none_through(lane, stage, before).await?;
    Ok("untouched".to_owned())
}

/// The same answers as at first, and of many requests none that `KubeNap` has seen.
pub(super) async fn same(lane: &Lane, stage: &Stage<'_>, first: &Fingerprint) -> Result<String> {
    let before = lane.asks(stage.space).await?;
    let now = fingerprint(lane).await?;
    ensure!(now == *first, "without KubeNap: {first:?}\nwith it: {now:?}");
    let mut visitor = Caller::kept(lane.site.http, &lane.site.host);
    for number in 0..REQUESTS {
        visitor.send(&Call::get(format!("/awake?n={number}"))).await?.ensure_from_app()?;
    }
    none_through(lane, stage, before).await?;
    Ok(format!("the same; 0 of {REQUESTS} through KubeNap"))
}

async fn none_through(lane: &Lane, stage: &Stage<'_>, before: f64) -> Result<()> {
    let through = lane.asks(stage.space).await? - before;
    ensure!(through.abs() < 0.5, "{through} requests for an app that is awake reached KubeNap");
    Ok(())
}

fn without_what_moves(reply: &Reply) -> Result<Answer> {
    let pod = reply.headers.get("x-pod").map(|pod| pod.to_str().context("x-pod")).transpose()?.unwrap_or(" ");
    let mut headers: Vec<_> = reply
        .headers
        .iter()
        .filter(|(name, _)| !MOVING.contains(name))
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes());
            (name.to_string(), value.replace(pod, "POD"))
        })
        .collect();
    headers.sort();
    Ok((reply.status, headers, reply.text().replace(pod, "POD")))
}
