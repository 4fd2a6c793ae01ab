//! A toy ingress controller and proxy in one, that behaves and counts as Traefik does.
use crate::net::metrics::{Counted, Metrics, Series};
use crate::net::{backend, routes};
use crate::{Refused, Sandbox, Shared};
use axum::Router;
use axum::routing::get;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, UPGRADE};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use serde_json::json;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A running ingress; it ends when this is dropped, or with its sandbox.
#[derive(Debug)]
pub struct Ingress {
    address: SocketAddr,
    metrics_address: SocketAddr,
    sandbox: Sandbox,
    proxy: Arc<Proxy>,
    _end: DropGuard,
}

/// What all requests share.
#[derive(Debug)]
struct Proxy {
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    /// Keeps connections alive, one pool for each endpoint.
    client: Client<HttpConnector, Incoming>,
    turns: Mutex<BTreeMap<String, usize>>,
    /// Who is asked instead where a request finds nobody.
    error_path: Mutex<Option<SocketAddr>>,
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A connection to an endpoint that is not there takes no longer.
const CONNECT: Duration = Duration::from_secs(5);
/// An endpoint may take long to answer: to hold a request is its right.
const ANSWER: Duration = Duration::from_mins(10);

impl Ingress {
    pub(crate) async fn start(sandbox: &Sandbox, address: SocketAddr) -> io::Result<Self> {
        if !address.ip().is_loopback() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the ingress only listens on loopback addresses",
            ));
        }
        let listener = TcpListener::bind(address).await?;
        let scraped = TcpListener::bind(SocketAddr::new(address.ip(), 0)).await?;
        let (address, metrics_address) = (listener.local_addr()?, scraped.local_addr()?);
        let metrics = Arc::new(Metrics::started(sandbox.now()));
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .build(connector);
        let stop = sandbox.shared.stop.child_token();
        let shared = Arc::clone(&sandbox.shared);
        let proxy = Arc::new(Proxy {
            shared,
            metrics: Arc::clone(&metrics),
            client,
            turns: Mutex::default(),
            error_path: Mutex::default(),
        });
        tokio::spawn(accept(listener, Arc::clone(&proxy), stop.clone()));
        let router = Router::new().route("/metrics", get(move || std::future::ready(metrics.text())));
        let scraping = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = scraping.cancelled() => {}
                _ = axum::serve(scraped, router) => {}
            }
        });
        Ok(Self { address, metrics_address, sandbox: sandbox.weak(), proxy, _end: stop.drop_guard() })
    }

    /// Where requests come in.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where `/metrics` is.
    pub fn metrics_address(&self) -> SocketAddr {
        self.metrics_address
    }

    /// From now on a request for which there is no endpoint, or whose endpoint cannot be connected to, is asked there
    /// instead, without its body: what proxies call an error page or a fallback. None: it is answered 503 or 502.
    pub fn set_error_path(&self, address: Option<SocketAddr>) {
        *self.proxy.error_path.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// Shows the ingress in the cluster, as a ready pod `traefik` with a port named metrics, and a Service.
    pub fn show(&self, namespace: &str) -> Result<(), Refused> {
        let labels = json!({ "app.kubernetes.io/name": "traefik" });
        let time = self.sandbox.now().to_string();
        let ready = json!([{ "type": "Ready", "status": "True", "lastTransitionTime": time }]);
        self.sandbox.put(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "traefik", "namespace": namespace, "labels": labels },
            // Not the sandbox's own node: this pod is run by this process already.
            "spec": { "nodeName": "ingress", "containers": [{ "name": "traefik", "image": "traefik:v3", "ports": [
                { "name": "web", "containerPort": self.address.port() },
                { "name": "metrics", "containerPort": self.metrics_address.port() },
            ]}]},
            "status": {
                "phase": "Running", "podIP": self.address.ip().to_string(),
                "podIPs": [{ "ip": self.address.ip().to_string() }], "startTime": time, "conditions": ready,
            },
        }))?;
        self.sandbox.put(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "traefik", "namespace": namespace, "labels": labels },
            "spec": { "selector": labels, "ports": [
                { "name": "web", "port": 80, "targetPort": "web" },
                { "name": "metrics", "port": 9100, "targetPort": "metrics" },
            ]},
        }))?;
        Ok(())
    }
}

async fn accept(listener: TcpListener, proxy: Arc<Proxy>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            stream = backend::next(&listener) => stream,
        };
        tokio::spawn(serve(stream, Arc::clone(&proxy), stop.clone()));
    }
}

