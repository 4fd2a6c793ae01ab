//! Watches: what changed since a version, as a stream that ends after a while.
use crate::Sandbox;
use crate::api::Call;
use crate::api::errors::ApiError;
use crate::api::view::View;
use crate::api::{query, read};
use crate::faults::Effect;
use crate::kinds::Kind;
use crate::select::Selector;
use crate::store::{Change, object};
use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::header;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

/// When a client does not say how long.
const TIMEOUT: Duration = Duration::from_mins(30);

/// One client's watch: what it has seen, and what is to be sent.
struct Watcher {
    sandbox: Sandbox,
    kind: &'static Kind,
    namespace: String,
    selector: Selector,
    view: View,
    seen: u64,
    queue: VecDeque<Value>,
    end: Instant,
    bookmark: Option<Instant>,
    changes: Receiver<u64>,
    /// Until when an event that was told to be late is kept back, and all that follow.
    late: Option<Instant>,
    over: bool,
}

pub(super) fn watch(sandbox: &Sandbox, call: &Call) -> Result<Response, ApiError> {
    call.query.only(query::WATCH)?;
    let timeout = call.query.number("timeoutSeconds")?.map_or(TIMEOUT, Duration::from_secs);
    let from = call.query.number("resourceVersion")?.unwrap_or(0);
    let now = Instant::now();
    let store = sandbox.store();
    let mut watcher = Watcher {
        sandbox: sandbox.clone(),
        kind: call.place.kind,
        namespace: call.place.namespace.clone(),
        selector: read::selector(call)?,
        view: call.view,
        seen: if from == 0 { store.version() } else { from },
        queue: VecDeque::new(),
        end: now + timeout.min(Duration::from_hours(24)),
        bookmark: call.query.is_true("allowWatchBookmarks").then(|| now + sandbox.settings().bookmark_every),
        changes: sandbox.changes(),
        late: None,
        over: false,
    };
    if from > store.version() {
        return Err(ApiError::from_the_future(from, store.version()));
    }
    if from == 0 {
        let namespace = Some(call.place.namespace.as_str()).filter(|name| !name.is_empty());
        for (_, found) in store.all(watcher.kind.plural, namespace) {
            if watcher.selector.matches(found) {
                let shown = watcher.view.object(watcher.kind, found);
                watcher.queue.push_back(json!({ "type": "ADDED", "object": shown }));
            }
        }
    }
    Ok(streamed(Body::from_stream(stream::unfold(watcher, |mut watcher| async {
        let batch = watcher.next().await?;
        Some((Ok::<_, Infallible>(batch), watcher))
    }))))
}

/// A watch whose version is too old is told so in its first event.
pub(super) fn gone() -> Response {
    let event = json!({ "type": "ERROR", "object": ApiError::expired().status() });
    streamed(Body::from(format!("{event}\n")))
}

/// A watch that is accepted and never says anything.
pub(super) fn silent() -> Response {
    streamed(Body::from_stream(stream::pending::<Result<Bytes, Infallible>>()))
}

fn streamed(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

impl Watcher {
    /// The next events in one piece, or nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            self.sandbox.faults().thawed().await;
            if !self.over {
                self.changes.borrow_and_update();
                self.look();
            }
            let lines: Vec<String> = self.queue.drain(..).map(|event| format!("{event}\n")).collect();
            let events = lines.concat();
            if !events.is_empty() {
                return Some(events.into());
            }
            if self.over {
                return None;
            }
            let wake = self.bookmark.unwrap_or(self.end).min(self.end);
            let wake = self.late.map_or(wake, |late| late.min(wake));
            tokio::select! {
                biased;
                changed = self.changes.changed() => self.over |= changed.is_err(),
                () = sleep_until(wake) => self.tick(),
            }
        }
    }

    /// Puts the changes since the last look into the queue.
    fn look(&mut self) {
        if self.late.is_some_and(|late| Instant::now() < late) {
            return;
        }
        let sandbox = self.sandbox.clone();
        let store = sandbox.store();
        let Ok(changes) = store.since(self.seen) else {
            self.queue.push_back(json!({ "type": "ERROR", "object": ApiError::expired().status() }));
            self.over = true;
            return;
        };
        for change in changes {
            let here = self.namespace.is_empty() || change.key.namespace == self.namespace;
            if change.key.plural != self.kind.plural || !here {
                continue;
            }
            let Some((event, shown)) = self.event(change) else { continue };
            // The one that was kept back has had its fault.
            let kept_back = self.late.take().is_some();
            let effects = if kept_back { Vec::new() } else { self.strike(change) };
            if let Some(late) = effects.iter().find_map(|effect| match effect {
                Effect::DelayEvent(time) => Some(Instant::now() + *time),
                _ => None,
            }) {
                self.late = Some(late);
                return;
            }
            self.seen = change.version;
            if effects.contains(&Effect::DropEvent) {
                continue;
            }
            let stale = change.before.as_ref().filter(|_| effects.contains(&Effect::StaleEvent));
            let object = self.view.object(self.kind, stale.unwrap_or(&shown));
            let event = json!({ "type": event, "object": object });
            if effects.contains(&Effect::RepeatEvent) {
                self.queue.push_back(event.clone());
            }
            self.queue.push_back(event);
        }
        self.late = None;
        self.seen = store.version();
    }

    fn strike(&self, change: &Change) -> Vec<Effect> {
        self.sandbox.journal().event(self.kind.plural);
        self.sandbox.faults().strike_event(self.kind.plural, &change.key.name)
    }

    /// What a change is for this watch: an object that no longer matches is gone for it.
    fn event(&self, change: &Change) -> Option<(&'static str, Arc<Value>)> {
        let matching =
            |state: &Option<Arc<Value>>| state.clone().filter(|object| self.selector.matches(object));
        match (matching(&change.before), matching(&change.after)) {
            (None, Some(after)) => Some(("ADDED", after)),
            (Some(_), Some(after)) => Some(("MODIFIED", after)),
            (Some(before), None) => Some(("DELETED", Arc::new(object::at_version(&before, change.version)))),
            (None, None) => None,
        }
    }

    /// A bookmark is due, or the end.
    fn tick(&mut self) {
        let now = Instant::now();
        if let Some(due) = self.bookmark.filter(|due| now >= *due || now >= self.end) {
            self.bookmark = Some(due.max(now) + self.sandbox.settings().bookmark_every);
            let metadata = json!({ "resourceVersion": self.seen.to_string(), "creationTimestamp": null });
            let mut mark = json!({ "kind": self.kind.name, "apiVersion": self.kind.api_version(), "metadata": metadata });
            if self.view == View::Metadata {
                mark["kind"] = "PartialObjectMetadata".into();
                mark["apiVersion"] = "meta.k8s.io/v1".into();
            }
            self.queue.push_back(json!({ "type": "BOOKMARK", "object": mark }));
        }
        self.over |= now >= self.end;
    }
}
