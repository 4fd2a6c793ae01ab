//! Each proxy's profile: what its requests get, and what nobody gets by what a proxy does not set.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kubenap_core::proxy::{PLUGINS, Proxy};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::corpora::{REDIRECTS, lines};
use super::world::{World, eventually, hear, key, pod, say};
use crate::wake::{DoorKey, DoorState, HostRule, safe_location, serve_proxy};

/// What NGINX sets on its error path where it never reached the app.
const NGINX: &str = "X-Upstream-Connect: -\r\nX-Upstream-Status: 502\r\n";

fn other() -> DoorKey {
    DoorKey { service: "other".into(), ..key() }
}

/// A listener of this profile, on which `web.example` is an app, and `other.example` and `/other` another one.
async fn listen(world: &World, profile: &str) -> u16 {
    let rule =
        |host: &str, path: &str, key| HostRule { host: host.into(), path: path.into(), exact: false, key };
    let rules = vec![
        rule("web.example", "/", key()),
        rule("web.example", "/other", other()),
        rule("other.example", "/", other()),
    ];
    world.doors.set_hosts(rules, Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let profile = Proxy::find(profile).unwrap();
    tokio::spawn(serve_proxy(listener, profile, world.doors.clone(), CancellationToken::new()));
    port
}

async fn connect(port: u16, bytes: impl AsRef<[u8]>) -> TcpStream {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    client.write_all(bytes.as_ref()).await.unwrap();
    client
}

fn request(line: &str, fields: &str) -> String {
    format!("{line} HTTP/1.1\r\nHost: web.example\r\n{fields}\r\n")
}

fn location(answer: &str) -> Option<&str> {
    let head = answer.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| line.strip_prefix("location: "))
}