async fn serve(stream: TcpStream, proxy: Arc<Proxy>, stop: CancellationToken) {
    let Ok(peer) = stream.peer_addr() else { return };
    // Without it each small answer waits for an acknowledgement.
    drop(stream.set_nodelay(true));
    let _open = proxy.metrics.connection();
    let service = service_fn(move |request| {
        let proxy = Arc::clone(&proxy);
        async move { Ok::<_, Infallible>(proxy.answer(request, peer).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service) => {}
    }
}

impl Proxy {
    async fn answer(&self, mut request: Request<Incoming>, peer: SocketAddr) -> Answer {
        let host = host(&request);
        let name = host.rsplit_once(':').map_or(host.as_str(), |(name, _)| name).to_ascii_lowercase();
        let Some(route) = routes::route(&self.shared.store(), &name, request.uri().path()) else {
            return plain(StatusCode::NOT_FOUND, "404 page not found\n");
        };
        let instead = self.instead(&request, &host, peer);
        let Some(address) = self.next_of(&route) else {
            let answer = self.ask_instead(instead).await;
            return answer.unwrap_or_else(|| plain(StatusCode::SERVICE_UNAVAILABLE, "no available server\n"));
        };
        let method = request.method().to_string();
        let upgrade = request
            .headers()
            .get(UPGRADE)
            .cloned()
            .map(|protocol| (protocol, hyper::upgrade::on(&mut request)));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let Ok(uri) = format!("http://{address}{path}").parse::<Uri>() else {
            return plain(StatusCode::BAD_REQUEST, "400 bad request\n");
        };
        *request.uri_mut() = uri;
        *request.version_mut() = http::Version::HTTP_11;
        strip(request.headers_mut());
        forwarded(request.headers_mut(), &host, peer);
        if let Some((protocol, _)) = &upgrade {
            request.headers_mut().insert(UPGRADE, protocol.clone());
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        }
        let series = |code, protocol| Series { code, method, protocol, service: route.label };
        let mut response = match tokio::time::timeout(ANSWER, self.client.request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => {
                // Whatever was connected once may have carried the request out.
                if let Some(answer) = self.ask_instead(instead.filter(|_| error.is_connect())).await {
                    return answer;
                }
                self.metrics.count(series(502, "http"));
                return plain(StatusCode::BAD_GATEWAY, "Bad Gateway");
            }
            Err(_) => {
                self.metrics.count(series(504, "http"));
                return plain(StatusCode::GATEWAY_TIMEOUT, "Gateway Timeout");
            }
        };
        if let (StatusCode::SWITCHING_PROTOCOLS, Some((_, client))) = (response.status(), upgrade) {
            let upstream = hyper::upgrade::on(&mut response);
            // As Traefik does: code 0, once the connection has ended.
            tokio::spawn(pass(client, upstream, Arc::clone(&self.metrics), series(0, "websocket")));
            return response.map(BodyExt::boxed);
        }
        strip(response.headers_mut());
        let series = series(response.status().as_u16(), "http");
        response.map(|body| Counted::new(body, Arc::clone(&self.metrics), series).boxed())
    }

    /// What the error path is asked where a request finds nobody.
    fn instead(
        &self,
        request: &Request<Incoming>,
        host: &str,
        peer: SocketAddr,
    ) -> Option<Request<Full<Bytes>>> {
        let address = (*self.error_path.lock().unwrap_or_else(PoisonError::into_inner))?;
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let mut instead = Request::builder()
            .method(request.method())
            .uri(format!("http://{address}{path}"))
            .body(Full::default())
            .ok()?;
        *instead.headers_mut() = request.headers().clone();
        strip(instead.headers_mut());
        instead.headers_mut().remove(CONTENT_LENGTH);
        forwarded(instead.headers_mut(), host, peer);
        Some(instead)
    }

    async fn ask_instead(&self, instead: Option<Request<Full<Bytes>>>) -> Option<Answer> {
        let asked: Client<HttpConnector, Full<Bytes>> =
            Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        let asked = asked.request(instead?);
        let mut response = tokio::time::timeout(ANSWER, asked).await.ok()?.ok()?;
        strip(response.headers_mut());
        Some(response.map(BodyExt::boxed))
    }

    /// The endpoint whose turn it is.
    fn next_of(&self, route: &routes::Route) -> Option<SocketAddr> {
        let count = route.addresses.len();
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(route.label.clone()).or_default();
        *turn = turn.wrapping_add(1);
        route.addresses.get(turn.checked_rem(count)?).copied()
    }
}

/// Copies both ways until both are done.
async fn pass(client: OnUpgrade, upstream: OnUpgrade, metrics: Arc<Metrics>, series: Series) {
    if let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) {
        drop(copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(upstream)).await);
    }
    metrics.count(series);
}

fn host(request: &Request<Incoming>) -> String {
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok());
    named.or_else(|| request.uri().authority().map(http::uri::Authority::as_str)).unwrap_or("").to_owned()
}

/// Headers that concern one connection only.
fn strip(headers: &mut HeaderMap) {
    for name in
        ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"]
    {
        headers.remove(name);
    }
}

/// Says for whom, and how, the request was made.
fn forwarded(headers: &mut HeaderMap, host: &str, peer: SocketAddr) {
    let port = host.rsplit_once(':').map_or("80", |(_, port)| port).to_owned();
    let client = peer.ip().to_string();
    let chain = match headers.get("x-forwarded-for").and_then(|value| value.to_str().ok()) {
        Some(before) => format!("{before}, {client}"),
        None => client.clone(),
    };
    let host = host.to_owned();
    for (name, value) in [
        ("host", host.clone()),
        ("x-forwarded-for", chain),
        ("x-forwarded-host", host),
        ("x-forwarded-proto", "http".to_owned()),
        ("x-forwarded-port", port),
        ("x-real-ip", client),
    ] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> Answer {
    let body = Full::from(text).map_err(|never| match never {}).boxed();
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
}
