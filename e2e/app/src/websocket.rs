//! A WebSocket that echoes text: the handshake of RFC 6455 and as much of its framing as one small message needs.

use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::answer::{Body, text};

/// What RFC 6455 has a server append to the caller's key.
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// Accepts the upgrade and echoes until the caller closes; 400 for what is no WebSocket handshake.
pub(crate) fn answer(mut request: Request<Incoming>) -> Response<Body> {
    let websocket_wanted =
        request.headers().get(UPGRADE).is_some_and(|u| u.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let Some(key) = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| key.to_str().ok())
        .filter(|_| websocket_wanted)
    else {
        return text(StatusCode::BAD_REQUEST, "not a WebSocket handshake\n".to_owned());
    };
    let accept = STANDARD.encode(sha1_smol::Sha1::from(format!("{key}{SUFFIX}")).digest().bytes());
    let Ok(accept) = HeaderValue::from_str(&accept) else {
        return text(StatusCode::BAD_REQUEST, "not a WebSocket key\n".to_owned());
    };
    let upgraded = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        if let Ok(stream) = upgraded.await {
            // A caller that leaves without a close frame has had what it wanted.
            drop(echo(TokioIo::new(stream)).await);
        }
    });
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    response
}

async fn echo(mut stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin) -> io::Result<()> {
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).await?;
        let length = match head[1] & 0x7f {
            126 => usize::from(stream.read_u16().await?),
            127 => return Err(io::ErrorKind::InvalidData.into()),
            short => usize::from(short),
        };
        let mut mask = [0; 4];
        if head[1] & 0x80 != 0 {
            stream.read_exact(&mut mask).await?;
        }
        let mut message = vec![0; length];
        stream.read_exact(&mut message).await?;
        for (byte, key) in message.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= key;
        }
        match head[0] & 0x0f {
            CLOSE => return write_frame(&mut stream, CLOSE, &message).await,
            PING => write_frame(&mut stream, PONG, &message).await?,
            PONG => {}
            _ => write_frame(&mut stream, TEXT, &message).await?,
        }
    }
}

/// Writes one whole, unmasked frame of less than 64 KiB.
async fn write_frame(
    stream: &mut (impl tokio::io::AsyncWrite + Unpin),
    kind: u8,
    message: &[u8],
) -> io::Result<()> {
    let mut frame = vec![0x80 | kind];
    match (u8::try_from(message.len()), u16::try_from(message.len())) {
        (Ok(short), _) if short < 126 => frame.push(short),
        (_, Ok(long)) => {
            frame.push(126);
            frame.extend(long.to_be_bytes());
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    }
    frame.extend(message);
    stream.write_all(&frame).await?;
    stream.flush().await
}