#[tokio::test]
async fn each_proxy_is_understood_in_its_own_words() {
    let error = "X-Caddy-Error: dial tcp 10.0.0.1:80: connect: connection refused\r\n";
    let told = "X-Original-URI: /a?b\r\nX-Original-Method: GET\r\n";
    for (profile, line, fields, leads) in [
        ("nginx", "GET /", format!("{NGINX}{told}"), "/a?b"),
        (
            "nginx",
            "GET /",
            format!("X-Upstream-Connect: -, - : 0.002\r\nX-Upstream-Status: 502, 502 : 200\r\n{told}"),
            "/a?b",
        ),
        (
            "nginx",
            "GET /",
            format!("X-Upstream-Connect: - : 0.002 : -\r\nX-Upstream-Status: 502 : 200 : 502\r\n{told}"),
            "/a?b",
        ),
        (
            "nginx",
            "GET /",
            "X-Code: 503\r\nX-Original-URI: /a?b\r\nX-Namespace: shop\r\nX-Service-Name: web\r\n".to_owned(),
            "/a?b",
        ),
        (
            "nginx",
            "GET /a?b",
            "X-Code: 503\r\nX-Namespace: shop\r\nX-Service-Name: web\r\n".to_owned(),
            "/a?b",
        ),
        ("traefik", "GET /wake?u=http%3A%2F%2Fweb.example%2Fa%3Fb", String::new(), "/a?b"),
        (
            "traefik",
            "GET /wake?u=https%3A%2F%2Fweb.example%3A8443%2Fa%2520b%3Fc%3D%252F",
            String::new(),
            "/a%20b?c=%2F",
        ),
        (
            "traefik",
            "GET /wake?u=http%3A%2F%2Fweb.example%2Fa",
            "X-Forwarded-Prefix: /api\r\n".to_owned(),
            "/api/a",
        ),
        ("traefik", "GET /a?b", String::new(), "/a?b"),
        ("traefik", "GET /", "X-Code: 503\r\nX-Original-Uri: /a?b\r\n".to_owned(), "/a?b"),
        ("traefik", "GET /c", "X-Code: 503\r\nX-Original-Uri: /a?b\r\n".to_owned(), "/c"),
        ("envoy", "GET /wake", format!("{told}X-Response-Flags: UH\r\n"), "/a?b"),
        ("envoy", "POST /.kubenap/wake?u=/a?b=c&u=d", String::new(), "/a?b=c&u=d"),
        ("envoy", "GET /rewritten", "X-Envoy-Original-Path: /a?b\r\n".to_owned(), "/a?b"),
        ("istio", "GET /wake", told.to_owned(), "/a?b"),
        ("envoy-gateway", "GET /a?b", String::new(), "/a?b"),
        ("haproxy", "GET /a?b", String::new(), "/a?b"),
        ("caddy", "GET /", format!("{error}{told}"), "/a?b"),
        ("any", "GET /", told.to_owned(), "/a?b"),
    ] {
        let world = World::new();
        let port = listen(&world, profile).await;
        let mut client = connect(port, request(line, &fields)).await;
        world.until_held(1).await;
        world.ready((Ipv4Addr::LOCALHOST, 9).into());
        let answer = hear(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 307 "), "{profile} {line}: {answer}");
        assert_eq!(location(&answer), Some(leads), "{profile} {line}");
    }
}

#[tokio::test]
async fn what_must_not_be_redirected_is_passed_where_the_request_is_at_hand() {
    for profile in ["traefik", "envoy", "envoy-gateway", "haproxy", "nginx"] {
        let world = World::new();
        let port = listen(&world, profile).await;
        let (pod, heard) = pod().await;
        let fields = "X-Code: 503\r\nX-Namespace: shop\r\nX-Service-Name: web\r\nContent-Length: 3\r\n";
        let mut client = connect(port, request("POST /form?x", fields) + "abc").await;
        world.until_held(1).await;
        world.ready(pod);
        let answer = hear(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{profile}: {answer}");
        // A proxy that has not heard of the wake goes on asking: each gets the app's own answer.
        let answer = say(port, request("GET /again", fields.split("Content").next().unwrap())).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{profile}: {answer}");
        assert_eq!(heard.all(), ["POST /form?x Ok(3)", "GET /again Ok(0)"], "{profile}");
    }
}

#[tokio::test]
async fn nginx_is_told_to_send_again_what_must_not_be_redirected() {
    for (method, upgrade) in [("POST", ""), ("DELETE", ""), ("OPTIONS", ""), ("GET", "websocket")] {
        let world = World::new();
        let port = listen(&world, "nginx").await;
        let fields = format!(
            "{NGINX}X-Original-URI: /a\r\nX-Original-Method: {method}\r\nX-Original-Upgrade: {upgrade}\r\n"
        );
        let fields = if upgrade.is_empty() { fields.replace("X-Original-Upgrade: \r\n", "") } else { fields };
        let mut client = connect(port, request(&format!("{method} /a"), &fields)).await;
        world.until_held(1).await;
        world.ready((Ipv4Addr::LOCALHOST, 9).into());
        let answer = hear(&mut client).await.to_ascii_lowercase();
        assert!(answer.starts_with("http/1.1 200 "), "{method} {upgrade}: {answer}");
        assert!(answer.contains("\r\nx-accel-redirect: @kubenap_retry\r\n"), "{method}: {answer}");
        // NGINX would put these into the app's own answer.
        for leaks in
            ["content-type", "cache-control", "expires", "set-cookie", "content-disposition", "location"]
        {
            assert!(!answer.contains(&format!("\r\n{leaks}:")), "{method}: {answer}");
        }
    }
}

#[tokio::test]
async fn an_app_that_was_reached_is_not_asked_again_for_what_it_may_have_carried_out() {
    let world = World::new();
    let told = "X-Original-URI: /a\r\nX-Original-Method: GET\r\n";
    let nginx = listen(&world, "nginx").await;
    for (connect, status, code) in [
        ("0.001", "502", 502),
        ("0.000", "504", 504),
        ("-, 0.002", "502, 504", 504),
        ("0.001 : 0.002", "502 : 502", 502),
        ("- : 0.002 : 0.001", "502 : 200 : 504", 504),
    ] {
        let fields = format!("{told}X-Upstream-Connect: {connect}\r\nX-Upstream-Status: {status}\r\n");
        let answer = say(nginx, request("GET /a", &fields)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{connect}: {answer}");
        assert_eq!(location(&answer), None);
    }
    let caddy = listen(&world, "caddy").await;
    let answer = say(caddy, request("GET /a", &format!("{told}X-Caddy-Error: EOF\r\n"))).await;
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn nothing_that_a_client_can_forge_wakes_another_app() {
    let forged = "X-Forwarded-Host: other.example\r\nX-Forwarded-Uri: /other\r\nX-Forwarded-Prefix: \r\n\
                  X-Original-Host: other.example\r\nX-Replaced-Path: /other\r\nForwarded: host=other.example\r\n\
                  X-Forwarded-Server: other.example\r\nX-Rewrite-URL: /other\r\nX-Original-URL: /other\r\n";
    let told = "X-Original-URI: /a\r\nX-Original-Method: GET\r\n";
    for (profile, line, own) in [
        ("nginx", "GET /a", format!("{NGINX}{told}")),
        ("traefik", "GET /a", String::new()),
        ("traefik", "GET /a", "X-Original-URI: /other\r\n".to_owned()),
        ("traefik", "GET /wake?u=http%3A%2F%2Fweb.example%2Fa", String::new()),
        ("envoy", "GET /a", "X-Original-URI: /other\r\n".to_owned()),
        ("envoy", "GET /wake", told.to_owned()),
        ("istio", "GET /a", "X-Original-URI: /other\r\n".to_owned()),
        ("envoy-gateway", "GET /a", "X-Original-URI: /other\r\n".to_owned()),
        ("haproxy", "GET /a", "X-Original-URI: /other\r\nX-Envoy-Original-Path: /other\r\n".to_owned()),
        ("caddy", "GET /", format!("X-Caddy-Error: dial tcp\r\n{told}")),
    ] {
        let world = World::new();
        let port = listen(&world, profile).await;
        let mut client = connect(port, request(line, &format!("{own}{forged}"))).await;
        world.until_held(1).await;
        // The other app, if it were the one, would go on waiting.
        world.ready((Ipv4Addr::LOCALHOST, 9).into());
        let answer = hear(&mut client).await;
        assert!(matches!(location(&answer), Some("/a")), "{profile} {line}: {answer}");
    }
    let world = World::new();
    for (profile, line, fields) in [
        // Twice, or against each other: one of them is not the proxy's.
        ("nginx", "GET /a", format!("{NGINX}{told}X-Original-URI: /other\r\n")),
        ("nginx", "GET /a", format!("{NGINX}X-Original-Method: GET\r\n")),
        ("nginx", "GET /a", format!("{told}X-Code: 503\r\nX-Namespace: shop\r\nX-Service-Name: other\r\n")),
        ("nginx", "GET /a", format!("{told}X-Code: 503\r\n")),
        ("traefik", "GET /wake?u=http%3A%2F%2Fother.example%2Fa", String::new()),
        ("traefik", "GET /wake?u=http%3A%2F%2Fweb.example.evil%2Fa", String::new()),
        ("traefik", "GET /a", "X-Forwarded-Prefix: /other\r\nX-Forwarded-Prefix: /api\r\n".to_owned()),
        ("envoy", "GET /wake", format!("{told}X-Original-URI: /other\r\n")),
        ("caddy", "GET /a", String::new()),
        ("caddy", "GET /a", told.to_owned()),
    ] {
        let port = listen(&world, profile).await;
        let answer = say(port, request(line, &fields)).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{profile} {line} {fields:?}: {answer}");
    }
    for plugin in PLUGINS {
        let port = listen(&world, plugin.name()).await;
        let head =
            format!("GET /a HTTP/1.1\r\nHost: evil.example\r\n{NGINX}{told}X-Caddy-Error: dial tcp\r\n\r\n");
        let answer = say(port, head).await;
        assert!(answer.starts_with("HTTP/1.1 404 "), "{}: {answer}", plugin.name());
    }
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
}

/// The request in which a profile's proxy says that its client asked for `target`.
fn shapes(profile: &str, target: &[u8]) -> Vec<Vec<u8>> {
    let told = |line: &str, name: &str, rest: &str| {
        let head =
            format!("{line} HTTP/1.1\r\nHost: web.example\r\n{rest}X-Original-Method: GET\r\n{name}: ");
        [head.as_bytes(), target, b"\r\n\r\n"].concat()
    };
    let line = |before: &str, target: &[u8]| {
        [before.as_bytes(), target, b" HTTP/1.1\r\nHost: web.example\r\n\r\n"].concat()
    };
    let escaped = target.iter().map(|byte| format!("%{byte:02x}")).collect::<Vec<_>>().concat();
    match profile {
        "nginx" => vec![told("GET /", "X-Original-URI", NGINX)],
        "traefik" => {
            vec![line("GET /wake?u=http%3a%2f%2fweb.example", escaped.as_bytes()), line("GET ", target)]
        }
        "caddy" => vec![told("GET /", "X-Original-URI", "X-Caddy-Error: dial tcp\r\n")],
        "envoy" | "istio" => {
            vec![
                told("GET /wake", "X-Original-URI", ""),
                line("GET /.kubenap/wake?u=", target),
                line("GET ", target),
            ]
        }
        _ => vec![line("GET ", target)],
    }
}

#[tokio::test]
async fn no_line_of_the_corpus_leads_elsewhere_on_any_profile() {
    for plugin in PLUGINS {
        let world = Arc::new(World::new());
        let port = listen(&world, plugin.name()).await;
        let answered = Arc::new(AtomicUsize::new(0));
        let mut clients = Vec::new();
        for (verdict, line) in lines(REDIRECTS) {
            let Some(target) = line.strip_prefix(b"GET ") else { continue };
            let mut heads: Vec<_> =
                shapes(plugin.name(), target).into_iter().map(|head| (head, None)).collect();
            let by_name = [&line, &b" HTTP/1.1\r\nHost: web.example\r\n\r\n"[..]].concat();
            let wanted = verdict.strip_prefix("to ").filter(|_| target.starts_with(b"/wake?"));
            heads.push((by_name, wanted.map(str::to_owned)));
            for (head, wanted) in heads {
                let (target, answered) = (target.to_vec(), Arc::clone(&answered));
                clients.push(tokio::spawn(async move {
                    let answer = hear(&mut connect(port, &head).await).await;
                    answered.fetch_add(1, Ordering::SeqCst);
                    let shown = format!("{}: {answer}", head.escape_ascii());
                    if let Some(wanted) = wanted {
                        assert_eq!(location(&answer), Some(wanted.as_str()), "{shown}");
                    } else if let Some(location) = location(&answer) {
                        // Safe, and made of nothing but what was asked for.
                        assert_eq!(safe_location(location), Some(location), "{shown}");
                        let own = String::from_utf8_lossy(&target).into_owned();
                        // What was percent-encoded is decoded and perhaps encoded again.
                        let named = own.starts_with("/wake?original=") || head.starts_with(b"GET /wake?u=");
                        assert!(named || own.ends_with(location), "{shown}");
                    }
                }));
            }
        }
        let total = clients.len();
        assert!(total > 60, "only {total} requests");
        eventually(|| world.doors.asks(&super::world::app()).held + answered.load(Ordering::SeqCst) == total)
            .await;
        world.doors.set_state(&key(), DoorState::Ready(Arc::from([(Ipv4Addr::LOCALHOST, 9).into()])));
        for client in clients {
            client.await.unwrap();
        }
    }
}
