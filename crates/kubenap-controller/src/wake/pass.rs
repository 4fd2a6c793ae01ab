//! Handing one request to a ready pod: a connection of its own, the body sent at most once, everything streamed.

use std::sync::Arc;
use std::time::Duration;

use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::ask::{Ask, WaitAgain, tokens};
use super::crowd::Slot;
use super::door::{Door, DoorState};
use super::doors::Shared;
use super::http2::PodConnection;
use super::listen::keep_alive;
use super::reply::{WakeBody, full};
use super::stream::Replayed;

/// How requests of a connection reach a pod.
#[derive(Clone)]
pub(crate) enum Upstream {
    /// Each on a connection of its own.
    Http1,
    /// As streams of one connection, as they came.
    Http2(Arc<PodConnection>),
}

/// Why a request could not be passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PassError {
    /// No pod took a connection in time.
    TooLong,
    /// The app cannot start.
    Failed { reason: &'static str, sentence: String, retry_after: Duration },
    /// The pod broke off before it answered. The request may have been carried out.
    Broken,
    /// The pod took the request and did not answer in time.
    Silent,
}

/// One request on its way.
pub(crate) struct Pass<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) door: &'a Door,
    pub(crate) slot: &'a Arc<Slot>,
    /// What it asked; none: it wakes nothing.
    pub(crate) ask: Option<&'a Ask>,
    /// Until when attempts to connect are made.
    pub(crate) until: Instant,
}

impl Pass<'_> {
    /// Sends `request` to a pod and gives its answer, whose body is still coming.
    pub(crate) async fn send(
        &self,
        upstream: &Upstream,
        mut request: Request<WakeBody>,
        client: Option<OnUpgrade>,
    ) -> Result<Response<WakeBody>, PassError> {
        self.slot.settle();
        match upstream {
            Upstream::Http1 => {
                prepare_http1(&mut request, &self.door.key.service);
                self.send_http1(request, client).await
            }
            Upstream::Http2(pod) => {
                prepare_http2(&mut request, &self.door.key.service);
                pod.send(self, request).await
            }
        }
    }

    async fn send_http1(
        &self,
        mut request: Request<WakeBody>,
        client: Option<OnUpgrade>,
    ) -> Result<Response<WakeBody>, PassError> {
        let mut pause = self.shared.limits.connect_pause;
        loop {
            let stream = connect(self.shared, self.door, self.ask, self.until).await?;
            let Ok((mut sender, connection)) = http1::handshake(TokioIo::new(stream)).await else {
                return Err(PassError::Broken);
            };
            tokio::spawn(async move {
                if let Err(error) = connection.with_upgrades().await {
                    tracing::trace!(%error, "a pod's connection ended early");
                }
            });
            let answer = timeout(self.shared.limits.response_head, sender.try_send_request(request)).await;
            let mut error = match answer {
                Err(_) => return Err(PassError::Silent),
                Ok(Ok(response)) => return self.finish(response, client),
                Ok(Err(error)) => error,
            };
            // Only what was given back untouched may be sent again.
            match error.take_message() {
                Some(untouched) if Instant::now() + pause < self.until => request = untouched,
                _ => return Err(PassError::Broken),
            }
            sleep(pause).await;
            pause = (pause * 2).min(self.shared.limits.connect_pause_max);
        }
    }

    fn finish(
        &self,
        mut response: Response<hyper::body::Incoming>,
        client: Option<OnUpgrade>,
    ) -> Result<Response<WakeBody>, PassError> {
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            // The coding is ours to choose; a length beside it would be the wrong one.
            if response.headers().contains_key(TRANSFER_ENCODING) {
                response.headers_mut().remove(CONTENT_LENGTH);
            }
            strip_hop_by_hop(response.headers_mut());
            return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()));
        }
        let Some(client) = client else { return Err(PassError::Broken) };
        let pod = hyper::upgrade::on(&mut response);
        let protocol = response.headers().get(UPGRADE).cloned();
        strip_hop_by_hop(response.headers_mut());
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            headers.insert(UPGRADE, protocol);
        }
        let slot = Arc::clone(self.slot);
        self.shared.tasks.spawn(async move {
            if let (Ok(client), Ok(pod)) = tokio::join!(client, pod) {
                splice(client, pod).await;
            }
            drop(slot);
        });
        Ok(response.map(|_| full("")))
    }
}

