//! A visitor who writes the request's head byte by byte, as no decent client would.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::{EXCHANGE, connect};

/// What is read of an answer, in bytes; the rest says nothing of where it leads.
const MOST: usize = 64 << 10;

/// The head of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Every `Location`, in order.
    pub(crate) locations: Vec<String>,
}

/// Sends these bytes on a connection of their own. None if it was closed without an answer, which is an answer too.
pub(crate) async fn exchange_raw(to: SocketAddr, request: &[u8]) -> Result<Option<Head>> {
    let answer = timeout(EXCHANGE, async {
        let mut stream = connect(to).await?;
        stream.write_all(request).await.context("send")?;
        let mut answer = Vec::new();
        // A connection that is reset has been answered as far as it will be.
        let read = (&mut stream).take(MOST as u64).read_to_end(&mut answer).await;
        anyhow::Ok(if read.is_err() && answer.is_empty() { Vec::new() } else { answer })
    });
    let answer = answer.await.with_context(|| format!("no answer within {EXCHANGE:?}"))??;
    Ok(head(&answer))
}

fn head(answer: &[u8]) -> Option<Head> {
    let text = String::from_utf8_lossy(answer);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let location = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
    };
    Some(Head { status, locations: lines.filter_map(location).collect() })
}

#[cfg(test)]
mod tests {
    use super::head;

    #[test]
    fn the_status_and_every_location_are_read() {
        let read = head(
            b"HTTP/1.1 307 Temporary Redirect\r\nlocation: /a\r\nX: y\r\nLocation:/b \r\n\r\nLocation: /c",
        )
        .expect("a head");
        assert_eq!((read.status, read.locations), (307, vec!["/a".to_owned(), "/b".to_owned()]));
        assert!(head(b"").is_none() && head(b"HTTP/1.1 200 OK\r\n").is_none());
    }
}
