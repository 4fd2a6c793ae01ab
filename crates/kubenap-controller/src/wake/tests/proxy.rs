//! The proxy listener.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use kubenap_core::proxy::Proxy;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::world::{World, app, hear, key, pod, say};
use crate::wake::{DoorKey, HostRule, Question, serve_proxy};

async fn listen(world: &World) -> u16 {
    let rule = |host: &str, key| HostRule { host: host.into(), path: "/".into(), exact: false, key };
    let other = DoorKey { service: "other".into(), ..key() };
    let rules = vec![
        rule("web.example", key()),
        rule("two.example", key()),
        rule("two.example", other.clone()),
        rule("other.example", other),
    ];
    world.doors.set_hosts(rules, Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_proxy(listener, Proxy::default(), world.doors.clone(), CancellationToken::new()));
    port
}

#[tokio::test]
async fn a_wake_by_its_original_path_is_held_and_redirected() {
    let world = World::new();
    let port = listen(&world).await;
    let (pod, heard) = pod().await;
    for (head, location) in [
        (
            "POST /wake?original=%2Fa%3Fb%3Dc HTTP/1.1\r\nHost: web.example\r\nContent-Length: 3\r\n\r\nabc",
            "/a?b=c",
        ),
        ("GET /direct?x HTTP/1.1\r\nHost: web.example\r\n\r\n", "/direct?x"),
        (
            "GET / HTTP/1.1\r\nHost: k\r\nX-Forwarded-Host: web.example\r\nX-Original-URI: /told\r\n\r\n",
            "/told",
        ),
    ] {
        world.doors.set_state(&key(), crate::wake::DoorState::Waiting);
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        client.write_all(head.as_bytes()).await.unwrap();
        world.until_held(1).await;
        world.ready(pod);
        let answer = hear(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 307 "), "{head:?}: {answer}");
        assert!(answer.contains(&format!("\r\nlocation: {location}\r\n")), "{head:?}: {answer}");
    }
    assert!(heard.all().is_empty());
}

#[tokio::test]
async fn what_comes_on_an_error_path_waits_until_the_service_leads_to_the_app() {
    let world = World::new();
    let port = listen(&world).await;
    let (pod, _) = pod().await;
    let head = "GET /a HTTP/1.1\r\nHost: web.example\r\n\r\n";
    let mut early = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    early.write_all(head.as_bytes()).await.unwrap();
    world.until_held(1).await;
    world.doors.set_state(&key(), crate::wake::DoorState::Up([pod].into()));
    let mut late = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    late.write_all(head.as_bytes()).await.unwrap();
    world.until_held(2).await;
    world.ready(pod);
    for client in [&mut early, &mut late] {
        assert!(hear(client).await.starts_with("HTTP/1.1 307 "));
    }
}

#[tokio::test]
async fn who_is_here_is_answered_by_name_and_is_no_ask() {
    let world = World::new();
    let port = listen(&world).await;
    let question = Question::new();
    let members = BTreeSet::from(["kubenap-0".to_owned()]);
    // Also where it comes under a name that leads to an app.
    for host in ["kubenap.kubenap-system.svc", "web.example"] {
        let answer = say(port, question.text(host)).await;
        assert_eq!(question.answered_by(&answer, &members), Some("kubenap-0"), "{answer}");
        assert!(!answer.contains("kubenap-0"), "a name is nobody's business: {answer}");
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
    assert_eq!(world.doors.asks(&app()).total, 0);
}

#[tokio::test]
async fn unknown_and_ambiguous_hosts_and_bad_paths_wake_nothing() {
    let world = World::new();
    let port = listen(&world).await;
    for (head, status) in [
        ("GET /wake?original=/ HTTP/1.1\r\nHost: unknown.example\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: two.example\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: web.example\r\nX-Forwarded-Host: other.example\r\n\r\n", 404),
        ("GET / HTTP/1.1\r\nHost: other.example\r\n\r\n", 404),
        ("GET /wake?original=//evil.example HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
        ("GET /wake?original=%2F%5Cevil HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
        ("GET /wake HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
        ("GET //evil.example HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
        ("GET http://web.example/ HTTP/1.1\r\nHost: web.example\r\n\r\n", 400),
    ] {
        let answer = say(port, head).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head:?}: {answer}");
        assert!(!answer.to_ascii_lowercase().contains("location:"), "{answer}");
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_request_that_comes_back_is_slowed_down() {
    let world = World::new();
    let port = listen(&world).await;
    let (pod, _) = pod().await;
    world.ready(pod);
    let begun = Instant::now();
    for (expected, slowest) in [("307", 500), ("307", 1500)] {
        let answer = say(port, "GET /loop HTTP/1.1\r\nHost: web.example\r\n\r\n").await;
        assert_eq!(answer.split(' ').nth(1), Some(expected));
        assert!(begun.elapsed() >= Duration::from_millis(slowest));
    }
}

#[tokio::test]
async fn grpc_is_told_to_try_again() {
    let world = World::new();
    let port = listen(&world).await;
    let (pod, _) = pod().await;
    world.ready(pod);
    let head = "POST /p.S/M HTTP/1.1\r\nHost: web.example\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    let answer = say(port, head).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("grpc-status: 14\r\n"), "{answer}");
}
