//! Load: a fixed rate whose schedule waits for nobody, and as much as some callers get through.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::runtime::Handle;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::Instant;

use super::figures::Values;
use crate::e2e::http::{Call, Caller};

/// Calls so many times a second for so long. Each latency counts from the moment at which the call was due, so that a
/// slow answer does not hide the calls that it kept waiting. In milliseconds.
///
/// The schedule is kept by a thread of its own: the runtime's timer knows whole milliseconds only, and where between two
/// of them a schedule happens to begin would be part of every latency of a turn.
pub(crate) async fn at_rate(to: SocketAddr, host: &str, rate: u32, span: Duration) -> Result<Values> {
    let calls = u32::try_from(span.as_secs()).unwrap_or(u32::MAX).saturating_mul(rate);
    let (runtime, host) = (Handle::current(), host.to_owned());
    let scheduled = spawn_blocking(move || schedule(&runtime, to, &host, rate, calls));
    let mut latencies = Vec::new();
    for call in scheduled.await?.join_all().await {
        latencies.push(milliseconds(call?));
    }
    ensure!(latencies.len() == calls as usize, "{} of {calls} calls were answered", latencies.len());
    Ok(Values::of(latencies))
}

/// Starts each call when it is due.
#[expect(clippy::disallowed_methods, reason = "a thread for nothing else may sleep")]
fn schedule(
    runtime: &Handle,
    to: SocketAddr,
    host: &str,
    rate: u32,
    calls: u32,
) -> JoinSet<Result<Duration>> {
    let idle = Arc::new(Mutex::new(Vec::<Caller>::new()));
    let begun = Instant::now() + Duration::from_millis(100);
    let mut under_way = JoinSet::new();
    for nth in 0..calls {
        let due = begun + Duration::from_secs(1) * nth / rate;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let (idle, host) = (Arc::clone(&idle), host.to_owned());
        let call = async move {
            let kept = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut caller = kept.unwrap_or_else(|| Caller::kept(to, host));
            let answered = caller.send(&Call::get("/")).await.and_then(|reply| reply.ensure_from_app());
            let latency = due.elapsed();
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(caller);
            answered.map(|()| latency)
        };
        under_way.spawn_on(call, runtime);
    }
    under_way
}

/// So many callers, each calling again as soon as it has its answer: answers a second.
#[expect(clippy::cast_precision_loss, reason = "counts of measurements are small")]
pub(crate) async fn at_full_speed(to: SocketAddr, host: &str, callers: usize, span: Duration) -> Result<f64> {
    let end = Instant::now() + span;
    let mut all = JoinSet::new();
    for _ in 0..callers {
        let mut caller = Caller::kept(to, host);
        all.spawn(async move {
            let mut answers = 0_u64;
            while Instant::now() < end {
                caller.send(&Call::get("/")).await?.ensure_from_app()?;
                answers += 1;
            }
            anyhow::Ok(answers)
        });
    }
    let mut answers = 0;
    while let Some(done) = all.join_next().await {
        answers += done??;
    }
    Ok(answers as f64 / span.as_secs_f64())
}

pub(crate) fn milliseconds(span: Duration) -> f64 {
    span.as_secs_f64() * 1000.0
}
