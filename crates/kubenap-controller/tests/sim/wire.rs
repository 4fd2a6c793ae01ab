//! One member's line to the API server: it notes every write, and goes wrong at the one that it was told to.
#![expect(clippy::unwrap_used, reason = "a line that cannot carry a message has failed its run")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response};
use jiff::Timestamp;
use kube::Client;
use kubenap_controller::clock::Clock;
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

/// What happens at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    /// The member dies before the write goes out.
    CrashBefore,
    /// The member dies when the write is done, before it hears of it.
    CrashAfter,
    /// Not carried out, and this status.
    Refused(u16),
    /// Carried out, and this status all the same.
    Doubtful(u16),
    /// Neither carried out nor answered.
    Lost,
    /// Carried out and never answered.
    Unheard,
    /// Never answered, and carried out seconds later.
    Late,
}

impl Blow {
    /// The two crashes.
    pub(crate) const CRASHES: [Self; 2] = [Self::CrashBefore, Self::CrashAfter];
    /// Everything else.
    pub(crate) const FAILURES: [Self; 9] = [
        Self::Refused(409),
        Self::Refused(429),
        Self::Refused(500),
        Self::Refused(504),
        Self::Doubtful(500),
        Self::Doubtful(504),
        Self::Lost,
        Self::Unheard,
        Self::Late,
    ];
}

/// A write as the API server answered it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) time: Timestamp,
    pub(crate) member: String,
    pub(crate) method: String,
    pub(crate) plural: String,
    pub(crate) name: String,
    pub(crate) body: Value,
    pub(crate) status: u16,
    /// The version that the write made.
    pub(crate) version: Option<u64>,
}

/// What all lines of a run note down together.
pub(crate) type Log = Arc<Mutex<Vec<Sent>>>;

/// The line of one life of one member.
#[derive(Clone)]
pub(crate) struct Wire {
    member: String,
    router: Router,
    log: Log,
    clock: Clock,
    state: Arc<Mutex<State>>,
    /// Nothing goes through any more: the member is dead.
    pub(crate) cut: watch::Sender<bool>,
    /// Nothing goes through for now.
    pub(crate) apart: watch::Sender<bool>,
}

#[derive(Default)]
struct State {
    writes: u64,
    blow: Option<(u64, Blow)>,
    /// How many requests came at the same moment.
    at_once: (Timestamp, u64),
}

/// More requests than this at one moment are a loop that never ends, since no time passes in it.
const LOOP: u64 = 400;
/// The status of what stands for such a loop in the log.
pub(crate) const ENDLESS: u16 = 599;

/// Carried out this much later; longer than a member waits for an answer.
const LATE: Duration = Duration::from_secs(7);

impl Wire {
    pub(crate) fn new(member: &str, router: Router, log: Log, clock: Clock) -> Self {
        Self {
            member: member.to_owned(),
            router,
            log,
            clock,
            state: Arc::default(),
            cut: watch::Sender::new(false),
            apart: watch::Sender::new(false),
        }
    }

    pub(crate) fn client(&self) -> Client {
        let wire = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let wire = wire.clone();
            async move { Ok::<_, std::convert::Infallible>(wire.send(request.map(Body::new)).await) }
        });
        Client::new(service, "default")
    }

    /// Counts writes anew; the `nth` from here, counted from zero, suffers the blow.
    pub(crate) fn arm(&self, blow: Option<(u64, Blow)>) {
        let mut state = self.state.lock().unwrap();
        (state.writes, state.blow) = (0, blow);
    }

    /// How many writes went out since then.
    pub(crate) fn writes(&self) -> u64 {
        self.state.lock().unwrap().writes
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        drop(self.apart.subscribe().wait_for(|apart| !apart).await);
        if *self.cut.borrow() {
            return std::future::pending().await;
        }
        if self.is_endless(&request) {
            return std::future::pending().await;
        }
        let path = request.uri().path().to_owned();
        let counts = path.contains("/deployments/") || path.contains("/endpointslices");
        if request.method() == Method::GET {
            return self.forward(request).await;
        }
        let blow = if counts { self.count() } else { None };
        match blow {
            None => self.write(request).await,
            Some(Blow::Refused(code)) => failed(code),
            Some(Blow::Doubtful(code)) => {
                self.write(request).await;
                failed(code)
            }
            Some(Blow::Lost) => std::future::pending().await,
            Some(Blow::Unheard) => {
                self.write(request).await;
                std::future::pending().await
            }
            Some(Blow::Late) => {
                let wire = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(LATE).await;
                    wire.write(request).await
                });
                std::future::pending().await
            }
            Some(Blow::CrashBefore) => {
                self.cut.send_replace(true);
                std::future::pending().await
            }
            Some(Blow::CrashAfter) => {
                self.write(request).await;
                self.cut.send_replace(true);
                std::future::pending().await
            }
        }
    }

    fn is_endless(&self, request: &Request<Body>) -> bool {
        let now = self.clock.now();
        let mut state = self.state.lock().unwrap();
        state.at_once = if state.at_once.0 == now { (now, state.at_once.1 + 1) } else { (now, 1) };
        if state.at_once.1 != LOOP {
            return state.at_once.1 > LOOP;
        }
        self.log.lock().unwrap().push(Sent {
            time: now,
            member: self.member.clone(),
            method: request.method().to_string(),
            plural: request.uri().path().to_owned(),
            name: String::new(),
            body: Value::Null,
            status: ENDLESS,
            version: None,
        });
        true
    }

    fn count(&self) -> Option<Blow> {
        let mut state = self.state.lock().unwrap();
        let nth = state.writes;
        state.writes += 1;
        state.blow.filter(|(at, _)| *at == nth).map(|(_, blow)| blow)
    }

    async fn forward(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn write(&self, request: Request<Body>) -> Response<Body> {
        let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        let response = self.forward(Request::from_parts(parts, Body::from(body))).await;
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let steps: Vec<&str> = path.split('/').collect();
        let at = steps.iter().position(|step| *step == "namespaces").map_or(0, |at| at + 2);
        self.log.lock().unwrap().push(Sent {
            time: self.clock.now(),
            member: self.member.clone(),
            method,
            plural: steps.get(at).copied().unwrap_or_default().to_owned(),
            name: steps.get(at + 1).copied().or(sent["metadata"]["name"].as_str()).unwrap_or("").to_owned(),
            body: sent,
            status: parts.status.as_u16(),
            version: answer["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()),
        });
        Response::from_parts(parts, Body::from(body))
    }
}

fn failed(code: u16) -> Response<Body> {
    let reason = if code == 409 { "Conflict" } else { "InternalError" };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "a fault", "reason": reason, "code": code});
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(Body::from(status.to_string()))
        .unwrap()
}
