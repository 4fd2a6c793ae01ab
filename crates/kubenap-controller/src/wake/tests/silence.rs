//! Nothing of a request is ever in the log or in the metrics, whatever becomes of it.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use kubenap_core::answer::{OwnedManners, WakeMode};
use kubenap_core::proxy::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::world::{World, key, pod, say, vacant};
use crate::telemetry::AskAnswer;
use crate::wake::reply::full;
use crate::wake::{DoorState, HostRule, Limits, serve_proxy};

/// Stands in every part of every request.
const MARK: &str = "zq7mark";

/// All that is logged, at every level and of every library.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn request(method: &str, more: &str, body: &str) -> String {
    format!(
        "{method} /{MARK}/path?{MARK}=query HTTP/1.1\r\nHost: {MARK}.example\r\nX-{MARK}: {MARK}\r\nCookie: {MARK}\r\n\
         Authorization: {MARK}\r\n{more}\r\n{body}"
    )
}

fn post() -> String {
    request("POST", &format!("Content-Length: {}\r\n", MARK.len()), MARK)
}

async fn get_over_http2(port: u16) {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let connection = tokio::spawn(connection);
    let call = Request::post(format!("http://{MARK}.example/{MARK}?{MARK}"))
        .header(format!("x-{MARK}"), MARK)
        .body(full(MARK))
        .unwrap();
    sender.send_request(call).await.ok();
    drop(sender);
    connection.await.unwrap().ok();
}

