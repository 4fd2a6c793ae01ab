//! Wake ports: bound on every advertised address, accepted in a tight loop.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Entry, serve, turn_away};
use super::door::Door;
use super::doors::{OpenError, Shared};

/// What the system keeps for us until we accept; it cuts this to its own limit.
const BACKLOG: i32 = 4096;

/// What a listener needs to know.
pub(crate) struct Entrance {
    pub(crate) shared: Arc<Shared>,
    pub(crate) door: Arc<Door>,
    pub(crate) arrivals: Arc<AtomicU64>,
    pub(crate) stop: CancellationToken,
}

/// Listens on `port` of all addresses, or of none.
pub(crate) fn bind_all(addresses: &[IpAddr], port: u16) -> Result<Vec<TcpListener>, OpenError> {
    if addresses.is_empty() {
        return Err(OpenError::NoAddress);
    }
    addresses
        .iter()
        .map(|&address| {
            bind(SocketAddr::new(address, port)).map_err(|source| match source.kind() {
                io::ErrorKind::AddrInUse => OpenError::Busy { port, address },
                _ => OpenError::Listen { port, address, source },
            })
        })
        .collect()
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A member that restarts meets connections of its predecessor that the system has not forgotten.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until told to stop, and then what the system had already taken for us.
pub(crate) async fn accept(listener: TcpListener, entrance: Entrance) {
    let welcome = |stream: TcpStream, peer: SocketAddr| {
        entrance.arrivals.fetch_add(1, Ordering::Relaxed);
        keep_alive(&stream);
        let Entrance { shared, door, .. } = &entrance;
        let Some(slot) = shared.crowd.enter(&door.key) else {
            shared.tasks.spawn(turn_away(stream));
            return;
        };
        let entry = Entry::WakePort(Arc::clone(door), Arc::new(slot));
        let connection = Connection { shared: Arc::clone(shared), peer: peer.ip(), entry };
        shared.tasks.spawn(serve(stream, connection));
    };
    while let Some(accepted) = entrance.stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => welcome(stream, peer),
            Err(error) => pause_after(&error).await,
        }
    }
    while let Some(Ok((stream, peer))) = futures::FutureExt::now_or_never(listener.accept()) {
        welcome(stream, peer);
    }
}

/// Out of descriptors or memory: a loop without a pause would only burn the processor.
pub(crate) async fn pause_after(error: &io::Error) {
    let of_the_client = matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    );
    if !of_the_client {
        tracing::warn!(%error, "cannot accept connections; hint: raise the limit of open files");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets the system find out that the other side is gone without a word; small packets go out at once.
pub(crate) fn keep_alive(stream: &TcpStream) {
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    if SockRef::from(stream).set_tcp_keepalive(&probes).and_then(|()| stream.set_nodelay(true)).is_err() {
        tracing::debug!("a socket refuses its options");
    }
}
