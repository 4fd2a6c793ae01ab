//! A door with its wake port, a pod behind it, and clients that say what they are told.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kubenap_core::answer::OwnedManners;
use kubenap_core::app::AppId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

use crate::clock::Clock;
use crate::telemetry::Telemetry;
use crate::wake::{DoorKey, DoorSpec, DoorState, Doors, DoorsSettings, Limits};

pub(super) struct World {
    pub(super) doors: Doors,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) port: u16,
    pub(super) asked: Arc<AtomicUsize>,
}

pub(super) fn app() -> AppId {
    AppId::new("shop", "web")
}

pub(super) fn key() -> DoorKey {
    DoorKey { namespace: "shop".into(), service: "web".into(), port: 80 }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(
            &OwnedManners::default(),
            Limits {
                silence: Duration::from_millis(200),
                behind: Duration::from_millis(20),
                ..Limits::default()
            },
        )
    }

    pub(super) fn with(manners: &OwnedManners, limits: Limits) -> Self {
        let telemetry = Arc::new(Telemetry::new());
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        let doors = Doors::new(DoorsSettings {
            advertise: vec![Ipv4Addr::LOCALHOST.into()],
            limits,
            identity: "kubenap-0".to_owned(),
            clock: Clock::System,
            telemetry: Arc::clone(&telemetry),
            on_ask: Arc::new(move |_| {
                counter.fetch_add(1, Ordering::SeqCst);
            }),
        });
        let port = open(&doors, &DoorSpec { key: key(), apps: vec![app()], manners: manners.clone() });
        Self { doors, telemetry, port, asked }
    }

    pub(super) fn ready(&self, pod: SocketAddr) {
        self.doors.set_state(&key(), DoorState::Ready(Arc::from([pod])));
    }

    pub(super) fn fails(&self) {
        let retry_after = Duration::from_secs(7);
        let sentence = "its image cannot be pulled".to_owned();
        self.doors.set_state(&key(), DoorState::Failed { reason: "image", sentence, retry_after });
    }

    pub(super) async fn until_held(&self, count: usize) {
        eventually(|| self.doors.asks(&app()).held == count).await;
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap()
    }

    /// Sends `bytes` and reads until the other side closes.
    pub(super) async fn say(&self, bytes: impl AsRef<[u8]>) -> String {
        say(self.port, bytes).await
    }
}

pub(super) async fn say(port: u16, bytes: impl AsRef<[u8]>) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    hear(&mut stream).await
}

pub(super) async fn hear(stream: &mut TcpStream) -> String {
    let mut heard = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut heard)).await.expect("no end").ok();
    String::from_utf8_lossy(&heard).into_owned()
}

pub(super) async fn eventually(holds: impl Fn() -> bool) {
    let wait = async {
        while !holds() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(Duration::from_secs(10), wait).await.expect("it never came to that");
}

/// Opens a wake port for the door, whichever is free, and says which.
pub(super) fn open(doors: &Doors, spec: &DoorSpec) -> u16 {
    // What was free may be somebody else's a moment later.
    (0..50)
        .find_map(|_| {
            let port = free_port();
            doors.open(port, spec.clone()).ok().map(|()| port)
        })
        .expect("no free port")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// An address that refuses every connection, and that nobody else gets as long as the socket lives.
pub(super) fn vacant() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// What a pod has heard.
#[derive(Clone, Default)]
pub(super) struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    pub(super) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(super) fn note(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
}

/// A pod that answers every request with what it was, on connections that it would keep.
pub(super) async fn pod() -> (SocketAddr, Heard) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (address, heard) = (listener.local_addr().unwrap(), Heard::default());
    let ears = heard.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let ears = ears.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| echo(request, ears.clone()));
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await
                    .ok();
            });
        }
    });
    (address, heard)
}

async fn echo(request: Request<Incoming>, heard: Heard) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let length = body.collect().await.map(|body| body.to_bytes().len());
    let line = format!("{} {} {length:?}", parts.method, parts.uri);
    heard.note(line.clone());
    let names: Vec<_> = parts.headers.keys().map(http::HeaderName::as_str).collect();
    Ok(Response::new(Full::from(format!("{line} [{}]", names.join(" ")))))
}
