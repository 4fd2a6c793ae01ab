//! N4: connections through the Service that say nothing, until one of them arrives at this member.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long one connection may take.
const CONNECT: Duration = Duration::from_millis(500);
/// The pause between two.
const PAUSE: Duration = Duration::from_millis(40);

/// Connects until `arrived` says so, for at most `window`, at most `tries` times.
///
/// Any connection on the wake port proves the path, so one by a client does as well. With P pods and R members a
/// connection gets here with a chance of 1 in P + R.
pub async fn prove(
    cluster_ip: IpAddr,
    port: u16,
    tries: usize,
    window: Duration,
    arrived: impl Fn() -> bool,
) {
    let end = Instant::now() + window;
    for _ in 0..tries {
        if arrived() || Instant::now() >= end {
            return;
        }
        // It is closed at once and never sends a byte, so no app takes it for a request.
        drop(timeout(CONNECT, TcpStream::connect(SocketAddr::new(cluster_ip, port))).await);
        sleep(PAUSE).await;
    }
}
