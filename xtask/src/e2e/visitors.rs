//! Visitors who keep coming while something goes wrong, each with an ordinary client's patience, and what they met.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::http::{Call, Caller};
use super::say;

/// How a client goes on when nobody answers: it tries again after each of these pauses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// How often it tries again.
    pub(crate) tries: u32,
    /// How long it waits before it does.
    pub(crate) pause: Duration,
}

impl Patience {
    /// Whatever is not answered at once is lost.
    pub(crate) const NONE: Self = Self { tries: 0, pause: Duration::ZERO };
    /// What most HTTP clients can be told to do, and many do unasked.
    pub(crate) const ORDINARY: Self = Self { tries: 2, pause: Duration::from_millis(200) };
}

/// The visitors of one app.
#[derive(Default)]
pub(crate) struct Visitors {
    all: JoinSet<()>,
    tally: Arc<Tally>,
}

#[derive(Default)]
struct Tally {
    over: AtomicBool,
    requests: AtomicU64,
    retried: AtomicU64,
    redirected: AtomicU64,
    longest_ms: AtomicU64,
    lost: Mutex<Vec<String>>,
}

/// What they met.
#[derive(Debug)]
pub(crate) struct Met {
    /// How many requests there were, each counted once.
    pub(crate) requests: u64,
    /// How many of them were answered only when tried again.
    pub(crate) retried: u64,
    /// How many were redirected on their way.
    pub(crate) redirected: u64,
    /// The longest that one of them took, in milliseconds.
    pub(crate) longest_ms: u64,
    /// One line about each that ended without the app's answer.
    pub(crate) lost: Vec<String>,
}

impl Visitors {
    /// One more, who comes again this long after each answer.
    pub(crate) fn invite(&mut self, who: &str, caller: Caller, every: Duration, patience: Patience) {
        self.invite_with(who, caller, every, patience, |number| Call::get(format!("/visit?n={number}")));
    }

    /// The same with calls of another kind, each made from its number.
    pub(crate) fn invite_with(
        &mut self,
        who: &str,
        caller: Caller,
        every: Duration,
        patience: Patience,
        call: fn(u64) -> Call,
    ) {
        let (tally, who) = (Arc::clone(&self.tally), who.to_owned());
        self.all.spawn(async move {
            let mut caller = caller;
            for number in 0u64.. {
                if tally.over.load(Ordering::Relaxed) {
                    return;
                }
                visit(&tally, &who, &mut caller, &call(number), patience).await;
                sleep(every).await;
            }
        });
    }

    /// One request, made once.
    pub(crate) fn ask(&mut self, who: &str, caller: Caller, call: Call, patience: Patience) {
        let (tally, who) = (Arc::clone(&self.tally), who.to_owned());
        self.all.spawn(async move {
            let mut caller = caller;
            visit(&tally, &who, &mut caller, &call, patience).await;
        });
    }

    /// How many answers there were so far.
    pub(crate) fn answered(&self) -> u64 {
        self.tally.requests.load(Ordering::Relaxed)
    }

    /// Nobody comes any more; waits for those who are still being answered.
    pub(crate) async fn end(mut self) -> Result<Met> {
        self.tally.over.store(true, Ordering::Relaxed);
        while let Some(visitor) = self.all.join_next().await {
            visitor.context("a visitor panicked")?;
        }
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        let tally = &self.tally;
        Ok(Met {
            requests: count(&tally.requests),
            retried: count(&tally.retried),
            redirected: count(&tally.redirected),
            longest_ms: count(&tally.longest_ms),
            lost: tally.lost.lock().map(|lost| lost.clone()).unwrap_or_default(),
        })
    }
}

impl Met {
    /// Fails unless every single request ended in the app's answer, and there were at least so many.
    pub(crate) fn ensure_none_lost(&self, what: &str, at_least: u64) -> Result<()> {
        let (lost, requests) = (self.lost.len(), self.requests);
        ensure!(lost == 0, "{what}: {lost} of {requests} requests were lost:\n{}", self.lost.join("\n"));
        ensure!(requests >= at_least, "{what}: only {requests} requests, at least {at_least} are needed");
        Ok(())
    }
}

/// Redirects are followed as often as a browser does; a request's patience is for all of its way.
const MOST_REDIRECTS: usize = 20;

async fn visit(tally: &Tally, who: &str, caller: &mut Caller, call: &Call, patience: Patience) {
    let begun = Instant::now();
    let mut tried = 0;
    let answered = loop {
        let journey = caller.follow(call, MOST_REDIRECTS).await;
        // A proxy that cannot reach the one it chose says so by these two.
        let unanswered = journey.as_ref().map_or(true, |journey| matches!(journey.reply.status, 502 | 504));
        if !unanswered || tried == patience.tries {
            break journey;
        }
        tried += 1;
        sleep(patience.pause).await;
    };
    let ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let answered = answered.and_then(|journey| {
        let redirects = journey.redirects.len() as u64;
        tally.redirected.fetch_add(redirects.min(1), Ordering::Relaxed);
        journey.reply.ensure_from_app()
    });
    tally.requests.fetch_add(1, Ordering::Relaxed);
    tally.retried.fetch_add(u64::from(tried > 0), Ordering::Relaxed);
    tally.longest_ms.fetch_max(ms, Ordering::Relaxed);
    if let Err(error) = answered {
        let line = format!("{who}, after {ms} ms and {} tries: {error:#}", tried + 1);
        say(&format!("LOST: {line}"));
        if let Ok(mut lost) = tally.lost.lock() {
            lost.push(line);
        }
    }
}
