//! A TCP stream some of whose bytes were read already, which cuts off who does not listen and says goodbye in a way that is heard.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long and how far a client is listened to after the last byte was sent to it. To close while it still
/// sends would reset the connection, and it might never read its answer.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1024 * 1024;

/// Reads `before` first, then the stream.
#[derive(Debug)]
pub(crate) struct Replayed {
    before: Bytes,
    stream: TcpStream,
    goodbye: Goodbye,
    /// How long the other side may take nothing of what is sent to it; none: as long as it likes.
    stall: Option<Duration>,
    /// Since it takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Goodbye {
    /// Closing says so to the other side and nothing more: what comes from there is still wanted.
    Plain,
    /// Closing is to be followed by listening, for which this is kept.
    Lingering,
    /// Has said so, and listens until the other side closes too.
    Listening { until: Pin<Box<Sleep>>, left: usize },
}

impl Replayed {
    /// For protocols in which either side may finish first.
    pub(crate) fn plain(before: Bytes, stream: TcpStream) -> Self {
        Self { before, stream, goodbye: Goodbye::Plain, stall: None, stalled: None }
    }

    /// For HTTP/1, where closing means that everything was said.
    pub(crate) fn lingering(before: Bytes, stream: TcpStream) -> Self {
        Self { goodbye: Goodbye::Lingering, ..Self::plain(before, stream) }
    }

    /// Cuts the other side off if it takes nothing for so long.
    pub(crate) fn cut_after(mut self, stall: Duration) -> Self {
        self.stall = Some(stall);
        self
    }

    fn heed_stall(
        &mut self,
        cx: &mut Context<'_>,
        wrote: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let Some(stall) = self.stall.filter(|_| wrote.is_pending()) else {
            self.stalled = None;
            return wrote;
        };
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// The stream after an upgrade: `read` is what was read from it but not used.
    pub(crate) fn upgraded(self, read: &Bytes) -> Self {
        let before =
            if self.before.is_empty() { read.clone() } else { [read.as_ref(), &self.before].concat().into() };
        Self { before, goodbye: Goodbye::Plain, ..self }
    }
}

impl AsyncRead for Replayed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.before.has_remaining() {
            let length = self.before.len().min(buf.remaining());
            buf.put_slice(&self.before.split_to(length));
            if self.before.is_empty() {
                self.before = Bytes::new();
            }
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Replayed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.heed_stall(cx, wrote)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.heed_stall(cx, wrote)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            match &mut this.goodbye {
                Goodbye::Plain => return Pin::new(&mut this.stream).poll_shutdown(cx),
                Goodbye::Lingering => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                    let until = Box::pin(tokio::time::sleep(LINGER));
                    this.goodbye = Goodbye::Listening { until, left: LINGER_BYTES };
                }
                Goodbye::Listening { until, left } => {
                    if until.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    let mut room = [0; 4096];
                    let mut buf = ReadBuf::new(&mut room);
                    let heard = ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf));
                    *left = left.saturating_sub(buf.filled().len());
                    if heard.is_err() || buf.filled().is_empty() || *left == 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
            }
        }
    }
}
