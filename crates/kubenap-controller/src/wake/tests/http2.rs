//! HTTP/2 without TLS on a wake port.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::world::World;
use crate::wake::reply::{WakeBody, full};

/// A pod that sends each piece of a request back as it comes, and a trailer.
async fn streaming_pod() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|request: Request<Incoming>| async move {
                let te = request.headers().get("te").cloned();
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                let pieces = request.into_body().into_data_stream().map(|piece| piece.map(Frame::data));
                let end = futures::stream::iter([Ok(Frame::trailers(trailers))]);
                let mut response = Response::new(StreamBody::new(pieces.chain(end)));
                if let Some(te) = te {
                    response.headers_mut().insert("x-te", te);
                }
                Ok::<_, Infallible>(response)
            });
            let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

async fn client(world: &World) -> (SendRequest<WakeBody>, JoinHandle<Result<(), hyper::Error>>) {
    let stream = world.connect().await;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn call(body: WakeBody) -> Request<WakeBody> {
    Request::post("http://web/p.Service/Call")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(body)
        .unwrap()
}

#[tokio::test]
async fn a_held_call_is_passed_with_its_trailers_and_the_connection_ends() {
    let world = World::new();
    let (mut sender, connection) = client(&world).await;
    let (answer, ()) = tokio::join!(sender.send_request(call(full("hello"))), async {
        world.until_held(1).await;
        world.ready(streaming_pod().await);
    });
    let answer = answer.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["x-te"], "trailers");
    let body = answer.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(body.to_bytes(), "hello");
    // GOAWAY: the connection ends although the client still holds it.
    let ended = timeout(Duration::from_secs(5), connection).await.expect("no GOAWAY");
    assert!(ended.unwrap().is_ok());
    assert!(sender.is_closed());
}

#[tokio::test]
async fn a_call_streams_both_ways_while_it_is_passed() {
    let world = World::new();
    world.ready(streaming_pod().await);
    let (mut sender, _connection) = client(&world).await;
    let (mut pieces, body) = mpsc::channel::<Result<Frame<Bytes>, crate::wake::reply::BodyError>>(1);
    let answer = sender.send_request(call(StreamBody::new(body).boxed_unsync())).await.unwrap();
    let mut answer = answer.into_body();
    for piece in ["one", "two", "three"] {
        pieces.send(Ok(Frame::data(Bytes::from(piece)))).await.unwrap();
        let back = timeout(Duration::from_secs(5), answer.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(back.into_data().unwrap(), piece);
    }
    drop(pieces);
    let end = timeout(Duration::from_secs(5), answer.frame()).await.unwrap().unwrap().unwrap();
    assert_eq!(end.into_trailers().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn streams_of_one_connection_are_answered_each_for_itself() {
    let world = World::new();
    let (sender, _connection) = client(&world).await;
    let calls = (0..20).map(|_| {
        let mut sender = sender.clone();
        async move { sender.send_request(call(full("x"))).await.unwrap().status() }
    });
    let gone = tokio::spawn({
        let mut sender = sender.clone();
        async move { sender.send_request(call(full("gone"))).await.map(drop) }
    });
    let (statuses, ()) = tokio::join!(futures::future::join_all(calls), async {
        world.until_held(21).await;
        gone.abort();
        world.until_held(20).await;
        world.ready(streaming_pod().await);
    });
    assert!(statuses.iter().all(|status| *status == 200));
}

#[tokio::test]
async fn a_failed_app_is_told_to_grpc_in_its_own_way() {
    let world = World::new();
    world.fails();
    let (mut sender, _connection) = client(&world).await;
    let answer = sender.send_request(call(full("x"))).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
}
