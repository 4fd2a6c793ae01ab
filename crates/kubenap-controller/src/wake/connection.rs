//! One connection: what it speaks, and who serves it.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kubenap_core::proxy::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::crowd::Slot;
use super::door::Door;
use super::doors::Shared;
use super::head::{self, Refusal};
use super::limits::Limits;
use super::pass::Upstream;
use super::sniff::{Speech, speech};
use super::stream::Replayed;
use super::{http2, raw, visit};
use crate::untrusted::Head;

/// What all requests of one connection share.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: IpAddr,
    pub(crate) entry: Entry,
}

/// Where a connection came in.
#[derive(Clone)]
pub(crate) enum Entry {
    /// On a wake port: the port says which door.
    WakePort(Arc<Door>, Arc<Slot>),
    /// From a proxy's error path: the names that it set say which door.
    ErrorPath(Proxy, Arc<Slot<IpAddr>>),
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opening {
    /// Came and went without a word.
    Probe,
    /// HTTP/1, with a whole and clean head.
    Http1,
    Http2,
    /// TLS.
    Sealed,
    /// Another protocol, also one in which the server speaks first.
    Unknown,
    Refused(Refusal),
    /// All heads together are too large.
    Crowded,
}

/// Serves a connection to its end.
pub(crate) async fn serve(mut stream: TcpStream, connection: Connection) {
    let shared = Arc::clone(&connection.shared);
    let mut buffer = BytesMut::new();
    // Kept to the end: what a request says at its head is in memory for as long as it waits.
    let mut room = HeadRoom::new(&shared);
    let opening = open(&mut stream, &mut buffer, &mut room);
    let opening = match &connection.entry {
        Entry::WakePort(_, slot) => slot.shed().run_until_cancelled(opening).await,
        Entry::ErrorPath(_, slot) => {
            let opening = slot.shed().run_until_cancelled(opening).await;
            // From here on its place is one at its door.
            slot.settle();
            opening
        }
    };
    let stall = shared.limits.write_stall;
    let before = buffer.freeze();
    match (opening, &connection.entry) {
        (None | Some(Opening::Crowded), _) => turn_away(stream).await,
        (Some(Opening::Refused(refusal)), _) => {
            let stream = Replayed::lingering(before, stream).cut_after(stall);
            refuse(stream, refusal.status(), &shared.limits).await;
        }
        (Some(Opening::Http1), _) => {
            serve_http1(Replayed::lingering(before, stream).cut_after(stall), connection).await;
        }
        (Some(Opening::Http2), _) => {
            http2::serve(Replayed::plain(before, stream).cut_after(stall), connection).await;
        }
        (Some(Opening::Sealed), Entry::WakePort(door, slot)) => {
            raw::serve(stream, before, raw::Caller { shared: &shared, door, slot, sealed: true }).await;
        }
        (Some(Opening::Unknown), Entry::WakePort(door, slot)) => {
            raw::serve(stream, before, raw::Caller { shared: &shared, door, slot, sealed: false }).await;
        }
        // Nothing to answer; and no proxy sends anything else on its error path.
        (Some(Opening::Probe), _) | (Some(Opening::Sealed | Opening::Unknown), Entry::ErrorPath(..)) => {}
    }
}

/// The first bytes of a connection, which are looked at as they come.
const GLANCE: usize = 64;

/// Reads until it is clear what the connection speaks; for HTTP/1 until the head is whole.
async fn open(stream: &mut TcpStream, buffer: &mut BytesMut, room: &mut HeadRoom) -> Opening {
    let shared = Arc::clone(&room.shared);
    let limits = &shared.limits;
    match timeout(limits.silence, stream.read_buf(buffer)).await {
        Err(_) => return Opening::Unknown,
        Ok(Ok(0) | Err(_)) => return Opening::Probe,
        Ok(Ok(_)) => {}
    }
    let deadline = Instant::now() + limits.head_deadline;
    let (mut look, mut spoken) = (true, Speech::Unclear);
    loop {
        if look {
            spoken = speech(buffer);
        }
        match spoken {
            Speech::Http2 => return Opening::Http2,
            Speech::Tls => return Opening::Sealed,
            Speech::Other => return Opening::Unknown,
            Speech::Malformed => return Opening::Refused(Refusal::Bad),
            Speech::Http1 if look => match head::look(buffer, limits) {
                Some(Ok(end)) if room.grow_to(end) => return Opening::Http1,
                Some(Ok(_)) => return Opening::Crowded,
                Some(Err(refusal)) => return Opening::Refused(refusal),
                None => {}
            },
            Speech::Http1 | Speech::Unclear => {}
        }
        if buffer.len() > limits.head_bytes {
            return Opening::Refused(Refusal::TooLarge);
        }
        if !room.grow_to(buffer.len()) {
            return Opening::Crowded;
        }
        match timeout_at(deadline, stream.read_buf(buffer)).await {
            // A few bytes and then silence: not HTTP, whose first line comes in one piece.
            Err(_) if spoken == Speech::Unclear && !buffer.contains(&b' ') => return Opening::Unknown,
            Err(_) => return Opening::Refused(Refusal::TooSlow),
            Ok(Ok(0) | Err(_)) => return Opening::Probe,
            // Only the end of a line can make a longer head clearer; to look at all of it for each byte
            // would let a slow sender burn the processor.
            Ok(Ok(length)) => {
                let fresh = buffer.len().saturating_sub(length);
                look = fresh < GLANCE || buffer.get(fresh..).is_some_and(|bytes| bytes.contains(&b'\n'));
            }
        }
    }
}

/// What the head of one connection takes of the memory for all heads.
pub(crate) struct HeadRoom {
    shared: Arc<Shared>,
    taken: usize,
}

impl HeadRoom {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
        Self { shared: Arc::clone(shared), taken: 0 }
    }

