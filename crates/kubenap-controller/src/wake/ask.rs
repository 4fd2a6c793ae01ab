//! What a request is, for the table of answers; and that it was one, for the controller and the metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{
    ACCEPT, ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT, VIA,
};
use http::{HeaderMap, HeaderName, Request, Version};
use http_body::Body;
use kubenap_core::answer::{self, Readiness, Way};

use super::door::AppAsks;
use super::doors::Shared;
use crate::telemetry::AskAnswer;

/// Reads a request's head for [`answer::answer`].
pub(crate) fn read<B: Body>(request: &Request<B>, way: Way) -> answer::Request<'_> {
    let headers = request.headers();
    answer::Request {
        method: request.method().as_str(),
        path: request.uri().path(),
        user_agent: text(headers, &USER_AGENT),
        way,
        forwarded: is_forwarded(headers),
        navigation: is_navigation(headers),
        upgrade: wants_upgrade(request),
        grpc: text(headers, &CONTENT_TYPE).to_ascii_lowercase().starts_with("application/grpc"),
        h2c: request.version() == Version::HTTP_2,
        preflight: request.method() == "OPTIONS" && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD),
        body: has_body(request),
    }
}

/// Whether it asks for another protocol that can be passed. HTTP/2 by upgrade is not: the answer to the
/// request itself would then come in a form that nobody here speaks; to ignore the wish is always allowed.
pub(crate) fn wants_upgrade<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.version() == Version::HTTP_11
        && tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"))
        && headers.contains_key(UPGRADE)
        && !tokens(headers, &UPGRADE).any(|token| token.to_ascii_lowercase().starts_with("h2c"))
}

/// The comma separated words of a header.
pub(crate) fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn is_forwarded(headers: &HeaderMap) -> bool {
    headers.contains_key(VIA)
        || headers.contains_key("forwarded")
        || headers.contains_key("x-real-ip")
        || headers.keys().any(|name| name.as_str().starts_with("x-forwarded-"))
}

fn is_navigation(headers: &HeaderMap) -> bool {
    // Java's own client says that it takes HTML, which is more than a program can mean.
    if text(headers, &USER_AGENT).starts_with("Java/") {
        return false;
    }
    let html = tokens(headers, &ACCEPT).any(|kind| kind.to_ascii_lowercase().starts_with("text/html"));
    html && headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate")
}

fn has_body<B: Body>(request: &Request<B>) -> bool {
    match request.headers().get(CONTENT_LENGTH) {
        Some(length) => length != "0",
        None => request.headers().contains_key(TRANSFER_ENCODING) || !request.body().is_end_stream(),
    }
}

/// What is to become of a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// It is passed to a pod: one that takes requests will do.
    Pass,
    /// It is sent back to where it came from, and passed if it comes here again: pods that every member knows of will
    /// do, whether the Service leads to them yet or not.
    SendBack,
    /// It is sent back, and cannot be passed: the Service must lead to the app first.
    SendOn,
}

/// A request that needs its app. Dropped without an answer, its client went away.
pub(crate) struct Ask {
    shared: Arc<Shared>,
    apps: Arc<[Arc<AppAsks>]>,
    answered: bool,
}

impl Ask {
    /// Tells everybody who wants to know.
    pub(crate) fn begin(shared: &Arc<Shared>, apps: &Arc<[Arc<AppAsks>]>, readiness: Readiness) -> Self {
        let now = shared.clock.now();
        for asks in apps.iter() {
            asks.note(now, readiness);
            (shared.on_ask)(&asks.app);
        }
        Self { shared: Arc::clone(shared), apps: Arc::clone(apps), answered: false }
    }

    /// What it got.
    pub(crate) fn end(mut self, answer: AskAnswer) {
        self.answered = true;
        count(&self.shared, &self.apps, answer);
    }

    /// Counts it as waiting for as long as what comes back lives. Where it is to be passed, those who look after the
    /// app are told, who may find a pod for it before its Service has one.
    pub(crate) fn wait(&self, goal: Goal) -> Waiting {
        self.shared.telemetry.held_requests.inc();
        for asks in self.apps.iter() {
            asks.held.fetch_add(1, Ordering::Relaxed);
            // The first one is told of; whoever looks after the app finds the others.
            if goal == Goal::Pass && asks.to_pass.fetch_add(1, Ordering::Relaxed) == 0 {
                (self.shared.on_ask)(&asks.app);
            }
        }
        Waiting { shared: Arc::clone(&self.shared), apps: Arc::clone(&self.apps), goal }
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        if !self.answered {
            count(&self.shared, &self.apps, AskAnswer::Gone);
        }
    }
}

/// A request that was let go to a pod, and may have to wait once more: its pod may have gone in the meantime.
///
/// Its ask may be older than the moment at which this member saw the app fall asleep, so it is told again: a request
/// that waits and that nobody knows of would wake nothing.
pub(crate) struct WaitAgain<'a> {
    /// None: a request that wakes nothing.
    ask: Option<&'a Ask>,
    waiting: Option<Waiting>,
}

impl<'a> WaitAgain<'a> {
    /// Does not wait yet.
    pub(crate) fn new(ask: Option<&'a Ask>) -> Self {
        Self { ask, waiting: None }
    }

    /// There is no pod for it: it counts as waiting until this is dropped, and everybody who wants to know is told.
    pub(crate) fn tell(&mut self) {
        let Some(ask) = self.ask else { return };
        // Counted first, so that whoever is told finds it.
        self.waiting.get_or_insert_with(|| ask.wait(Goal::Pass));
        for asks in ask.apps.iter() {
            (ask.shared.on_ask)(&asks.app);
        }
    }
}

/// Counts an answer for every app behind a door.
pub(crate) fn count(shared: &Shared, apps: &[Arc<AppAsks>], answer: AskAnswer) {
    for asks in apps {
        shared.telemetry.count_ask(&asks.app, answer);
    }
}

/// Somebody who waits.
pub(crate) struct Waiting {
    shared: Arc<Shared>,
    apps: Arc<[Arc<AppAsks>]>,
    goal: Goal,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.shared.telemetry.held_requests.dec();
        for asks in self.apps.iter() {
            asks.held.fetch_sub(1, Ordering::Relaxed);
            if self.goal == Goal::Pass {
                asks.to_pass.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}
