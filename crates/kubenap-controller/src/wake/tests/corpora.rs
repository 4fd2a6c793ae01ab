//! Corpora of requests that want a redirect elsewhere, or two programs to read them differently; a verdict for each line.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;

use kubenap_core::proxy::Proxy;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::world::{World, hear, key, pod};
use crate::wake::{DoorState, HostRule, serve_proxy};

pub(super) const REDIRECTS: &str = include_str!("../../../tests/corpus/redirects.txt");
const SMUGGLING: &str = include_str!("../../../tests/corpus/smuggling.txt");

/// The lines of a corpus: verdict, and the bytes that `\r`, `\n`, `\t`, `\\` and `\xNN` stand in for.
pub(super) fn lines(corpus: &str) -> impl Iterator<Item = (&str, Vec<u8>)> {
    corpus.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let (verdict, text) = line.split_once('|').unwrap();
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            let escaped = if byte == b'\\' { rest.next() } else { None };
            bytes.push(match escaped {
                None => byte,
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'x') => {
                    let hex: String = rest.by_ref().take(2).map(char::from).collect();
                    u8::from_str_radix(&hex, 16).unwrap()
                }
                Some(other) => other,
            });
        }
        (verdict, bytes)
    })
}

async fn say(port: u16, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    hear(&mut stream).await
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("nothing")
}

#[tokio::test]
async fn no_line_of_the_corpus_is_redirected_to_another_host() {
    let world = World::new();
    let rule = HostRule { host: "web.example".into(), path: "/".into(), exact: false, key: key() };
    world.doors.set_hosts(vec![rule], Vec::new());
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(serve_proxy(listener, Proxy::default(), world.doors.clone(), CancellationToken::new()));
    let too_long = format!("GET /wake?original=/{}", "a".repeat(8 * 1024)).into_bytes();
    let longest = format!("GET /wake?original=/{}", "a".repeat(8 * 1024 - 1)).into_bytes();
    let fits = format!("to /{}", "a".repeat(8 * 1024 - 1));
    let bounds = [("400", too_long), (fits.as_str(), longest)];
    let mut count = 0;
    for (verdict, target) in lines(REDIRECTS).chain(bounds) {
        world.doors.set_state(&key(), DoorState::Waiting);
        let asked = world.asked.load(Ordering::SeqCst);
        let request = [&target, &b" HTTP/1.1\r\nHost: web.example\r\n\r\n"[..]].concat();
        let shown = request.escape_ascii();
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        client.write_all(&request).await.unwrap();
        let answer = if let Some(location) = verdict.strip_prefix("to ") {
            world.until_held(1).await;
            world.ready((Ipv4Addr::LOCALHOST, 9).into());
            let answer = hear(&mut client).await;
            assert!(answer.contains(&format!("\r\nlocation: {location}\r\n")), "{shown}: {answer}");
            assert!(answer.contains("\r\ncache-control: no-store\r\n"), "{shown}: {answer}");
            assert_eq!(status(&answer), "307", "{shown}");
            answer
        } else {
            let answer = hear(&mut client).await;
            assert_eq!(status(&answer), verdict, "{shown}");
            assert_eq!(world.asked.load(Ordering::SeqCst), asked, "{shown} wakes");
            answer
        };
        let locations = answer.to_ascii_lowercase().matches("location:").count();
        assert_eq!(locations, usize::from(verdict.starts_with("to ")), "{shown}: {answer}");
        count += 1;
    }
    assert!(count > 60, "only {count} lines");
}

#[tokio::test]
async fn every_line_of_the_corpus_is_refused_or_passed_in_exactly_one_form() {
    let world = World::new();
    let (pod, heard) = pod().await;
    let mut count = 0;
    for (verdict, request) in lines(SMUGGLING) {
        // To an app that is ready, and to one that becomes so while the request is held.
        for held in [false, true] {
            world.doors.set_state(&key(), DoorState::Waiting);
            let before = heard.all().len();
            let answer = if held {
                let (answer, ()) = tokio::join!(say(world.port, &request), async {
                    for _ in 0..50 {
                        tokio::task::yield_now().await;
                    }
                    world.ready(pod);
                });
                answer
            } else {
                world.ready(pod);
                say(world.port, &request).await
            };
            let shown = format!("{} (held: {held}): {answer}", request.escape_ascii());
            let heard = heard.all().split_off(before);
            if let Some(form) = verdict.strip_prefix("pass ") {
                let (first, length) = form.rsplit_once(' ').unwrap();
                assert_eq!(status(&answer), "200", "{shown}");
                assert_eq!(heard, [format!("{first} Ok({length})")], "{shown}");
                assert_eq!(answer.matches("HTTP/1.").count(), 1, "{shown}");
            } else if verdict == "spoiled" {
                assert_eq!(status(&answer), "400", "{shown}");
                assert!(heard.iter().all(|line| line.contains("Err(")), "{shown}: {heard:?}");
            } else {
                assert_eq!(status(&answer), verdict, "{shown}");
                assert!(heard.is_empty(), "{shown}: {heard:?}");
            }
        }
        count += 1;
    }
    assert!(count > 80, "only {count} lines");
}
