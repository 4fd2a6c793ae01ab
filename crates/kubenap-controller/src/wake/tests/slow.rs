//! Clients that dribble, that never listen, and that come in crowds: each is cut off, and nobody else notices.

use std::net::Ipv4Addr;
use std::time::Duration;

use kubenap_core::answer::OwnedManners;
use kubenap_core::proxy::Proxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::world::{World, eventually, hear, key, open, pod};
use crate::wake::{DoorKey, DoorSpec, DoorState, HostRule, Limits, serve_proxy};

/// Bounds so short that a test need not wait for them.
fn quick() -> Limits {
    Limits {
        silence: Duration::from_millis(200),
        head_deadline: Duration::from_millis(300),
        discard_within: Duration::from_millis(400),
        response_head: Duration::from_millis(400),
        write_stall: Duration::from_millis(300),
        http2_idle: Duration::from_millis(400),
        ..Limits::default()
    }
}

async fn proxy(world: &World) -> u16 {
    let rule = HostRule { host: "web.example".into(), path: "/".into(), exact: false, key: key() };
    world.doors.set_hosts(vec![rule], Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_proxy(listener, Proxy::default(), world.doors.clone(), CancellationToken::new()));
    port
}

/// Sends `bytes` and then one byte now and then, until it is cut off; what it was told.
async fn dribble(port: u16, bytes: &[u8], every: Duration) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let (mut read, mut write) = stream.split();
    let mut heard = Vec::new();
    let drip = async {
        loop {
            sleep(every).await;
            if write.write_all(b"x").await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    let cut = async {
        tokio::select! {
            // Cut off in the middle of what it sends: it may hear of it as a reset.
            ended = read.read_to_end(&mut heard) => drop(ended),
            () = drip => {}
        }
    };
    timeout(Duration::from_secs(5), cut).await.expect("it is never cut off");
    String::from_utf8_lossy(&heard).into_owned()
}

#[tokio::test]
async fn a_head_that_dribbles_is_cut_off_on_every_way_in() {
    let world = World::with(&OwnedManners::default(), quick());
    for port in [world.port, proxy(&world).await] {
        let answer =
            dribble(port, b"GET / HTTP/1.1\r\nHost: web.example\r\nX: ", Duration::from_millis(30)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{answer}");
    }
    eventually(|| world.doors.shared.crowd.count() == 0 && world.doors.shared.strangers.count() == 0).await;
    assert_eq!(world.doors.shared.heads.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_body_that_dribbles_keeps_nobody_from_an_answer() {
    let world = World::with(&OwnedManners::default(), quick());
    let port = proxy(&world).await;
    world.ready(pod().await.0);
    // Thrown away before a redirect: a byte now and then is progress, and still there is an end.
    let head = b"POST /wake?original=/a HTTP/1.1\r\nHost: web.example\r\nContent-Length: 90000\r\n\r\n";
    let answer = dribble(port, head, Duration::from_millis(30)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 307 "), "{answer}");
    // Passed: the pod never gets a whole request, and its patience is bounded.
    let head = b"POST /a HTTP/1.1\r\nHost: web.example\r\nContent-Length: 90000\r\n\r\n";
    let answer = dribble(world.port, head, Duration::from_millis(30)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 504 "), "{answer}");
    eventually(|| world.doors.shared.crowd.count() == 0).await;
}

#[tokio::test]
async fn an_answer_that_nobody_takes_is_cut_off() {
    let world = World::with(&OwnedManners::default(), quick());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    world.ready(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.read_exact(&mut [0; 4]).await.ok();
                stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n").await.ok();
                while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
            });
        }
    });
    let mut deaf = world.connect().await;
    deaf.write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n").await.unwrap();
    let mut sealed = world.connect().await;
    sealed.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
    eventually(|| world.doors.shared.crowd.count() == 2).await;
    eventually(|| world.doors.shared.crowd.count() == 0).await;
    drop((deaf, sealed));
}

#[tokio::test]
async fn an_http2_connection_without_streams_is_ended() {
    let world = World::with(&OwnedManners::default(), quick());
    for port in [world.port, proxy(&world).await] {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        // Its settings, and then its goodbye.
        hear(&mut client).await;
    }
    eventually(|| world.doors.shared.crowd.count() == 0 && world.doors.shared.strangers.count() == 0).await;
}

#[tokio::test]
async fn heads_together_take_no_more_memory_than_there_is_for_them() {
    // The others are as they are everywhere: these clients are in no hurry, nor slow on purpose.
    let limits = Limits { heads_total: 8 * 1024, ..Limits::default() };
    let world = World::with(&OwnedManners::default(), limits);
    let long = format!("GET / HTTP/1.1\r\nHost: web\r\nX: {}\r\n\r\n", "y".repeat(6 * 1024));
    let mut first = world.connect().await;
    first.write_all(long.as_bytes()).await.unwrap();
    world.until_held(1).await;
    let answer = world.say(&long).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{answer}");
    world.ready(pod().await.0);
    assert!(hear(&mut first).await.starts_with("HTTP/1.1 200 "));
    eventually(|| world.doors.shared.crowd.count() == 0).await;
    assert!(world.say(&long).await.starts_with("HTTP/1.1 200 "));
}

#[tokio::test]
async fn a_stranger_s_connections_do_not_keep_a_proxy_out() {
    let limits = Limits { proxy_connections: 10, overflow: 30, ..Limits::default() };
    let world = World::with(&OwnedManners::default(), limits);
    let port = proxy(&world).await;
    world.fails();
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.push(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap());
    }
    for _ in 0..3 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::new(127, 0, 0, 3), 0).into()).unwrap();
        let mut proxied = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
        proxied.write_all(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n").await.unwrap();
        let answer = hear(&mut proxied).await;
        assert!(answer.contains("x-kubenap-reason: image"), "{answer}");
    }
}

#[tokio::test]
async fn one_app_s_flood_sheds_only_its_own() {
    let world = World::with(&OwnedManners::default(), Limits { connections: 40, ..Limits::default() });
    let modest = DoorKey { service: "modest".into(), ..key() };
    let spec = DoorSpec {
        key: modest.clone(),
        apps: vec![kubenap_core::app::AppId::new("shop", "modest")],
        manners: OwnedManners::default(),
    };
    let port = open(&world.doors, &spec);
    let direct = b"GET / HTTP/1.1\r\nHost: web\r\n\r\n";
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        client.write_all(direct).await.unwrap();
        held.push(client);
    }
    let modest_app = kubenap_core::app::AppId::new("shop", "modest");
    eventually(|| world.doors.asks(&modest_app).held == 10).await;
    let flood = futures::future::join_all((0..200).map(|_| world.say(direct)));
    let (flooded, ()) = tokio::join!(flood, async {
        // By then each of them has its place, or was turned away.
        eventually(|| world.doors.arrivals(world.port) == 200).await;
        assert_eq!(world.doors.asks(&modest_app).held, 10, "the flood took somebody else's place");
        let (pod, _) = pod().await;
        world.ready(pod);
        world.doors.set_state(&modest, DoorState::Ready([pod].into()));
    });
    for mut client in held {
        assert!(hear(&mut client).await.starts_with("HTTP/1.1 200 "));
    }
    let served = flooded.iter().filter(|answer| answer.starts_with("HTTP/1.1 200 ")).count();
    assert_eq!(served, 30, "of the flood, as many as the modest leave places for");
    assert!(
        flooded.iter().all(|answer| answer.starts_with("HTTP/1.1 200 ") || answer.contains("Retry-After: 1"))
    );
}
