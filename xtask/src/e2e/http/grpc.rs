//! A gRPC visitor: one unary call over cleartext HTTP/2.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use http::Request;
use http::header::{CONTENT_TYPE, TE};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use super::{EXCHANGE, MOST_BODY, connect};

/// Calls `/echo.Echo/Say` and fails unless the message comes back with `grpc-status: 0`.
pub(crate) async fn say_over_grpc(to: SocketAddr, host: &str, message: &[u8]) -> Result<()> {
    let said = call_over_grpc(to, host, message).await?;
    ensure!(said == "0", "the gRPC call ended with {said}");
    Ok(())
}

/// Calls `/echo.Echo/Say` once: its `grpc-status`, or `HTTP 503` and the like for an answer that has none.
/// Fails if the status is 0 and the message another one.
pub(crate) async fn call_over_grpc(to: SocketAddr, host: &str, message: &[u8]) -> Result<String> {
    timeout(EXCHANGE, say(to, host, message))
        .await
        .with_context(|| format!("no gRPC answer within {EXCHANGE:?}"))?
}

async fn say(to: SocketAddr, host: &str, message: &[u8]) -> Result<String> {
    let stream = TokioIo::new(connect(to).await?);
    let (mut sender, connection) = handshake(TokioExecutor::new(), stream).await.context("HTTP/2 preface")?;
    tokio::spawn(async move {
        // What goes wrong here is told to whoever waits for the answer.
        drop(connection.await);
    });
    let mut framed = BytesMut::new();
    framed.put_u8(0); // not compressed
    framed.put_u32(u32::try_from(message.len())?);
    framed.put(message);
    let framed = framed.freeze();
    let request = Request::post(format!("http://{host}/echo.Echo/Say"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .body(Full::<Bytes>::new(framed.clone()))?;
    let response = sender.send_request(request).await.context("gRPC call")?;
    let (head, body) = response.into_parts();
    if head.status != 200 {
        return Ok(format!("HTTP {}", head.status.as_u16()));
    }
    let body = Limited::new(body, MOST_BODY).collect().await.map_err(anyhow::Error::from_boxed)?;
    let status = body.trailers().and_then(|trailers| trailers.get("grpc-status")).cloned();
    let status = status.or_else(|| head.headers.get("grpc-status").cloned());
    let status = status.context("a 200 without grpc-status")?;
    let status = status.to_str().context("a grpc-status that is no text")?.to_owned();
    ensure!(status != "0" || body.to_bytes() == framed, "the gRPC echo differs");
    Ok(status)
}