#[tokio::test]
async fn nothing_of_a_request_is_logged_or_counted_whatever_becomes_of_it() {
    let log = Log::default();
    let copy = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || copy.clone())
        .finish();
    // This thread runs all tasks of this test.
    let guard = tracing::subscriber::set_default(subscriber);
    tracing::trace!("it is heard");
    let forwarded = format!("X-Forwarded-For: {MARK}\r\nVia: 1.1 {MARK}\r\n");
    let mut metrics = String::new();

    let manners = OwnedManners {
        hold_for: Duration::from_millis(200),
        wake_timeout: Duration::from_millis(300),
        ignore_paths: vec!["/ignored".into()],
        ..OwnedManners::default()
    };
    let limits = Limits {
        silence: Duration::from_millis(200),
        leave_spread: Duration::ZERO,
        leave_patience: Duration::ZERO,
        ..Limits::default()
    };
    let world = World::with(&manners, limits.clone());
    let rule = HostRule { host: format!("{MARK}.example"), path: "/".into(), exact: false, key: key() };
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let proxy = listener.local_addr().unwrap().port();
    tokio::spawn(serve_proxy(listener, Proxy::default(), world.doors.clone(), CancellationToken::new()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let nginx = listener.local_addr().unwrap().port();
    let profile = Proxy::find("nginx").unwrap();
    tokio::spawn(serve_proxy(listener, profile, world.doors.clone(), CancellationToken::new()));

    // Asleep: hops, gives up, ignores, is refused; on the error path nobody is known yet.
    world.say(request("GET", &forwarded, "")).await;
    world.say(post()).await;
    world.say(request("GET", "User-Agent: kube-probe/1.34\r\n", "")).await;
    world.say(request("GET", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", MARK)).await;
    world.say(request("TRACE", "", "")).await;
    world.say(request("GET", &format!("X: {}\r\n", MARK.repeat(6000)), "")).await;
    say(proxy, post()).await;
    world.doors.set_hosts(vec![rule], Vec::new());
    say(
        proxy,
        request("GET", "", "").replace(&format!("/{MARK}/path?"), &format!("/wake?original=//{MARK}&")),
    )
    .await;
    let grpc = "Content-Type: application/grpc\r\nContent-Length: 0\r\n";
    say(proxy, request("POST", grpc, "")).await;
    let mut goes = world.connect().await;
    goes.write_all(post().as_bytes()).await.unwrap();
    world.until_held(1).await;
    drop(goes);
    world.until_held(0).await;

    // Failed, broken, unreachable.
    world.fails();
    world.say(post()).await;
    let breaks = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    world.ready(breaks.local_addr().unwrap());
    tokio::join!(world.say(post()), async {
        let (mut stream, _) = breaks.accept().await.unwrap();
        stream.read_exact(&mut [0; 4]).await.ok();
    });
    let (_kept, gone) = vacant();
    world.ready(gone);
    world.say(post()).await;

    // Ready: passed in every form, spoiled, looping.
    world.ready(pod().await.0);
    world.say(post()).await;
    world.say(request("POST", "Transfer-Encoding: chunked\r\n", MARK)).await;
    get_over_http2(world.port).await;
    let mut sealed = world.connect().await;
    sealed.write_all(format!("\x16\x03\x01{MARK}").as_bytes()).await.unwrap();
    sealed.shutdown().await.unwrap();
    sealed.read_to_end(&mut Vec::new()).await.ok();
    let told = format!("X-Original-URI: /{MARK}\r\nX-Original-Method: POST\r\n");
    say(nginx, request("POST", &format!("{told}X-Upstream-Connect: -\r\nContent-Length: 0\r\n"), "")).await;
    say(nginx, request("POST", &format!("{told}X-Upstream-Connect: 0.1\r\nContent-Length: 0\r\n"), "")).await;
    let loops = request("GET", "", "");
    let target = format!("/{MARK}/path?{MARK}=query");
    let host = format!("{MARK}.example");
    let pacer = &world.doors.shared.pacer;
    let caller = pacer.caller(Ipv4Addr::LOCALHOST.into(), b"", host.as_bytes(), &target);
    while pacer.comes_back(caller).is_some() {}
    say(proxy, loops).await;

    // Leaving, with somebody held.
    world.doors.set_state(&key(), DoorState::Waiting);
    let mut held = world.connect().await;
    held.write_all(request("GET", &forwarded, "").as_bytes()).await.unwrap();
    world.until_held(1).await;
    world.doors.drain(Duration::ZERO, tokio::time::Instant::now() + Duration::from_secs(5)).await;
    metrics += &world.telemetry.text();

    // The waiting page, a full house, a redirect.
    let page = World::with(&OwnedManners { mode: WakeMode::Page, ..manners.clone() }, limits.clone());
    page.say(request("GET", "Accept: text/html\r\n", "")).await;
    metrics += &page.telemetry.text();
    let full = World::with(&OwnedManners::default(), Limits { connections: 2, ..limits });
    let mut two = full.connect().await;
    two.write_all(request("GET", &forwarded, "").as_bytes()).await.unwrap();
    full.until_held(1).await;
    get_over_http2_while_full(&full).await;
    full.ready(pod().await.0);
    two.read_to_end(&mut Vec::new()).await.ok();
    metrics += &full.telemetry.text();

    drop(guard);
    let log = String::from_utf8_lossy(&log.0.lock().unwrap()).into_owned();
    assert!(log.contains("it is heard") && log.contains("DEBUG"), "nothing is captured");
    for (name, text) in [("the log", &log), ("the metrics", &metrics)] {
        let line = text.lines().find(|line| line.to_ascii_lowercase().contains(MARK));
        assert!(line.is_none(), "{name} says {line:?}");
    }
    let answered = |answer: AskAnswer| metrics.contains(&format!("answer=\"{}\"", answer.label()));
    let missing: Vec<_> = AskAnswer::ALL.into_iter().filter(|answer| !answered(*answer)).collect();
    assert!(missing.is_empty(), "these answers were never given: {missing:?}");
}

/// One stream takes the last place but the connection's own, and the next is turned away.
async fn get_over_http2_while_full(world: &World) {
    let stream = world.connect().await;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let call = Request::get(format!("http://{MARK}.example/{MARK}")).body(full("")).unwrap();
    let answer = sender.send_request(call).await.unwrap();
    assert_eq!(answer.status(), 503);
}
