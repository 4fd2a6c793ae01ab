//! A WebSocket visitor: the handshake, one text message there, the same one back.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::Request;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http_body_util::Empty;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{EXCHANGE, connect};

/// The key of RFC 6455's example, and the answer that the page computes for it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Opens a WebSocket at `/ws`, sends a short text, and fails unless it comes back.
pub(crate) async fn echo_over_websocket(to: SocketAddr, host: &str, text: &str) -> Result<()> {
    let status = upgrade_and_echo(to, host, text).await?;
    ensure!(status == 101, "the WebSocket handshake was answered {status}");
    Ok(())
}

/// The same once, whatever the handshake is answered: its status.
pub(crate) async fn upgrade_and_echo(to: SocketAddr, host: &str, text: &str) -> Result<u16> {
    timeout(EXCHANGE, echo(to, host, text)).await.with_context(|| format!("no echo within {EXCHANGE:?}"))?
}

async fn echo(to: SocketAddr, host: &str, text: &str) -> Result<u16> {
    let (mut sender, connection) = handshake(TokioIo::new(connect(to).await?)).await?;
    tokio::spawn(async move {
        // What goes wrong here is told to whoever waits for the answer.
        drop(connection.with_upgrades().await);
    });
    let request = Request::get("/ws")
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, KEY)
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await.context("WebSocket handshake")?;
    if response.status() != 101 {
        return Ok(response.status().as_u16());
    }
    let told = response.headers().get(CONNECTION);
    ensure!(
        told.is_some_and(|told| told.as_bytes().eq_ignore_ascii_case(b"upgrade")),
        "a 101 with Connection: {told:?}"
    );
    let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
    ensure!(accept.is_some_and(|accept| accept == ACCEPT), "wrong Sec-WebSocket-Accept: {accept:?}");

    let mut stream =
        TokioIo::new(hyper::upgrade::on(response).await.context("take the upgraded connection")?);
    stream.write_all(&masked(text)?).await.context("send a message")?;
    let mut head = [0; 2];
    stream.read_exact(&mut head).await.context("read the echo's head")?;
    ensure!(head[0] == 0x81 && head[1] < 126, "expected one short text frame, got {head:02x?}");
    let mut message = vec![0; usize::from(head[1])];
    stream.read_exact(&mut message).await.context("read the echo")?;
    ensure!(message == text.as_bytes(), "the echo differs: {:?}", String::from_utf8_lossy(&message));
    Ok(101)
}

/// One text frame, masked as a client must.
fn masked(text: &str) -> Result<Vec<u8>> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let Some(length) = u8::try_from(text.len()).ok().filter(|length| *length < 126) else {
        bail!("a message of {} bytes is too long for this client", text.len());
    };
    let mut frame = vec![0x81, 0x80 | length];
    frame.extend(MASK);
    frame.extend(text.bytes().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Ok(frame)
}