    /// Whether there is room for a head of this length.
    pub(crate) fn grow_to(&mut self, length: usize) -> bool {
        let more = length.saturating_sub(self.taken);
        if more == 0 {
            return true;
        }
        let before = self.shared.heads.fetch_add(more, Ordering::Relaxed);
        self.taken += more;
        before.saturating_add(more) <= self.shared.limits.heads_total
    }
}

impl Drop for HeadRoom {
    fn drop(&mut self) {
        self.shared.heads.fetch_sub(self.taken, Ordering::Relaxed);
    }
}

/// What becomes of a connection that begins so, if nothing else comes.
pub(crate) fn judge(bytes: &[u8], limits: &Limits) -> Head {
    let refused = |refusal: Refusal| Head::Refused(refusal.code());
    match speech(bytes) {
        Speech::Unclear => Head::Unclear,
        Speech::Http2 | Speech::Tls | Speech::Other => Head::OtherProtocol,
        Speech::Malformed => refused(Refusal::Bad),
        Speech::Http1 => match head::look(bytes, limits) {
            Some(Ok(end)) => Head::Passes(end),
            Some(Err(refusal)) => refused(refusal),
            None if bytes.len() > limits.head_bytes => refused(Refusal::TooLarge),
            None => Head::Unclear,
        },
    }
}

async fn serve_http1(stream: Replayed, connection: Connection) {
    let limits = connection.shared.limits.clone();
    let service = service_fn(move |request| {
        let connection = connection.clone();
        async move { Ok::<_, Infallible>(visit::respond(&connection, Upstream::Http1, request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_deadline)
        .max_buf_size(limits.head_bytes.max(8192))
        .max_headers(limits.headers)
        // A kept connection would stay with us when the app is awake.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::trace!(%error, "a client left early");
    }
}

async fn refuse(mut stream: Replayed, status: &str, limits: &Limits) {
    let allow = if status.starts_with("405") {
        "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
    } else {
        ""
    };
    let answer = format!(
        "HTTP/1.1 {status}\r\n{allow}Content-Length: 0\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    );
    let said = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    };
    if timeout(limits.head_deadline, said).await.is_err() {
        tracing::trace!("a client does not take its refusal");
    }
}

/// There is no room: says so quickly, to those that speak HTTP, and without waiting for anything.
pub(crate) async fn turn_away(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\
        Cache-Control: no-store\r\nConnection: close\r\n\r\n";
    let said = async {
        let mut heard = [0; 4096];
        // Bytes that are not read would turn the goodbye into a reset.
        let length = timeout(Duration::from_millis(100), stream.read(&mut heard)).await.unwrap_or(Ok(0))?;
        if !matches!(heard.first(), Some(0x16) if length > 0) {
            stream.write_all(ANSWER).await?;
        }
        stream.shutdown().await
    };
    if timeout(Duration::from_millis(500), said).await.is_err() {
        tracing::trace!("a client does not take its refusal");
    }
}
