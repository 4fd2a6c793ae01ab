//! The toy app in every pod: it says who it is, echoes upgrades, and fails on request.
use crate::store::object;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// A pod's listening app; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Backend {
    _end: DropGuard,
}

#[derive(Debug)]
struct App {
    pod: String,
    name: String,
}

/// How long connections may finish what they do once the app has ended.
const FAREWELL: Duration = Duration::from_secs(1);

impl Backend {
    /// Listens on all TCP ports of the pod's containers; an address of which one port is taken is no good.
    pub(crate) fn listen(pod: &Value, address: Ipv4Addr) -> io::Result<Self> {
        let name = pod["metadata"]["labels"]["app"].as_str();
        let name = name.or_else(|| pod["spec"]["containers"][0]["name"].as_str()).unwrap_or("").to_owned();
        let app = Arc::new(App { pod: object::name(pod).to_owned(), name });
        let ports = object::list(&pod["spec"]["containers"])
            .iter()
            .flat_map(|container| object::list(&container["ports"]))
            .filter(|port| port["protocol"] == "TCP")
            .filter_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok());
        let mut listeners = Vec::new();
        for port in ports {
            listeners.push(bind(address, port)?);
        }
        let stop = CancellationToken::new();
        for listener in listeners {
            tokio::spawn(accept(listener, Arc::clone(&app), stop.clone()));
        }
        Ok(Self { _end: stop.drop_guard() })
    }
}

/// Binds at once, without waiting, so that a pod is never ready before it listens.
pub(super) fn bind(address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind((address, port))?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// The next connection; an error, such as too many open files, only means a short wait.
pub(super) async fn next(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn accept(listener: TcpListener, app: Arc<App>, stop: CancellationToken) {
    loop {
        let stream = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            stream = next(&listener) => stream,
        };
        tokio::spawn(serve(stream, Arc::clone(&app), stop.clone()));
    }
}

/// One connection, HTTP/1 or HTTP/2 as its first bytes say.
async fn serve(stream: TcpStream, app: Arc<App>, stop: CancellationToken) {
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Infallible>(answer(&app, request).await) }
    });
    let builder = Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        biased;
        _ = &mut connection => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    // What the other side broke off is its own affair.
    drop(tokio::time::timeout(FAREWELL, connection).await);
}

async fn answer(app: &App, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    if let Some(protocol) = request.headers().get(header::UPGRADE).cloned() {
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                let (mut from, mut to) = tokio::io::split(TokioIo::new(upgraded));
                drop(tokio::io::copy(&mut from, &mut to).await);
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        response.headers_mut().insert(header::UPGRADE, protocol);
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
        return response;
    }
    let (parts, mut body) = request.into_parts();
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let text = json!({
        "pod": app.pod, "app": app.name, "method": parts.method.as_str(), "path": path, "body": length,
    });
    let mut response = Response::new(Full::from(format!("{text}\n")));
    if parts.uri.path() == "/own503" {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}
