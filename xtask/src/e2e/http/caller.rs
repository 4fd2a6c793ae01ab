//! A visitor that calls again and again, on a fresh connection each time or on a kept one, and follows redirects.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Error, Result, bail};
use bytes::Bytes;
use http::header::{CONNECTION, HOST, LOCATION};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Empty, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout};

use super::{Call, Content, EXCHANGE, MOST_BODY, Reply, connect};

type Payload = BoxBody<Bytes, Infallible>;

/// One visitor of one host at one address; a clone has a connection of its own.
pub(crate) struct Caller {
    to: SocketAddr,
    host: String,
    keeps: bool,
    kept: Option<SendRequest<Payload>>,
}

/// A request with the redirects it met on its way.
#[derive(Debug)]
pub(crate) struct Journey {
    pub(crate) reply: Reply,
    /// Each redirect's Location, in order.
    pub(crate) redirects: Vec<String>,
    /// When the first of them was there.
    pub(crate) redirected: Option<Instant>,
    /// From the first connect to the last byte.
    pub(crate) took: Duration,
}

impl Clone for Caller {
    fn clone(&self) -> Self {
        Self { to: self.to, host: self.host.clone(), keeps: self.keeps, kept: None }
    }
}

impl Caller {
    /// Opens a connection for each request.
    pub(crate) fn fresh(to: SocketAddr, host: impl Into<String>) -> Self {
        Self { to, host: host.into(), keeps: false, kept: None }
    }

    /// Keeps its connection as long as the other side does.
    pub(crate) fn kept(to: SocketAddr, host: impl Into<String>) -> Self {
        Self { to, host: host.into(), keeps: true, kept: None }
    }

    /// Sends the call and follows at most `most` redirects; any other answer, 307 included, is returned as it is.
    pub(crate) async fn follow(&mut self, call: &Call, most: usize) -> Result<Journey> {
        let begun = Instant::now();
        let mut call = call.clone();
        let (mut redirects, mut redirected) = (Vec::new(), None);
        loop {
            let reply = self.send(&call).await?;
            if reply.status != 307 || redirects.len() == most {
                return Ok(Journey { reply, redirects, redirected, took: begun.elapsed() });
            }
            redirected.get_or_insert_with(Instant::now);
            let location = reply.headers.get(LOCATION).context("a 307 without Location")?;
            let location = location.to_str().context("a Location that is no text")?.to_owned();
            if !location.starts_with('/') || location.starts_with("//") {
                bail!("a Location that is not relative to the host: {location:?}");
            }
            call.target.clone_from(&location);
            redirects.push(location);
        }
    }

    /// One exchange. It is never repeated once any of it may have left: a lost request shows.
    pub(crate) async fn send(&mut self, call: &Call) -> Result<Reply> {
        let sent = timeout(EXCHANGE, self.exchange(call)).await;
        let what = || format!("{} {} at {} of {}", call.method, call.target, self.host, self.to);
        sent.map_err(|_| Error::msg(format!("no answer within {EXCHANGE:?}"))).flatten().with_context(what)
    }

    async fn exchange(&mut self, call: &Call) -> Result<Reply> {
        let mut request = self.request(call)?;
        let response = loop {
            let (mut sender, was_kept) = match self.kept.take() {
                Some(sender) => (sender, true),
                None => (self.open().await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    self.kept = Some(sender);
                    break response;
                }
                // The server had closed the kept connection before anything was written: only then a new one.
                Err(mut failed) if was_kept => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error()).context("send on a kept connection"),
                },
                Err(failed) => return Err(failed.into_error().into()),
            }
        };
        let ends = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
        let reply = read(response).await;
        if ends || !self.keeps || reply.is_err() {
            self.kept = None;
        }
        reply
    }

    async fn open(&self) -> Result<SendRequest<Payload>> {
        let stream = connect(self.to).await?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            // What goes wrong here is told to whoever waits for the answer.
            drop(connection.await);
        });
        Ok(sender)
    }

    fn request(&self, call: &Call) -> Result<Request<Payload>> {
        let body = match &call.content {
            Content::Empty => Empty::new().boxed(),
            Content::Sized(bytes) => Full::new(bytes.clone()).boxed(),
            Content::Chunked(bytes) => StreamBody::new(futures::stream::iter(chunks(bytes))).boxed(),
        };
        let mut request =
            Request::builder().method(call.method.clone()).uri(&call.target).header(HOST, &self.host);
        for (name, value) in &call.headers {
            request = request.header(*name, *value);
        }
        if !self.keeps {
            request = request.header(CONNECTION, "close");
        }
        request.body(body).with_context(|| format!("make a request of {:?}", call.target))
    }
}

fn chunks(bytes: &Bytes) -> Vec<Result<Frame<Bytes>, Infallible>> {
    bytes.chunks(64 << 10).map(|chunk| Ok(Frame::data(bytes.slice_ref(chunk)))).collect()
}

async fn read(response: Response<Incoming>) -> Result<Reply> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MOST_BODY).collect().await;
    let body =
        body.map_err(Error::from_boxed).with_context(|| format!("read the body of a {}", head.status))?;
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
}
