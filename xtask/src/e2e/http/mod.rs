//! The stories' own HTTP clients, bounded in time and size: what a visitor sees, and nothing that hides a lost request.

mod caller;
mod websocket;
mod grpc;
mod raw;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

pub(crate) use caller::{Caller, Journey};
pub(crate) use grpc::{call_over_grpc, say_over_grpc};
pub(crate) use raw::{Head, exchange_raw};
pub(crate) use websocket::{echo_over_websocket, upgrade_and_echo};

/// How long a connection may take to be accepted.
const CONNECT: Duration = Duration::from_secs(5);
/// How long one exchange may take: more than `KubeNap`'s longest hold (2 minutes).
const EXCHANGE: Duration = Duration::from_secs(150);
/// The longest body that is read.
const MOST_BODY: usize = 8 << 20;

/// What is sent.
#[derive(Clone)]
pub(crate) struct Call {
    method: http::Method,
    target: String,
    content: Content,
    headers: Vec<(&'static str, &'static str)>,
}

/// A request's body, and how its end is told.
#[derive(Clone)]
pub(crate) enum Content {
    Empty,
    /// With a Content-Length.
    Sized(Bytes),
    /// With `Transfer-Encoding: chunked`.
    Chunked(Bytes),
}

impl Call {
    /// A GET of this path and query.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self::new(http::Method::GET, target.into(), Content::Empty)
    }

    /// A HEAD of this path and query.
    pub(crate) fn head(target: impl Into<String>) -> Self {
        Self::new(http::Method::HEAD, target.into(), Content::Empty)
    }

    /// A POST to this path and query.
    pub(crate) fn post(target: impl Into<String>, content: Content) -> Self {
        Self::new(http::Method::POST, target.into(), content)
    }

    /// With one header more.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Whether it asks for this path and query.
    pub(crate) fn is_for(&self, target: &str) -> bool {
        self.target == target
    }

    fn new(method: http::Method, target: String, content: Content) -> Self {
        Self { method, target, content, headers: Vec::new() }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// One `key=value` out of the test app's line, which proves that the app, and not somebody else, answered.
    pub(crate) fn said(&self, key: &str) -> Result<String> {
        let text = self.text();
        let value = text.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        value
            .map(str::to_owned)
            .with_context(|| format!("the answer has no {key}=: {} {text:?}", self.status))
    }

    /// Fails unless it is the test app's 200.
    pub(crate) fn ensure_from_app(&self) -> Result<()> {
        ensure!(self.status == 200, "expected the app's 200, got {} {:?}", self.status, self.text());
        self.said("pod").map(drop)
    }
}

/// One GET on a connection of its own, no redirect followed.
pub(crate) async fn get(to: SocketAddr, host: &str, target: &str) -> Result<Reply> {
    Caller::fresh(to, host).send(&Call::get(target)).await
}

/// FNV-1a, 64 bits, as the test app computes it.
pub(crate) fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

async fn connect(to: SocketAddr) -> Result<TcpStream> {
    let connected = timeout(CONNECT, TcpStream::connect(to)).await;
    let stream = connected.with_context(|| format!("connect to {to}: nothing within {CONNECT:?}"))?;
    let stream = stream.with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
