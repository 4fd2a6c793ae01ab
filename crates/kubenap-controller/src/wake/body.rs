//! Bodies of requests that wait: read ahead within a bound, or read and thrown away.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use super::doors::Shared;
use super::limits::Limits;
use super::reply::BodyError;

/// A body the beginning of which was read already.
pub(crate) struct ReadAhead {
    frames: VecDeque<Frame<Bytes>>,
    rest: Incoming,
    shared: Arc<Shared>,
    /// How much of the room for all requests this one takes.
    taken: usize,
    ended: bool,
    /// What went wrong while it was read ahead. The body under it would say only once that it did not end well.
    failed: Option<hyper::Error>,
    /// The client sent what is no body.
    spoiled: Arc<AtomicBool>,
}

impl ReadAhead {
    pub(crate) fn new(shared: &Arc<Shared>, rest: Incoming) -> Self {
        let ended = rest.is_end_stream();
        let (frames, spoiled) = (VecDeque::new(), Arc::new(AtomicBool::new(false)));
        Self { frames, rest, shared: Arc::clone(shared), taken: 0, ended, failed: None, spoiled }
    }

    /// Becomes true when the client sends what is no body; to be asked after the body was passed.
    pub(crate) fn spoiled(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.spoiled)
    }

    /// Reads on while `waits` is under way. To read is also how a client that went away is noticed.
    pub(crate) async fn during<T>(&mut self, waits: impl Future<Output = T>) -> T {
        let mut waits = pin!(waits);
        loop {
            let room = !self.ended
                && self.taken < self.shared.limits.read_ahead
                && self.shared.read_ahead.load(Ordering::Relaxed) < self.shared.limits.read_ahead_total;
            tokio::select! {
                biased;
                done = &mut waits => return done,
                frame = self.rest.frame(), if room => match frame {
                    Some(Ok(frame)) => self.keep(frame),
                    Some(Err(error)) => (self.ended, self.failed) = (true, Some(error)),
                    None => self.ended = true,
                },
            }
        }
    }

    fn keep(&mut self, frame: Frame<Bytes>) {
        // A frame without data costs something too.
        let size = frame.data_ref().map_or(0, Bytes::len) + 64;
        self.taken += size;
        self.shared.read_ahead.fetch_add(size, Ordering::Relaxed);
        self.frames.push_back(frame);
    }
}

impl Body for ReadAhead {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(frame) = self.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        give_back(&self.shared.read_ahead, self.taken);
        self.taken = 0;
        let frame = match self.failed.take() {
            Some(error) => Poll::Ready(Some(Err(error))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        };
        if matches!(frame, Poll::Ready(Some(Err(_)))) {
            self.spoiled.store(true, Ordering::Relaxed);
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.failed.is_none() && self.rest.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let ahead = self.frames.iter().filter_map(Frame::data_ref).map(|data| data.len() as u64).sum::<u64>();
        let rest = self.rest.size_hint();
        let mut hint = SizeHint::new();
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(ahead)) {
            hint.set_upper(upper);
        }
        hint.set_lower(rest.lower().saturating_add(ahead).min(hint.upper().unwrap_or(u64::MAX)));
        hint
    }
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        give_back(&self.shared.read_ahead, self.taken);
    }
}

fn give_back(room: &AtomicUsize, taken: usize) {
    if taken > 0 {
        room.fetch_sub(taken, Ordering::Relaxed);
    }
}

/// A body that nobody needs. An answer while it is still being sent would break connections on the way.
pub(crate) struct Discard {
    body: Incoming,
    left: u64,
    done: bool,
    progress: Instant,
}

impl Discard {
    pub(crate) fn new(headers: &HeaderMap, body: Incoming, limit: u64) -> Self {
        // Who expects a `100 Continue` sends nothing before it, and after a final answer nothing at all.
        let done = body.is_end_stream() || headers.contains_key(EXPECT);
        Self { body, left: limit, done, progress: Instant::now() }
    }

    /// Reads on while `waits` is under way.
    pub(crate) async fn during<T>(&mut self, waits: impl Future<Output = T>) -> T {
        let mut waits = pin!(waits);
        loop {
            tokio::select! {
                biased;
                done = &mut waits => return done,
                () = self.read(), if !self.done => {}
            }
        }
    }

    /// Reads on until the body has ended, too much was read, nothing came for a while, or it took too long.
    pub(crate) async fn finish(mut self, limits: &Limits) {
        // A byte now and then is progress too, and would otherwise go on for days.
        let enough = Instant::now() + limits.discard_within;
        while !self.done {
            let stalled = sleep_until((self.progress + limits.discard_stall).min(enough));
            tokio::select! {
                biased;
                () = stalled => return,
                () = self.read() => {}
            }
        }
    }

    async fn read(&mut self) {
        match self.body.frame().await {
            Some(Ok(frame)) => {
                self.left = self.left.saturating_sub(frame.data_ref().map_or(0, |data| data.len() as u64));
                self.done = self.left == 0;
                self.progress = Instant::now();
            }
            Some(Err(_)) | None => self.done = true,
        }
    }
}
