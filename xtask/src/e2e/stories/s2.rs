//! Callers inside the cluster wake an app with any kind of request, and see no redirect.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;

use super::Counts;
use crate::e2e::app::App;
use crate::e2e::http::{Call, Content, echo_over_websocket, fnv, say_over_grpc};
use crate::e2e::world::Space;

const APP: &str = "called";

pub(crate) async fn run(space: &Space) -> Result<Counts> {
    space.deploy(&App::new(APP)).await?;
    let address = space.cluster_address(APP, 80).await?;
    // A megabyte with no two blocks alike.
    let body: Bytes = (0u32..256 << 10).flat_map(u32::to_be_bytes).collect();

    sleep_tight(space).await?;
    request(space, Call::get("/get?q=%20"), &Bytes::new()).await.context("GET")?;
    sleep_tight(space).await?;
    request(space, Call::post("/sized", Content::Sized(body.clone())), &body).await.context("POST")?;
    sleep_tight(space).await?;
    request(space, Call::post("/chunked", Content::Chunked(body.clone())), &body)
        .await
        .context("POST chunked")?;
    sleep_tight(space).await?;
    echo_over_websocket(address, APP, "are you awake?").await.context("WebSocket")?;
    space.until_awake(APP, APP, 1).await?;
    sleep_tight(space).await?;
    say_over_grpc(address, APP, b"are you awake?").await.context("gRPC")?;
    space.until_awake(APP, APP, 1).await?;
    Ok(vec![("wakes", 5)])
}

async fn sleep_tight(space: &Space) -> Result<()> {
    space.nap(APP).await?;
    space.until_asleep(APP, APP).await
}

async fn request(space: &Space, call: Call, body: &Bytes) -> Result<()> {
    let reply = space.neighbour(APP).await?.send(&call).await?;
    reply.ensure_from_app()?;
    let (bytes, checksum) = (reply.said("bytes")?, reply.said("fnv")?);
    let expected = format!("{:016x}", fnv(body));
    ensure!(
        bytes == body.len().to_string() && checksum == expected,
        "the app received another body: {reply:?}"
    );
    space.until_awake(APP, APP, 1).await
}
