//! Serves the admin listener: every connection has a deadline, and nobody can take all the places.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::wake::{Crowd, pause_after};

/// How much the admin listener takes on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Connections at a time. Beyond it the newest of the peer with the most is cut off.
    pub(crate) connections: usize,
    /// How long the head of a request may take to arrive.
    pub(crate) head: Duration,
    /// How long the head of a request may be, in bytes.
    pub(crate) head_bytes: usize,
    /// How long a connection may take altogether. Each carries one request.
    pub(crate) whole: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            head: Duration::from_secs(10),
            head_bytes: 16 * 1024,
            whole: Duration::from_secs(30),
        }
    }
}

/// Serves until it is dropped, and with it every connection: each by the routes that are there when it comes.
///
/// `axum::serve` would install no timer: a client that dribbles its head, or never takes its answer, could then stay
/// for ever, and enough of them would keep the kubelet from its probes.
pub(crate) async fn serve(listener: TcpListener, routes: watch::Receiver<Router>, bounds: Bounds) {
    let crowd: Arc<Crowd<IpAddr>> = Crowd::new(bounds.connections, bounds.connections);
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let Some(slot) = crowd.enter(&Arc::new(peer.ip())) else { continue };
        let service = TowerToHyperService::new(routes.borrow().clone());
        connections.spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(bounds.head)
                .max_buf_size(bounds.head_bytes)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let ended = slot.shed().run_until_cancelled(timeout(bounds.whole, served)).await;
            if !matches!(ended, Some(Ok(Ok(())))) {
                tracing::debug!("an admin connection was cut off");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use axum::body::Body;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio::time::sleep;

    use super::*;

    async fn start(bounds: Bounds) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let large = get(|| async { Body::from(vec![b'x'; 32 * 1024 * 1024]) });
        let router = Router::new().route("/livez", get(|| async { "ok\n" })).route("/large", large);
        tokio::spawn(serve(listener, watch::channel(router).1, bounds));
        at
    }

    fn quick() -> Bounds {
        Bounds {
            connections: 4,
            head: Duration::from_millis(200),
            head_bytes: 8192,
            whole: Duration::from_millis(500),
        }
    }

    async fn says(stream: &mut TcpStream, text: &[u8]) -> String {
        stream.write_all(text).await.unwrap();
        rest(stream).await
    }

    async fn rest(stream: &mut TcpStream) -> String {
        let mut heard = Vec::new();
        let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut heard));
        read.await.expect("it is never cut off").ok();
        String::from_utf8_lossy(&heard).into_owned()
    }

    const LIVEZ: &[u8] = b"GET /livez HTTP/1.1\r\nHost: k\r\n\r\n";

    #[tokio::test]
    async fn a_head_that_dribbles_or_never_comes_is_cut_off() {
        let at = start(Bounds { whole: Duration::from_mins(1), ..quick() }).await;
        let mut silent = TcpStream::connect(at).await.unwrap();
        let mut slow = TcpStream::connect(at).await.unwrap();
        let dribble = async {
            for byte in LIVEZ {
                if slow.write_all(&[*byte]).await.is_err() {
                    break;
                }
                sleep(Duration::from_millis(20)).await;
            }
            rest(&mut slow).await
        };
        let (silent, slow) = tokio::join!(rest(&mut silent), dribble);
        assert!(silent.is_empty(), "{silent}");
        assert!(!slow.contains("200 OK"), "{slow}");
    }

    #[tokio::test]
    async fn an_answer_that_nobody_takes_is_cut_off() {
        let at = start(quick()).await;
        let mut deaf = TcpStream::connect(at).await.unwrap();
        deaf.write_all(b"GET /large HTTP/1.1\r\nHost: k\r\n\r\n").await.unwrap();
        sleep(Duration::from_secs(1)).await;
        let heard = rest(&mut deaf).await;
        assert!(heard.starts_with("HTTP/1.1 200 ") && heard.len() < 32 * 1024 * 1024);
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused_and_a_connection_carries_one_request() {
        let at = start(quick()).await;
        let mut long = TcpStream::connect(at).await.unwrap();
        let head = format!("GET /livez HTTP/1.1\r\nHost: k\r\nX: {}\r\n\r\n", "y".repeat(20_000));
        assert!(says(&mut long, head.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        let mut twice = TcpStream::connect(at).await.unwrap();
        let answer = says(&mut twice, &[LIVEZ, LIVEZ].concat()).await;
        assert_eq!(answer.matches("HTTP/1.1 200 ").count(), 1, "{answer}");
    }

    #[tokio::test]
    async fn a_peer_with_many_connections_does_not_keep_a_probe_out() {
        let bounds = Bounds { head: Duration::from_mins(1), whole: Duration::from_mins(1), ..quick() };
        let at = start(bounds).await;
        let mut flood = Vec::new();
        for _ in 0..20 {
            flood.push(TcpStream::connect(at).await.unwrap());
        }
        let other = TcpSocket::new_v4().unwrap();
        other.bind((Ipv4Addr::new(127, 0, 0, 2), 0).into()).unwrap();
        let mut probe = other.connect(at).await.unwrap();
        assert!(says(&mut probe, LIVEZ).await.starts_with("HTTP/1.1 200 "));
    }
}
