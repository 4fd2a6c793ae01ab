//! What is not HTTP on a wake port, and the ports themselves.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::Ordering;
use std::time::Duration;

use kubenap_core::answer::OwnedManners;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::world::{World, app, eventually, hear, key, vacant};
use crate::wake::{DoorKey, DoorSpec, DoorState, OpenError};

/// A pod that speaks first, and then says back what it hears.
async fn greeter() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(b"220 hello\r\n").await.unwrap();
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.ok();
            });
        }
    });
    address
}

#[tokio::test]
async fn tls_is_held_and_spliced_byte_for_byte() {
    let world = World::new();
    let mut client = world.connect().await;
    client.write_all(b"\x16\x03\x01\x00\x05hello").await.unwrap();
    world.until_held(1).await;
    world.ready(greeter().await);
    let mut heard = [0; 21];
    timeout(Duration::from_secs(5), client.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"220 hello\r\n\x16\x03\x01\x00\x05hello");
    client.write_all(b"more").await.unwrap();
    client.shutdown().await.unwrap();
    assert_eq!(hear(&mut client).await, "more");
}

#[tokio::test]
async fn a_protocol_in_which_the_server_speaks_first_wakes_its_app() {
    let world = World::new();
    let mut client = world.connect().await;
    world.until_held(1).await;
    world.ready(greeter().await);
    let mut heard = [0; 11];
    timeout(Duration::from_secs(5), client.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(&heard, b"220 hello\r\n");
}

#[tokio::test]
async fn a_connection_whose_pod_has_gone_asks_again_and_counts_as_held() {
    let world = World::new();
    let (_kept, gone) = vacant();
    world.ready(gone);
    let mut client = world.connect().await;
    client.write_all(b"\x16\x03\x01").await.unwrap();
    world.until_held(1).await;
    let asked = world.asked.load(Ordering::SeqCst);
    world.doors.set_state(&key(), DoorState::Waiting);
    eventually(|| world.asked.load(Ordering::SeqCst) > asked).await;
    world.ready(greeter().await);
    let mut heard = [0; 11];
    timeout(Duration::from_secs(5), client.read_exact(&mut heard)).await.unwrap().unwrap();
    world.until_held(0).await;
    assert_eq!(world.doors.asks(&app()).total, 1, "it is one request still");
}

#[tokio::test]
async fn a_client_that_has_said_all_still_gets_its_answer() {
    let world = World::new();
    let mut client = world.connect().await;
    client.write_all(b"stats\r\n").await.unwrap();
    client.shutdown().await.unwrap();
    world.until_held(1).await;
    world.ready(greeter().await);
    assert_eq!(hear(&mut client).await, "220 hello\r\nstats\r\n");
}

#[tokio::test]
async fn a_connection_without_a_word_is_an_arrival_and_no_ask() {
    let world = World::new();
    for _ in 0..3 {
        drop(world.connect().await);
    }
    eventually(|| world.doors.arrivals(world.port) == 3).await;
    eventually(|| world.doors.shared.crowd.count() == 0).await;
    assert_eq!(world.doors.asks(&app()).total, 0);
    assert_eq!(world.asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn a_sealed_client_that_goes_frees_its_place_and_a_failed_app_hangs_up() {
    let world = World::new();
    let mut client = world.connect().await;
    client.write_all(b"\x16\x03\x01").await.unwrap();
    world.until_held(1).await;
    drop(client);
    world.until_held(0).await;
    world.fails();
    assert_eq!(world.say(b"\x16\x03\x01").await, "");
}

#[tokio::test]
async fn a_port_is_one_door_only_and_may_be_opened_again() {
    let world = World::new();
    let spec = |key| DoorSpec { key, apps: vec![app()], manners: OwnedManners::default() };
    world.doors.open(world.port, spec(key())).unwrap();
    let other = DoorKey { port: 81, ..key() };
    assert!(matches!(world.doors.open(world.port, spec(other.clone())), Err(OpenError::Taken { .. })));
    let busy = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = busy.local_addr().unwrap().port();
    assert!(!world.doors.probe_port(port));
    let refusal = world.doors.open(port, spec(other)).unwrap_err();
    assert!(matches!(refusal, OpenError::Busy { .. }), "{refusal}");
    assert_eq!(world.doors.open_ports(), [(world.port, key())].into());
}

#[tokio::test]
async fn a_port_closes_in_time_unless_it_is_wanted_again() {
    let world = World::new();
    let spec = DoorSpec { key: key(), apps: vec![app()], manners: OwnedManners::default() };
    world.doors.close(world.port, Duration::from_millis(50));
    world.doors.open(world.port, spec).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(world.connect().await);
    world.doors.close(world.port, Duration::from_millis(10));
    eventually(|| world.doors.open_ports().is_empty()).await;
    eventually(|| world.doors.probe_port(world.port)).await;
}
