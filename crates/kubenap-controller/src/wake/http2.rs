//! HTTP/2 without TLS: streams are answered one by one, and the connection is ended once its app is ready.

use std::convert::Infallible;
use std::future::pending;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::client::conn::http2::{self as client, SendRequest};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use kubenap_core::answer::{Readiness, Way};
use tokio::sync::{Mutex, watch};
use tokio::time::{sleep, timeout, timeout_at};

use super::ask::WaitAgain;
use super::connection::{Connection, Entry, HeadRoom};
use super::pass::{Pass, PassError, Upstream, connect};
use super::reply::{self, WakeBody};
use super::stream::Replayed;
use super::visit;

/// How long a connection may take for its first stream once it is to end.
const FIRST_STREAM: Duration = Duration::from_secs(5);

/// Serves a connection to its end.
pub(crate) async fn serve(stream: Replayed, connection: Connection) {
    let limits = connection.shared.limits.clone();
    let upstream = Upstream::Http2(Arc::default());
    let asked = Arc::new(watch::Sender::new(0_u64));
    let service = {
        let (connection, asked) = (connection.clone(), Arc::clone(&asked));
        service_fn(move |request| {
            asked.send_modify(|count| *count = count.wrapping_add(1));
            let (connection, upstream) = (connection.clone(), upstream.clone());
            async move {
                // All streams of all connections together, or the heads alone could fill the memory.
                let mut room = HeadRoom::new(&connection.shared);
                if !room.grow_to(length_of_head(&request)) {
                    let line = "too many requests wait";
                    return Ok::<_, Infallible>(reply::unavailable(line, Duration::from_secs(1)));
                }
                Ok(visit::respond(&connection, upstream, request).await)
            }
        })
    };
    let served = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.http2_streams)
        .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = time_to_go(&connection, &asked) => None,
        // HTTP/2 itself waits for ever for the head of a stream.
        () = never_asks(asked.subscribe(), limits.head_deadline) => return,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        served.as_mut().graceful_shutdown();
        served.await
    };
    if let Err(error) = ended {
        tracing::trace!(%error, "a client left early");
    }
}

fn length_of_head<B>(request: &Request<B>) -> usize {
    let fields = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len());
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    fields.sum::<usize>() + target
}

/// Ends when the connection should. It may have to carry a first stream before: a client whose connection is
/// ended under its hands would come again and again.
async fn time_to_go(connection: &Connection, asked: &watch::Sender<u64>) {
    let mut first = asked.subscribe();
    let mut later = asked.subscribe();
    let idle = connection.shared.limits.http2_idle;
    let idle = async { while matches!(timeout(idle, later.changed()).await, Ok(Ok(()))) {} };
    let first_stream = async {
        if matches!(timeout(FIRST_STREAM, first.wait_for(|count| *count > 0)).await, Ok(Ok(_))) {
            // The stream is under way, and those that came in the same breath are.
            sleep(Duration::from_millis(1)).await;
        }
    };
    match &connection.entry {
        Entry::ErrorPath(..) => first_stream.await,
        Entry::WakePort(door, slot) => {
            let mut states = door.watch();
            let ready = async {
                if states.wait_for(|state| state.readiness(Way::WakePort) == Readiness::Ready).await.is_err()
                {
                    pending::<()>().await;
                }
                first_stream.await;
            };
            tokio::select! {
                () = ready => {}
                () = slot.shed().cancelled() => {}
                () = idle => {}
                () = connection.shared.leaving.cancelled() => {}
            }
        }
    }
}

/// Ends if no stream begins within `time`, and otherwise never.
async fn never_asks(mut asked: watch::Receiver<u64>, time: Duration) {
    if matches!(timeout(time, asked.wait_for(|count| *count > 0)).await, Ok(Ok(_))) {
        pending::<()>().await;
    }
}

/// The one connection to a pod that carries all streams of one client's connection.
#[derive(Default)]
pub(crate) struct PodConnection {
    sender: Mutex<Option<SendRequest<WakeBody>>>,
}

impl PodConnection {
    pub(crate) async fn send(
        &self,
        pass: &Pass<'_>,
        mut request: Request<WakeBody>,
    ) -> Result<Response<WakeBody>, PassError> {
        for last in [false, true] {
            let mut sender =
                timeout_at(pass.until, self.sender(pass)).await.map_err(|_| PassError::TooLong)??;
            if sender.ready().await.is_err() && !last {
                continue;
            }
            let answer = timeout(pass.shared.limits.response_head, sender.try_send_request(request)).await;
            let mut error = match answer {
                Err(_) => return Err(PassError::Silent),
                Ok(Ok(response)) => return Ok(response.map(|body| body.map_err(Into::into).boxed_unsync())),
                Ok(Err(error)) => error,
            };
            match error.take_message() {
                Some(untouched) => request = untouched,
                None => return Err(PassError::Broken),
            }
        }
        Err(PassError::Broken)
    }

    async fn sender(&self, pass: &Pass<'_>) -> Result<SendRequest<WakeBody>, PassError> {
        let mut kept = if let Ok(kept) = self.sender.try_lock() {
            kept
        } else {
            // Somebody connects, perhaps for a request that wakes nothing.
            let mut wait = WaitAgain::new(pass.ask);
            wait.tell();
            self.sender.lock().await
        };
        if let Some(sender) = kept.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let stream = connect(pass.shared, pass.door, pass.ask, pass.until).await?;
        let (sender, connection) = client::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|_| PassError::Broken)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::trace!(%error, "a pod's connection ended early");
            }
        });
        *kept = Some(sender.clone());
        Ok(sender)
    }
}
