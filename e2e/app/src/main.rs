//! The web app that the end-to-end tests put to sleep and wake: it says who answered what, and stops like a polite app.
//!
//! Settings come from the environment: `BOOT_MS` (waits so long before it listens), `STOP_MS` (serves on so long after
//! SIGTERM, 2500 unless said), `STOP_UNREADY` (if set, its readiness fails from SIGTERM on), `HOSTNAME` (the pod's name,
//! set by the kubelet).

mod answer;
mod websocket;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::answer::App;

/// The first port's number, and the second's.
const PORTS: [u16; 2] = [8080, 9090];
/// How long requests under way may take once the listening has ended.
const FAREWELL: Duration = Duration::from_secs(5);
/// Those who connected last have sent their requests by then.
const LAST: Duration = Duration::from_millis(300);

#[tokio::main]
async fn main() -> io::Result<()> {
    let mut stop = signal(SignalKind::terminate())?;
    let boot = milliseconds("BOOT_MS", 0)?;
    tokio::select! {
        () = tokio::time::sleep(boot) => {}
        _ = stop.recv() => return Ok(()),
    }

    let unready = std::env::var_os("STOP_UNREADY").is_some();
    let app = Arc::new(App::new(std::env::var("HOSTNAME").unwrap_or_default(), unready));
    let open = GracefulShutdown::new();
    let first = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORTS[0])).await?;
    let second = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORTS[1])).await?;
    let serve = async {
        loop {
            let (accepted, port) = tokio::select! {
                accepted = first.accept() => (accepted, PORTS[0]),
                accepted = second.accept() => (accepted, PORTS[1]),
            };
            // An accept that fails (a peer gone already, too many files) says nothing about the next one.
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            serve_connection(&app, &open, stream, port);
        }
    };
    let told_to_stop = async {
        stop.recv().await;
        app.say_goodbye();
        tokio::time::sleep(milliseconds("STOP_MS", 2500)?).await;
        io::Result::Ok(())
    };
    tokio::select! {
        () = serve => {}
        stopped = told_to_stop => stopped?,
    }
    for (listener, port) in [(first, PORTS[0]), (second, PORTS[1])] {
        close(listener, |stream| serve_connection(&app, &open, stream, port))?;
    }
    tokio::time::sleep(LAST).await;
    tokio::select! {
        () = open.shutdown() => {}
        () = tokio::time::sleep(FAREWELL) => {}
    }
    Ok(())
}

/// Ends the listening; whoever is connected already, and only waits to be accepted, would be cut off with it.
fn close(listener: TcpListener, mut serve: impl FnMut(TcpStream)) -> io::Result<()> {
    let listener = listener.into_std()?;
    while let Ok((stream, _)) = listener.accept() {
        stream.set_nonblocking(true)?;
        serve(TcpStream::from_std(stream)?);
    }
    Ok(())
}

fn serve_connection(app: &Arc<App>, open: &GracefulShutdown, stream: TcpStream, port: u16) {
    let app = Arc::clone(app);
    let server = auto::Builder::new(TokioExecutor::new());
    let service = service_fn(move |request| {
        let app = Arc::clone(&app);
        async move { app.answer(request, port).await }
    });
    let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
    let connection = open.watch(connection);
    tokio::spawn(async move {
        // A caller that leaves early is the caller's affair.
        drop(connection.await);
    });
}

fn milliseconds(name: &str, otherwise: u64) -> io::Result<Duration> {
    match std::env::var(name) {
        Ok(text) => text.parse().map(Duration::from_millis).map_err(|_| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{name} is {text:?}: not milliseconds"))
        }),
        Err(_) => Ok(Duration::from_millis(otherwise)),
    }
}
