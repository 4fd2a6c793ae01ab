//! A TCP stream some of whose bytes were read already, and that says goodbye in a way that is heard.

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
        Self { before, stream, goodbye: Goodbye::Plain }
    }

    /// For HTTP/1, where closing means that everything was said.
    pub(crate) fn lingering(before: Bytes, stream: TcpStream) -> Self {
        Self { before, stream, goodbye: Goodbye::Lingering }
    }

    /// The stream after an upgrade: `read` is what was read from it but not used.
    pub(crate) fn upgraded(self, read: &Bytes) -> Self {
        let before =
            if self.before.is_empty() { read.clone() } else { [read.as_ref(), &self.before].concat().into() };
        Self::plain(before, self.stream)
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
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
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
