//! `pods/log`: what a test or a demo has its pods print, read from a time on, and followed.
use crate::Sandbox;
use crate::api::errors::ApiError;
use crate::api::{Call, query};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::header;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use tokio::sync::watch;

/// What the containers of all pods have printed, by the pods' uids.
#[derive(Debug, Default)]
pub(crate) struct Printed {
    logs: BTreeMap<String, Lines>,
    /// How often all streams were cut.
    cuts: u64,
    changed: watch::Sender<u64>,
}

/// One log: its lines, and how many were taken away before them.
#[derive(Debug, Default)]
struct Lines {
    gone: usize,
    lines: VecDeque<(Timestamp, String)>,
}

/// The longest log; then the oldest lines go, as in a rotation.
const MOST: usize = 100_000;

impl Printed {
    pub(crate) fn print(&mut self, uid: &str, at: Timestamp, line: &str) {
        let log = self.logs.entry(uid.to_owned()).or_default();
        log.lines.push_back((at, line.to_owned()));
        if log.lines.len() > MOST {
            log.lines.pop_front();
            log.gone += 1;
        }
        self.changed.send_modify(|count| *count += 1);
    }

    /// Takes away all that was printed so far: a rotated file is not read any more.
    pub(crate) fn rotate(&mut self, uid: &str) {
        if let Some(log) = self.logs.get_mut(uid) {
            log.gone += log.lines.len();
            log.lines.clear();
        }
    }

    /// Ends every stream.
    pub(crate) fn cut(&mut self) {
        self.cuts += 1;
        self.changed.send_modify(|count| *count += 1);
    }
}

/// One client's stream.
struct Follower {
    sandbox: Sandbox,
    uid: String,
    since: Timestamp,
    stamps: bool,
    follow: bool,
    /// How many lines it has had, those that are gone included.
    had: usize,
    cuts: u64,
    changed: watch::Receiver<u64>,
}

pub(super) fn read(sandbox: &Sandbox, call: &Call) -> Result<Response, ApiError> {
    call.query.only(query::LOG)?;
    let (place, container) = (&call.place, call.query.text("container"));
    let pod = sandbox.get(place.kind.plural, &place.namespace, &place.name);
    let pod = pod.ok_or_else(|| ApiError::not_found(place.kind, &place.name))?;
    let names =
        || pod["spec"]["containers"].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str());
    if !container.is_empty() && !names().any(|name| name == container) {
        let why = format!("container {container} is not valid for pod {}", place.name);
        return Err(ApiError::bad_request(why));
    }
    if container.is_empty() && names().count() > 1 {
        let why = format!("a container name must be specified for pod {}", place.name);
        return Err(ApiError::bad_request(why));
    }
    if pod["status"]["phase"] == "Pending" {
        let name = names().next().unwrap_or_default();
        let why =
            format!("container \"{name}\" in pod \"{}\" is waiting to start: ContainerCreating", place.name);
        return Err(ApiError::bad_request(why));
    }
    let since = match call.query.text("sinceTime") {
        "" => Timestamp::MIN,
        text => {
            let since: Timestamp =
                text.parse().map_err(|_| ApiError::bad_request(format!("sinceTime: {text:?} is no time")))?;
            // It travels in whole seconds.
            Timestamp::from_second(since.as_second()).unwrap_or(since)
        }
    };
    let printed = sandbox.printed();
    let follower = Follower {
        sandbox: sandbox.weak(),
        uid: pod["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
        since,
        stamps: call.query.is_true("timestamps"),
        follow: call.query.is_true("follow"),
        had: 0,
        cuts: printed.cuts,
        changed: printed.changed.subscribe(),
    };
    drop(printed);
    let body = Body::from_stream(stream::unfold(Some(follower), |follower| async {
        let mut follower = follower?;
        let (lines, goes_on) = follower.next().await;
        Some((Ok::<_, Infallible>(lines), goes_on.then_some(follower)))
    }));
    Ok(([(header::CONTENT_TYPE, "text/plain")], body).into_response())
}

impl Follower {
    /// The next lines, and whether there may be more.
    async fn next(&mut self) -> (Bytes, bool) {
        loop {
            self.changed.mark_unchanged();
            let lines = self.take();
            if !self.follow {
                return (lines.into(), false);
            }
            if !lines.is_empty() {
                return (lines.into(), true);
            }
            let cut = self.sandbox.printed().cuts != self.cuts;
            let pods: Vec<Value> = self.sandbox.list("pods", None);
            let gone = !pods.iter().any(|pod| pod["metadata"]["uid"] == self.uid.as_str());
            if cut || gone || self.changed.changed().await.is_err() {
                return (Bytes::new(), false);
            }
        }
    }

    fn take(&mut self) -> String {
        let printed = self.sandbox.printed();
        let Some(log) = printed.logs.get(&self.uid) else { return String::new() };
        let mut text = String::new();
        for (at, line) in log.lines.iter().skip(self.had.saturating_sub(log.gone)) {
            if *at >= self.since {
                if self.stamps {
                    text += &format!("{at:.9} ");
                }
                text += line;
                text.push('\n');
            }
        }
        self.had = log.gone + log.lines.len();
        text
    }
}