/// A connection to one of the pods, tried in turn until one takes it. As long as none does, `ask` is one that waits.
pub(crate) async fn connect(
    shared: &Shared,
    door: &Door,
    ask: Option<&Ask>,
    until: Instant,
) -> Result<TcpStream, PassError> {
    let limits = &shared.limits;
    let mut states = door.watch();
    let mut wait = WaitAgain::new(ask);
    let mut pause = limits.connect_pause;
    loop {
        let addresses = match &*states.borrow_and_update() {
            state @ (DoorState::Ready(_)
            | DoorState::Up(_)
            | DoorState::Early(_)
            | DoorState::Waiting
            | DoorState::Waking) => state.pods().cloned(),
            DoorState::Failed { reason, sentence, retry_after } => {
                let (reason, sentence) = (*reason, sentence.clone());
                return Err(PassError::Failed { reason, sentence, retry_after: *retry_after });
            }
        };
        let Some(addresses) = addresses else {
            wait.tell();
            match timeout_at(until, states.changed()).await {
                Ok(Ok(())) => continue,
                Ok(Err(_)) | Err(_) => return Err(PassError::TooLong),
            }
        };
        let attempt = async {
            let turn = door.turn() % addresses.len().max(1);
            let permit = door.connecting.acquire().await.ok()?;
            let stream = TcpStream::connect(addresses.get(turn)?);
            let stream = timeout(limits.connect_timeout, stream).await.ok()?.ok();
            drop(permit);
            stream
        };
        match timeout_at(until, attempt).await {
            Ok(Some(stream)) => {
                keep_alive(&stream);
                return Ok(stream);
            }
            Ok(None) if Instant::now() + pause < until => {
                wait.tell();
                sleep(pause).await;
            }
            Ok(None) | Err(_) => return Err(PassError::TooLong),
        }
        pause = (pause * 2).min(limits.connect_pause_max);
    }
}

fn prepare_http1(request: &mut Request<WakeBody>, service: &str) {
    let protocol =
        if super::ask::wants_upgrade(request) { request.headers().get(UPGRADE).cloned() } else { None };
    let path = request.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from(path);
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    if !headers.contains_key(HOST)
        && let Ok(host) = HeaderValue::from_str(service)
    {
        headers.insert(HOST, host);
    }
    // This connection is for this request alone.
    let connection = if protocol.is_some() { "upgrade" } else { "close" };
    headers.insert(CONNECTION, HeaderValue::from_static(connection));
    if let Some(protocol) = protocol {
        headers.insert(UPGRADE, protocol);
    }
}

fn prepare_http2(request: &mut Request<WakeBody>, service: &str) {
    let trailers = tokens(request.headers(), &TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    strip_hop_by_hop(request.headers_mut());
    if trailers {
        // gRPC servers insist on it, and HTTP/2 allows this one value.
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    }
    let host = request.headers_mut().remove(HOST);
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let authority = authority.or_else(|| host?.to_str().ok().map(str::to_owned));
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let uri = Uri::builder()
        .scheme("http")
        .authority(authority.unwrap_or_else(|| service.to_owned()))
        .path_and_query(path)
        .build();
    if let Ok(uri) = uri {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

/// Takes away what concerns one connection only: the fields that HTTP names, and those that the message names.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    const FIELDS: [HeaderName; 6] =
        [CONNECTION, TE, TRANSFER_ENCODING, UPGRADE, EXPECT, http::header::PROXY_AUTHORIZATION];
    const OTHERS: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];
    let named: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter_map(|token| token.parse().ok())
        // A message must not take away what says whom it is for and where it ends.
        .filter(|name| ![HOST, CONTENT_LENGTH].contains(name))
        .collect();
    for name in named.iter().chain(&FIELDS) {
        headers.remove(name);
    }
    for name in OTHERS {
        headers.remove(name);
    }
}

/// Both ways at once, until both sides have finished.
async fn splice(client: Upgraded, pod: Upgraded) {
    // The streams below hyper, so that each side's end is told to the other at once.
    let (Ok(client), Ok(pod)) =
        (client.downcast::<TokioIo<Replayed>>(), pod.downcast::<TokioIo<TcpStream>>())
    else {
        return;
    };
    let mut client_stream = client.io.into_inner().upgraded(&client.read_buf);
    let mut pod_stream = Replayed::plain(pod.read_buf, pod.io.into_inner());
    if let Err(error) = copy_bidirectional(&mut client_stream, &mut pod_stream).await {
        tracing::trace!(%error, "an upgraded connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let mut request = Request::builder()
            .uri("/a?b")
            .header("host", "web")
            .header("connection", "close, X-Mine, host, content-length")
            .header("x-mine", "1")
            .header("keep-alive", "1")
            .header("te", "trailers")
            .header("proxy-connection", "1")
            .header("upgrade", "h2c")
            .header("http2-settings", "AAMAAABk")
            .header("expect", "100-continue")
            .header("content-length", "3")
            .header("x-forwarded-for", "192.0.2.1")
            .body(full("abc"))
            .unwrap();
        prepare_http1(&mut request, "web");
        let mut names: Vec<_> = request.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["connection", "content-length", "host", "x-forwarded-for"]);
        assert_eq!(request.headers()[CONNECTION], "close");
    }

    #[test]
    fn an_http2_request_keeps_its_authority_and_its_trailers() {
        let mut request = Request::builder()
            .uri("http://grpc.example:50051/pkg.Service/Call")
            .version(Version::HTTP_2)
            .header("te", "trailers")
            .body(full(""))
            .unwrap();
        prepare_http2(&mut request, "web");
        assert_eq!(request.uri(), "http://grpc.example:50051/pkg.Service/Call");
        assert_eq!(request.headers()[TE], "trailers");
    }
}
