//! HTTP/1 on a wake port.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::join_all;
use kubenap_core::answer::{OwnedManners, WakeMode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};

use super::world::{World, app, eventually, hear, key, pod, vacant};
use crate::wake::{DoorState, Limits};

const PROXIED: &str = "GET /a/b?c=d%20e HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n";
const DIRECT: &str = "GET /a HTTP/1.1\r\nHost: web\r\n\r\n";

#[tokio::test]
async fn a_get_through_a_proxy_is_held_and_sent_back_to_its_own_path() {
    let world = World::new();
    let (pod, heard) = pod().await;
    let mut client = world.connect().await;
    client.write_all(PROXIED.as_bytes()).await.unwrap();
    world.until_held(1).await;
    assert_eq!(world.asked.load(Ordering::SeqCst), 1);
    world.ready(pod);
    let answer = hear(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    assert!(answer.contains("\r\nlocation: /a/b?c=d%20e\r\n"), "{answer}");
    assert!(answer.contains("\r\ncache-control: no-store\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(heard.all().is_empty());
    let again = world.say(PROXIED).await;
    assert!(again.starts_with("HTTP/1.1 200 "), "a stale proxy is passed: {again}");
    assert_eq!(heard.all(), ["GET /a/b?c=d%20e Ok(0)"]);
    assert_eq!(world.doors.asks(&app()).held, 0);
    assert!(world.doors.asks(&app()).last_while_ready.is_some());
}

#[tokio::test]
async fn a_pod_that_is_ready_before_its_service_gets_what_is_passed_and_nobody_is_sent_back_yet() {
    let world = World::new();
    let (pod, heard) = pod().await;
    let mut proxied = world.connect().await;
    proxied.write_all(PROXIED.as_bytes()).await.unwrap();
    let mut direct = world.connect().await;
    direct.write_all(DIRECT.as_bytes()).await.unwrap();
    world.until_held(2).await;
    assert_eq!(world.doors.asks(&app()).to_pass, 1);
    world.doors.set_state(&key(), DoorState::Early(Arc::from([pod])));
    let answer = hear(&mut direct).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let late = world.say(DIRECT).await;
    assert!(late.starts_with("HTTP/1.1 200 "), "{late}");
    assert_eq!(heard.all().len(), 2);
    assert_eq!((world.doors.asks(&app()).held, world.doors.asks(&app()).to_pass), (1, 0));
    world.ready(pod);
    let answer = hear(&mut proxied).await;
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
    assert_eq!(heard.all().len(), 2);
}

#[tokio::test]
async fn a_pod_that_every_member_knows_lets_all_go_before_the_service_follows() {
    let world = World::new();
    let (pod, heard) = pod().await;
    let mut proxied = world.connect().await;
    proxied.write_all(PROXIED.as_bytes()).await.unwrap();
    let mut direct = world.connect().await;
    direct.write_all(DIRECT.as_bytes()).await.unwrap();
    world.until_held(2).await;
    world.doors.set_state(&key(), DoorState::Waking);
    world.doors.set_state(&key(), DoorState::Up(Arc::from([pod])));
    assert!(hear(&mut proxied).await.starts_with("HTTP/1.1 307 "));
    assert!(hear(&mut direct).await.starts_with("HTTP/1.1 200 "));
    let again = world.say(PROXIED).await;
    assert!(again.starts_with("HTTP/1.1 200 "), "who was sent back is passed: {again}");
    assert_eq!(heard.all(), ["GET /a Ok(0)", "GET /a/b?c=d%20e Ok(0)"]);
}

#[tokio::test]
async fn what_another_member_may_have_sent_back_already_is_passed() {
    for page in ["", "Accept: text/html\r\n"] {
        let world = World::new();
        let (pod, heard) = pod().await;
        world.doors.set_state(&key(), DoorState::Waking);
        let ask = format!("GET / HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 192.0.2.1\r\n{page}\r\n");
        let mut client = world.connect().await;
        client.write_all(ask.as_bytes()).await.unwrap();
        world.until_held(1).await;
        world.doors.set_state(&key(), DoorState::Up(Arc::from([pod])));
        let answer = hear(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{page}: {answer}");
        assert_eq!(heard.all(), ["GET / Ok(0)"]);
    }
}

#[tokio::test]
async fn what_came_during_the_wake_and_waited_for_longer_than_members_lag_is_sent_back() {
    let limits = Limits { lag: Duration::from_millis(50), ..Limits::default() };
    let world = World::with(&OwnedManners::default(), limits);
    let (pod, heard) = pod().await;
    world.doors.set_state(&key(), DoorState::Waking);
    let mut client = world.connect().await;
    client.write_all(PROXIED.as_bytes()).await.unwrap();
    world.until_held(1).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    world.doors.set_state(&key(), DoorState::Up(Arc::from([pod])));
    assert!(hear(&mut client).await.starts_with("HTTP/1.1 307 "));
    assert!(heard.all().is_empty());
}

#[tokio::test]
async fn a_body_of_a_megabyte_is_passed_once_sized_and_chunked() {
    let world = World::new();
    let (pod, heard) = pod().await;
    let body = "x".repeat(1024 * 1024);
    let sized = format!(
        "POST /s HTTP/1.1\r\nHost: web\r\nVia: 1.1 p\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let chunk = format!("{:x}\r\n{}\r\n", body.len() / 4, &body[..body.len() / 4]);
    let chunked = format!(
        "PUT /c HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(4)
    );
    let (sized, chunked, ()) = tokio::join!(world.say(sized), world.say(chunked), async {
        world.until_held(2).await;
        world.ready(pod);
    });
    assert!(sized.contains("POST /s Ok(1048576) [host via content-length connection]"), "{sized}");
    assert!(chunked.contains("PUT /c Ok(1048576)"), "{chunked}");
    let mut heard = heard.all();
    heard.sort();
    assert_eq!(heard, ["POST /s Ok(1048576)", "PUT /c Ok(1048576)"]);
}

#[tokio::test]
async fn a_request_whose_pod_has_gone_is_held_again_until_another_is_ready() {
    let world = World::new();
    let (_kept, gone) = vacant();
    world.ready(gone);
    let mut client = world.connect().await;
    client.write_all(b"POST /p HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc").await.unwrap();
    world.until_held(1).await;
    // Its ask found the app ready; this member sees the app asleep only now.
    let asked = world.asked.load(Ordering::SeqCst);
    assert!(asked >= 2, "asked {asked} times");
    world.doors.set_state(&key(), DoorState::Waiting);
    eventually(|| world.asked.load(Ordering::SeqCst) > asked).await;
    assert_eq!(world.doors.asks(&app()).held, 1);
    let (pod, heard) = pod().await;
    world.ready(pod);
    assert!(hear(&mut client).await.contains("POST /p Ok(3)"));
    assert_eq!(heard.all(), ["POST /p Ok(3)"]);
    world.until_held(0).await;
}

#[tokio::test]
async fn a_probe_whose_pod_has_gone_wakes_nothing() {
    let world = World::new();
    let (_kept, gone) = vacant();
    world.ready(gone);
    let mut client = world.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nHost: web\r\nUser-Agent: kube-probe/1.33\r\n\r\n").await.unwrap();
    eventually(|| world.doors.shared.crowd.count() == 1).await;
    world.doors.set_state(&key(), DoorState::Waiting);
    assert!(hear(&mut client).await.starts_with("HTTP/1.1 503 "));
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
    assert_eq!(world.doors.asks(&app()).total, 0);
}

#[tokio::test]
async fn a_client_that_expects_to_be_told_to_continue_is_told() {
    let world = World::new();
    let (pod, _) = pod().await;
    let mut client = world.connect().await;
    let head = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut told = [0; 25];
    timeout(Duration::from_secs(5), client.read_exact(&mut told)).await.unwrap().unwrap();
    assert!(told.starts_with(b"HTTP/1.1 100 Continue\r\n\r\n"));
    client.write_all(b"abc").await.unwrap();
    world.ready(pod);
    assert!(hear(&mut client).await.contains("POST / Ok(3)"));
}

#[tokio::test]
async fn a_websocket_is_passed_both_ways_also_by_proxies_that_want_to_be_told_of_the_upgrade() {
    let world = World::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let pod = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = vec![0; 4096];
        let length = stream.read(&mut head).await.unwrap();
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Key: 1\r\n\r\nfirst";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut frame = [0; 4];
        stream.read_exact(&mut frame).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        String::from_utf8_lossy(&head[..length]).to_ascii_lowercase()
    });
    let mut client = world.connect().await;
    let head = "GET /ws HTTP/1.1\r\nHost: web\r\nVia: 1.1 p\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    world.until_held(1).await;
    world.ready(pod);
    client.write_all(b"ping").await.unwrap();
    let answer = hear(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let told = answer.to_ascii_lowercase();
    assert!(told.contains("upgrade: websocket\r\n"), "{answer}");
    // Traefik made a 500 of it, and Caddy a 200, because they were told `Connection: close`.
    assert!(told.contains("connection: upgrade\r\n") && !told.contains("close"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nfirstping"), "{answer}");
    let head = served.await.unwrap();
    assert!(head.contains("upgrade: websocket\r\n") && head.contains("connection: upgrade\r\n"), "{head}");
}

#[tokio::test]
async fn malformed_requests_get_a_refusal_and_never_reach_a_pod() {
    let world = World::new();
    let (pod, heard) = pod().await;
    world.ready(pod);
    for head in [
        "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: w\r\nTransfer-Encoding : chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: w\r\nX: a\r\n b\r\n\r\n",
        "GET http://other/ HTTP/1.1\r\nHost: w\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: w\nX: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/3.7\r\nHost: w\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: w\r\n\r\n",
        "GET /\r\n\r\n",
    ] {
        let answer = world.say(head).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{head:?}: {answer}");
    }
    for head in ["CONNECT w:80 HTTP/1.1\r\nHost: w\r\n\r\n", "TRACE / HTTP/1.1\r\nHost: w\r\n\r\n"] {
        assert!(world.say(head).await.starts_with("HTTP/1.1 405 "), "{head:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nHost: w\r\nX: {}\r\n\r\n", "y".repeat(40_000));
    assert!(world.say(long).await.starts_with("HTTP/1.1 431 "));
    assert!(heard.all().is_empty());
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn no_second_request_is_served_on_a_kept_connection() {
    let world = World::new();
    let (pod, heard) = pod().await;
    world.ready(pod);
    let twice =
        "GET /1 HTTP/1.1\r\nHost: web\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.1\r\nHost: web\r\n\r\n";
    let answer = world.say(twice).await;
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert_eq!(heard.all(), ["GET /1 Ok(0)"]);
}

#[tokio::test]
async fn a_client_that_goes_away_frees_its_place() {
    let world = World::new();
    let mut plain = world.connect().await;
    plain.write_all(DIRECT.as_bytes()).await.unwrap();
    let mut sends = world.connect().await;
    sends.write_all(b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 9\r\n\r\nabcdefghi").await.unwrap();
    world.until_held(2).await;
    drop((plain, sends));
    world.until_held(0).await;
    eventually(|| world.doors.shared.crowd.count() == 0).await;
    assert!(world.telemetry.text().contains("answer=\"gone\"} 2"));
}

#[tokio::test]
async fn five_hundred_held_at_once_are_all_answered() {
    let world = World::new();
    let (pod, heard) = pod().await;
    let asks = join_all((0..500).map(|n| world.say(if n % 2 == 0 { DIRECT } else { PROXIED })));
    let (answers, ()) = tokio::join!(asks, async {
        world.until_held(500).await;
        world.ready(pod);
    });
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 200 ")).count(), 250);
    assert_eq!(answers.iter().filter(|answer| answer.starts_with("HTTP/1.1 307 ")).count(), 250);
    assert_eq!(heard.all().len(), 250);
    assert_eq!(world.doors.asks(&app()).total, 500);
}

#[tokio::test]
async fn what_cannot_start_is_refused_quickly_with_its_reason() {
    let world = World::new();
    let held = tokio::spawn({
        let port = world.port;
        async move { super::world::say(port, DIRECT).await }
    });
    world.until_held(1).await;
    world.fails();
    for answer in [held.await.unwrap(), world.say(PROXIED).await] {
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 7\r\n"), "{answer}");
        assert!(answer.contains("\r\nx-kubenap-reason: image\r\n"), "{answer}");
        assert!(answer.ends_with("its image cannot be pulled\n"), "{answer}");
    }
    assert_eq!(world.doors.asks(&app()).total, 2, "a failed app is asked for all the same");
}

#[tokio::test]
async fn an_ignored_request_wakes_nothing_and_is_passed_while_pods_run() {
    let world = World::new();
    let probe = "GET /x HTTP/1.1\r\nHost: web\r\nUser-Agent: kube-probe/1.34\r\n\r\n";
    assert!(world.say(probe).await.starts_with("HTTP/1.1 503 "));
    let (pod, heard) = pod().await;
    world.ready(pod);
    assert!(world.say(probe).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(heard.all().len(), 1);
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
    assert_eq!(world.doors.asks(&app()).total, 0);
}

#[tokio::test]
async fn a_slow_app_shows_the_waiting_page_to_a_browser() {
    let world =
        World::with(&OwnedManners { mode: WakeMode::Page, ..OwnedManners::default() }, Limits::default());
    let page = world
        .say("GET / HTTP/1.1\r\nHost: web\r\nAccept: text/html,*/*\r\nSec-Fetch-Mode: navigate\r\n\r\n")
        .await;
    assert!(page.starts_with("HTTP/1.1 503 "), "{page}");
    assert!(page.contains("content-security-policy: default-src 'none'"), "{page}");
    assert!(page.contains("http-equiv=\"refresh\""), "{page}");
    assert_eq!(world.doors.asks(&app()).total, 1);
}

#[tokio::test]
async fn a_program_in_java_that_says_it_takes_html_is_redirected_and_shown_no_page() {
    let world = World::new();
    let mut client = world.connect().await;
    let accepts = "Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2\r\n";
    let ask = format!(
        "GET /a HTTP/1.1\r\nHost: web\r\nX-Forwarded-For: 192.0.2.1\r\nUser-Agent: Java/17.0.13\r\n{accepts}\r\n"
    );
    client.write_all(ask.as_bytes()).await.unwrap();
    world.until_held(1).await;
    world.ready((Ipv4Addr::LOCALHOST, 9).into());
    let answer = hear(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 307 "), "{answer}");
}

#[tokio::test]
async fn a_long_wake_is_bridged_by_hops_that_end() {
    let manners = OwnedManners {
        hold_for: Duration::from_millis(50),
        wake_timeout: Duration::from_millis(120),
        ..OwnedManners::default()
    };
    let world = World::with(&manners, Limits::default());
    let mut answers = Vec::new();
    for _ in 0..8 {
        answers.push(world.say(PROXIED).await.split(' ').nth(1).unwrap().to_owned());
    }
    assert_eq!(answers[0], "307");
    assert!(answers.contains(&"503".to_owned()), "{answers:?}");
}

#[tokio::test]
async fn a_pod_that_refuses_is_tried_again_and_one_that_breaks_is_not() {
    let world = World::new();
    let (_kept, gone) = vacant();
    let (pod, heard) = pod().await;
    world.doors.set_state(&super::world::key(), crate::wake::DoorState::Ready([gone, pod].into()));
    for _ in 0..4 {
        assert!(world.say(DIRECT).await.starts_with("HTTP/1.1 200 "));
    }
    assert_eq!(heard.all().len(), 4);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    world.ready(listener.local_addr().unwrap());
    let (answer, ()) =
        tokio::join!(world.say("POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 1\r\n\r\na"), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 100]).await.unwrap() > 0);
        });
    assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    assert!(timeout(Duration::from_millis(100), listener.accept()).await.is_err(), "never sent twice");
}

#[tokio::test]
async fn leaving_answers_what_is_held_and_finishes_what_is_passed() {
    let limits = Limits {
        leave_spread: Duration::from_millis(200),
        leave_patience: Duration::from_millis(300),
        ..Limits::default()
    };
    let world = World::with(&OwnedManners::default(), limits);
    let post = "POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 1\r\n\r\na";
    let grpc = "POST /s HTTP/1.1\r\nHost: w\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\n\r\n";
    let (mut one, mut two, mut three) = (world.connect().await, world.connect().await, world.connect().await);
    one.write_all(PROXIED.as_bytes()).await.unwrap();
    two.write_all(post.as_bytes()).await.unwrap();
    three.write_all(grpc.as_bytes()).await.unwrap();
    world.until_held(3).await;
    let begun = Instant::now();
    let deadline = begun + Duration::from_secs(10);
    let (left, one, two, three) = tokio::join!(
        world.doors.drain(Duration::from_millis(50), deadline),
        hear(&mut one),
        hear(&mut two),
        hear(&mut three)
    );
    assert_eq!(left, 0);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(one.starts_with("HTTP/1.1 307 ") && one.contains("location: /a/b?c=d%20e\r\n"), "{one}");
    assert!(two.starts_with("HTTP/1.1 503 ") && two.contains("retry-after: 1\r\n"), "{two}");
    assert!(three.starts_with("HTTP/1.1 200 ") && three.contains("grpc-status: 14\r\n"), "{three}");
    assert!(tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, world.port)).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_post_that_is_held_by_a_member_that_leaves_is_answered_by_an_app_that_boots_for_half_a_minute() {
    let world = World::new();
    let (pod, heard) = pod().await;
    let mut client = world.connect().await;
    client.write_all(b"POST / HTTP/1.1\r\nHost: w\r\nContent-Length: 1\r\n\r\na").await.unwrap();
    world.until_held(1).await;
    let boots = async {
        tokio::time::sleep(Duration::from_secs(33)).await;
        world.ready(pod);
    };
    // As `kubenap run` leaves.
    let deadline = Instant::now() + Duration::from_secs(40);
    let mut answer = String::new();
    let (left, (), read) = tokio::join!(
        world.doors.drain(Duration::from_secs(6), deadline),
        boots,
        client.read_to_string(&mut answer)
    );
    read.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!((left, heard.all().len()), (0, 1));
}

#[tokio::test]
async fn a_full_house_sends_the_newest_of_the_greediest_away() {
    let world = World::with(&OwnedManners::default(), Limits { connections: 3, ..Limits::default() });
    let mut held = Vec::new();
    for n in 1..=3 {
        let mut client = world.connect().await;
        client.write_all(DIRECT.as_bytes()).await.unwrap();
        held.push(client);
        world.until_held(n).await;
    }
    let answer = world.say(DIRECT).await;
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("Retry-After: 1"), "{answer}");
    world.until_held(3).await;
}

#[tokio::test]
async fn the_count_of_each_answer_is_told() {
    let world = World::new();
    world.fails();
    world.say(DIRECT).await;
    let text = world.telemetry.text();
    assert!(
        text.contains("kubenap_asks_total{namespace=\"shop\",app=\"web\",answer=\"failed\"} 1"),
        "{text}"
    );
    assert!(text.contains("kubenap_held_requests 0"));
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_understood() {
    let world = World::new();
    let (pod, heard) = pod().await;
    world.ready(pod);
    let mut client = world.connect().await;
    let request = format!("GET /slow?{} HTTP/1.1\r\nHost: web\r\n\r\n", "x".repeat(80));
    for byte in request.as_bytes() {
        client.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(hear(&mut client).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(heard.all().len(), 1);
}
