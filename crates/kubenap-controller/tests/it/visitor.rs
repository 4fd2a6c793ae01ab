//! A client on a plain socket: it sends what it is told to, and reads what it gets.
#![expect(clippy::unwrap_used, reason = "a visitor that cannot speak has failed its story")]

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    /// Zero: nothing came, or nothing that is HTTP.
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }
}

/// A GET that ends its connection.
pub(crate) async fn get(at: SocketAddr, host: &str, path: &str) -> Reply {
    send(at, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"), b"").await
}

/// A POST with a body of known length.
pub(crate) async fn post(at: SocketAddr, host: &str, path: &str, body: &[u8]) -> Reply {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
    );
    send(at, &head, body).await
}

/// Sends it all and reads to the end. Whatever goes wrong on the way ends the reply.
pub(crate) async fn send(at: SocketAddr, head: &str, body: &[u8]) -> Reply {
    let Ok(mut stream) = TcpStream::connect(at).await else { return Reply::default() };
    if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(body).await.is_err() {
        return Reply::default();
    }
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    // A broken connection leaves what came before it; so does one that never ends.
    drop(timeout(Duration::from_secs(300), read).await);
    parse(&bytes)
}

/// Upgrades a connection, says something, and hears it again; the head of the answer and the echo.
pub(crate) async fn upgrade(at: SocketAddr, host: &str, say: &str) -> (Reply, String) {
    let mut stream = TcpStream::connect(at).await.unwrap();
    let head = format!(
        "GET /socket HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut bytes).await.unwrap() == 0 {
            return (parse(&bytes), String::new());
        }
    }
    stream.write_all(say.as_bytes()).await.unwrap();
    let mut echo = vec![0; say.len()];
    stream.read_exact(&mut echo).await.unwrap();
    (parse(&bytes), String::from_utf8_lossy(&echo).into_owned())
}

fn parse(bytes: &[u8]) -> Reply {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}
