//! What the toy ingress counts, written as Traefik writes it.
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};

/// The counters of one ingress.
#[derive(Debug)]
pub(crate) struct Metrics {
    started: Timestamp,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    requests: BTreeMap<Series, u64>,
    open: u64,
}

/// What tells one series from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Series {
    pub(crate) code: u16,
    pub(crate) method: String,
    pub(crate) protocol: &'static str,
    pub(crate) service: String,
}

impl Metrics {
    pub(crate) fn started(started: Timestamp) -> Self {
        Self { started, state: Mutex::default() }
    }

    /// A request has ended; its series begins with the first one.
    pub(crate) fn count(&self, series: Series) {
        *self.state().requests.entry(series).or_default() += 1;
    }

    /// A connection is open for as long as the answer is kept.
    pub(crate) fn connection(self: &Arc<Self>) -> OpenConnection {
        self.state().open += 1;
        OpenConnection(Arc::clone(self))
    }

    /// The text that is scraped.
    pub(crate) fn text(&self) -> String {
        let state = self.state();
        let mut text = String::new();
        let started = self.started.as_second();
        let open = state.open;
        // Writing into a String cannot fail.
        let _written = write!(
            text,
            "# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds {started}\n\
             # TYPE traefik_config_last_reload_success gauge\ntraefik_config_last_reload_success {started}\n\
             # TYPE traefik_open_connections gauge\n\
             traefik_open_connections{{entrypoint=\"web\",protocol=\"TCP\"}} {open}\n"
        );
        if !state.requests.is_empty() {
            text.push_str("# TYPE traefik_service_requests_total counter\n");
        }
        for (Series { code, method, protocol, service }, count) in &state.requests {
            let _written = writeln!(
                text,
                "traefik_service_requests_total{{code=\"{code}\",method=\"{method}\",protocol=\"{protocol}\",\
                 service=\"{service}@kubernetes\"}} {count}"
            );
        }
        text
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection as open until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Arc<Metrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.open = state.open.saturating_sub(1);
    }
}

/// A body that counts its request when it has been sent, or given up.
#[derive(Debug)]
pub(crate) struct Counted<B> {
    body: B,
    metrics: Arc<Metrics>,
    series: Option<Series>,
}

impl<B> Counted<B> {
    pub(crate) fn new(body: B, metrics: Arc<Metrics>, series: Series) -> Self {
        Self { body, metrics, series: Some(series) }
    }
}

impl<B> Drop for Counted<B> {
    fn drop(&mut self) {
        if let Some(series) = self.series.take() {
            self.metrics.count(series);
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
