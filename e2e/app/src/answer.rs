//! What each path answers, and how often each was asked.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, LOCATION};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};

use crate::websocket;

/// What an answer carries.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// The longest request body that is read, in bytes.
const MOST_BODY: usize = 64 << 20;
/// The handlers, as the metric's `handler` label names them.
const HANDLERS: [&str; 10] =
    ["/", "/ws", "/echo.Echo/Say", "/slow", "/own502", "/own503", "/healthz", "/moved", "/metrics", "other"];

/// The app's state: who it is, what it was asked, whether it is about to stop.
pub(crate) struct App {
    pod: String,
    asked: [AtomicU64; HANDLERS.len()],
    stopping: AtomicBool,
    unready_at_stop: bool,
}

impl App {
    /// An app in the pod of this name, whose readiness fails once it is told to stop, or never does.
    pub(crate) fn new(pod: String, unready_at_stop: bool) -> Self {
        Self { pod, asked: Default::default(), stopping: AtomicBool::new(false), unready_at_stop }
    }

    /// From now on every answer ends its connection, so that kept-alive callers move on before the app is gone.
    pub(crate) fn say_goodbye(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Answers one request that came in on `port`.
    pub(crate) async fn answer(
        &self,
        request: Request<Incoming>,
        port: u16,
    ) -> Result<Response<Body>, Infallible> {
        let version = request.version();
        let handler = self.count(request.uri().path());
        let mut response = match handler {
            "/ws" => websocket::answer(request),
            "/echo.Echo/Say" => echo_grpc(request).await,
            "/slow" => {
                tokio::time::sleep(asked_delay(request.uri().query())).await;
                self.describe(request, port).await
            }
            "/own502" => text(StatusCode::BAD_GATEWAY, "the app's own 502\n".to_owned()),
            "/own503" => text(StatusCode::SERVICE_UNAVAILABLE, "the app's own 503\n".to_owned()),
            "/healthz" if self.unready_at_stop && self.stopping.load(Ordering::Relaxed) => {
                text(StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned())
            }
            "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
            "/moved" => moved("/healthz"),
            "/metrics" => text(StatusCode::OK, self.metrics()),
            _ => self.describe(request, port).await,
        };
        if version <= Version::HTTP_11
            && response.status() != StatusCode::SWITCHING_PROTOCOLS
            && self.stopping.load(Ordering::Relaxed)
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Ok(response)
    }

    fn count(&self, path: &str) -> &'static str {
        let known = HANDLERS.iter().position(|handler| *handler == path);
        let index = known.unwrap_or(HANDLERS.len() - 1);
        self.asked[index].fetch_add(1, Ordering::Relaxed);
        HANDLERS[index]
    }

    /// One line that says who answered, and what arrived.
    async fn describe(&self, request: Request<Incoming>, port: u16) -> Response<Body> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
        match Limited::new(body, MOST_BODY).collect().await {
            Ok(body) => {
                let body = body.to_bytes();
                let line = format!(
                    "pod={} port={port} method={} path={path} bytes={} fnv={:016x}\n",
                    self.pod,
                    head.method,
                    body.len(),
                    fnv(&body)
                );
                let mut response = text(StatusCode::OK, line);
                // An answer to HEAD has no line to say it in.
                if let Ok(pod) = HeaderValue::from_str(&self.pod) {
                    response.headers_mut().insert("x-pod", pod);
                }
                response
            }
            Err(error) => text(StatusCode::BAD_REQUEST, format!("body: {error}\n")),
        }
    }

    fn metrics(&self) -> String {
        let head = "# HELP http_requests_total Requests, by handler.\n# TYPE http_requests_total counter\n";
        let lines = HANDLERS.iter().zip(&self.asked).map(|(handler, asked)| {
            format!("http_requests_total{{handler=\"{handler}\"}} {}\n", asked.load(Ordering::Relaxed))
        });
        std::iter::once(head.to_owned()).chain(lines).collect()
    }
}

/// A gRPC call of one message: the same message back, then `grpc-status: 0`.
async fn echo_grpc(request: Request<Incoming>) -> Response<Body> {
    let message = match Limited::new(request.into_body(), MOST_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("body: {error}\n")),
    };
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [Ok::<_, Infallible>(Frame::data(message)), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures::stream::iter(frames)).boxed());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}

/// A redirect within the app, which a kubelet's probe follows.
fn moved(to: &'static str) -> Response<Body> {
    let mut response = text(StatusCode::TEMPORARY_REDIRECT, String::new());
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(to));
    response
}

/// An answer in plain text.
pub(crate) fn text(status: StatusCode, body: String) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body)).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// `ms=` out of a query, at most a minute.
fn asked_delay(query: Option<&str>) -> Duration {
    let ms = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("ms=")?.parse().ok());
    Duration::from_millis(ms.unwrap_or(0).min(60_000))
}

/// FNV-1a, 64 bits: enough to see that a body arrived as it was sent.
fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
