//! The admin listener: metrics, health, and what the command line asks.

mod listen;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::decide::Context;
use crate::decide::board::AppStatus;
use crate::telemetry::{CONTENT_TYPE, Telemetry};
use crate::wake::Limits;

pub(crate) use listen::{Bounds, serve};

/// Whether this member is ready: ports bound, own slices rewritten.
#[derive(Clone, Debug, Default)]
pub struct Ready(Arc<AtomicBool>);

impl Ready {
    /// Says so, or not any more.
    pub fn set(&self, ready: bool) {
        self.0.store(ready, Ordering::Release);
    }

    fn is(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How one source is doing, for the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceStatus {
    /// Its name.
    pub name: String,
    /// Its last poll was answered.
    pub up: bool,
    /// Since when.
    pub since: String,
    /// Why not.
    pub error: Option<String>,
    /// What it knows of each app.
    pub apps: Vec<SourceApp>,
}

/// How many requests a member can hold, for the command line.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Room {
    /// Who it is.
    pub member: String,
    /// How many files it may have open; none: no limit.
    pub open_files: Option<u64>,
    /// How many connections it takes at a time.
    pub connections: usize,
    /// It may write EndpointSlices; if not, proxies' error paths alone wake apps.
    #[serde(default = "yes")]
    pub substitutes: bool,
    /// It puts the hooks of apps that are not substituted in place itself.
    #[serde(default)]
    pub manages_proxies: bool,
    /// Where it looks for apps and routes; empty: everywhere.
    #[serde(default)]
    pub namespaces: Vec<String>,
}

/// A member that does not say was made before it could be told otherwise.
fn yes() -> bool {
    true
}

/// What one source knows of one app.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceApp {
    /// The app, as `namespace/name`.
    pub app: String,
    /// How many series are its own.
    pub matched: usize,
    /// Whether requests that are still open are seen.
    #[serde(default)]
    pub sees_open: bool,
    /// Which label values were looked for.
    pub looked_for: Vec<String>,
    /// The last activity; none: not known.
    pub last_seen: Option<String>,
    /// Up to when it knows; none: not known.
    pub watermark: Option<String>,
    /// Why it is blind.
    pub blind: Vec<String>,
}

/// The routes of a member that does not know the cluster yet: alive, since to start it again would not help, and not
/// ready.
pub(crate) fn starting(telemetry: Arc<Telemetry>) -> Router {
    let metrics = move || async move { exposed(&telemetry) };
    Router::new().route("/livez", get(|| async { "ok\n" })).route("/metrics", get(metrics)).fallback(
        || async { (StatusCode::SERVICE_UNAVAILABLE, "not ready: the API server's lists are awaited\n") },
    )
}

/// The routes. All of them read: nothing can be changed through this listener.
pub fn router(cx: Arc<Context>, ready: Ready) -> Router {
    let readyz = move || async move {
        if ready.is() { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
    };
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/apps", get(apps))
        .route("/api/v1/sources", get(sources))
        .route("/api/v1/room", get(room))
        .with_state(cx)
}

async fn metrics(State(cx): State<Arc<Context>>) -> impl IntoResponse {
    // A source that fails says nothing, and its last watermark grows old all the same.
    cx.telemetry.age_watermarks(cx.settings.clock.now());
    exposed(&cx.telemetry)
}

fn exposed(telemetry: &Telemetry) -> impl IntoResponse + use<> {
    let pieces = telemetry.encode();
    let length = pieces.iter().map(Bytes::len).sum::<usize>();
    let pieces = futures::stream::iter(pieces.into_iter().map(Ok::<_, Infallible>));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE)),
        (header::CONTENT_LENGTH, length.into()),
    ];
    (headers, Body::from_stream(pieces))
}

async fn apps(State(cx): State<Arc<Context>>) -> Json<Vec<AppStatus>> {
    Json(cx.board.all())
}

async fn room(State(cx): State<Arc<Context>>) -> Json<Room> {
    let member = cx.settings.identity.clone();
    let connections = Limits::default().within(cx.settings.open_files).connections;
    let (substitutes, manages_proxies) = (cx.settings.substitute, cx.settings.manage_proxies);
    let (open_files, namespaces) = (cx.settings.open_files, cx.settings.namespaces.clone());
    Json(Room { member, open_files, connections, substitutes, manages_proxies, namespaces })
}

async fn sources(State(cx): State<Arc<Context>>) -> Json<Vec<SourceStatus>> {
    let polled = cx.polled.borrow().clone();
    let known = |moment: jiff::Timestamp| (moment > jiff::Timestamp::MIN).then(|| moment.to_string());
    let status = polled.per_source.iter().map(|(name, state)| SourceStatus {
        name: name.clone(),
        up: state.up(),
        since: state.since().to_string(),
        error: state.error(),
        apps: state
            .each()
            .map(|(samples, app, sample)| SourceApp {
                app: app.to_string(),
                matched: sample.matched,
                sees_open: samples.sees_open(app),
                looked_for: samples.looked_for(app),
                last_seen: known(sample.activity.last_seen),
                watermark: known(sample.activity.watermark),
                blind: sample.activity.blind.iter().map(|blind| blind.label().to_owned()).collect(),
            })
            .collect(),
    });
    Json(status.collect())
}
