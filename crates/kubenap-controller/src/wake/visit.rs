//! One request from its head to its answer.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::header::HOST;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use kubenap_core::answer::{Answer, Readiness, WakeMode, Way, answer};
use kubenap_core::proxy::Reach;
use tokio::time::{Instant, sleep};

use super::ask::{self, Ask, Goal};
use super::body::{Discard, ReadAhead};
use super::connection::{Connection, Entry};
use super::crowd::Slot;
use super::door::{Arrival, Behind, Door};
use super::doors::Shared;
use super::here;
use super::hold::{Held, Hold, OnLeave};
use super::pass::{Pass, PassError, Upstream};
use super::proxy_listen::{self, Found};
use super::redirect::{Caller, safe_location};
use super::refuse::{doubted, not_passed, refused};
use super::reply::{self, WakeBody};
use crate::telemetry::AskAnswer;

/// How long a probe waits for a pod that was ready a moment ago.
const QUIET_PASS: Duration = Duration::from_secs(5);

/// Answers one request of a connection.
pub(crate) async fn respond(
    connection: &Connection,
    upstream: Upstream,
    request: Request<Incoming>,
) -> Response<WakeBody> {
    let shared = &connection.shared;
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return reply::text(StatusCode::METHOD_NOT_ALLOWED, "this method is not passed on");
    }
    if let (Entry::ErrorPath(..), Some(answer)) =
        (&connection.entry, here::answer(&request, &shared.identity))
    {
        return answer;
    }
    let mut told = Told::default();
    let (door, way, location, upstream) = match &connection.entry {
        Entry::WakePort(door, _) => {
            let target = request.uri().path_and_query().map(http::uri::PathAndQuery::as_str);
            (Arc::clone(door), Way::WakePort, target.and_then(safe_location).map(str::to_owned), upstream)
        }
        Entry::ErrorPath(profile, _) => match proxy_listen::find(shared, *profile, &request) {
            Ok(Found { door, location, reach, method, upgrade }) => {
                told = Told { method, upgrade };
                // A proxy's connection carries requests for many apps: a pod's connection is for one of them only.
                let upstream = match upstream {
                    Upstream::Http1 => Upstream::Http1,
                    Upstream::Http2(_) => Upstream::Http2(Arc::default()),
                };
                (door, Way::ErrorPath(reach), Some(location), upstream)
            }
            Err(doubt) => {
                let (parts, body) = request.into_parts();
                discard(shared, &parts.headers, body).await;
                return doubted(doubt);
            }
        },
    };
    // A connection of HTTP/1 brings one request, whose place is the connection's; elsewhere each takes its own.
    let slot = match (&connection.entry, &upstream) {
        (Entry::WakePort(_, slot), Upstream::Http1) => Some(Arc::clone(slot)),
        _ => shared.crowd.enter(&door.key).map(Arc::new),
    };
    let Some(slot) = slot else {
        ask::count(shared, &door.behind().apps, AskAnswer::Shed);
        return refused(shared, &Held::Shed, ask::read(&request, way).grpc);
    };
    let behind = door.behind();
    let host = request.headers().get(HOST).map(http::HeaderValue::as_bytes);
    let host = host.or(request.uri().authority().map(|name| name.as_str().as_bytes())).unwrap_or_default();
    let forwarded_for = request.headers().get("x-forwarded-for").map_or(&b""[..], |value| value.as_bytes());
    let caller =
        shared.pacer.caller(connection.peer, forwarded_for, host, location.as_deref().unwrap_or_default());
    let arrival = door.arrive();
    let visit = Visit { shared, door, behind, slot, way, told, location, caller, upstream, arrival };
    visit.answer(request).await
}

/// A request at its door.
struct Visit<'a> {
    shared: &'a Arc<Shared>,
    door: Arc<Door>,
    behind: Behind,
    slot: Arc<Slot>,
    way: Way,
    told: Told,
    /// Where a redirect would lead, if one may.
    location: Option<String>,
    caller: Caller,
    upstream: Upstream,
    arrival: Arrival,
}

/// What a proxy says of the client's own request, where it sent another one.
#[derive(Debug, Default)]
struct Told {
    method: Option<Method>,
    upgrade: bool,
}

/// What must be known of a request after its body was taken away.
#[derive(Clone, Copy)]
struct Traits {
    grpc: bool,
    forwarded: bool,
    /// It may be told to come to the same URL again.
    repeatable: bool,
    found: Readiness,
}

impl Visit<'_> {
    async fn answer(self, request: Request<Incoming>) -> Response<WakeBody> {
        let found = self.door.readiness(self.way);
        let manners = Arc::clone(&self.behind.manners);
        let mut asked = ask::read(&request, self.way);
        if let Some(method) = &self.told.method {
            asked.method = method.as_str();
        }
        asked.upgrade |= self.told.upgrade;
        let answer = answer(&asked, &manners.borrowed(), found);
        let safe = matches!(asked.method, "GET" | "HEAD")
            && !(asked.body || asked.upgrade || asked.grpc || asked.h2c);
        let repeatable = safe && manners.mode != WakeMode::Pass && self.location.is_some();
        let traits = Traits { grpc: asked.grpc, forwarded: asked.forwarded, repeatable, found };
        match answer {
            Answer::Ignore => {
                ask::count(self.shared, &self.behind.apps, AskAnswer::Ignored);
                self.leave_body(request).await;
                reply::unavailable("asleep, and this request wakes nothing", self.shared.limits.retry_after)
            }
            Answer::PassQuietly => self.pass_quietly(request, traits).await,
            Answer::Pass { hold } if self.way == Way::ErrorPath(Reach::Kept) => {
                self.hold_and_have_it_sent_again(request, traits, hold).await
            }
            Answer::Pass { hold } => self.hold_and_pass(request, traits, hold).await,
            Answer::Redirect { hold } => match self.location.clone() {
                Some(location) if self.way == Way::WakePort => {
                    self.hold_and_send_back(request, traits, hold, &location).await
                }
                Some(location) => self.hold_and_send_on(request, traits, hold, &location).await,
                // It cannot be said in a `Location`; with the request at hand it need not be.
                None if self.way == Way::WakePort => {
                    self.hold_and_pass(request, traits, manners.wake_timeout).await
                }
                None => {
                    ask::count(self.shared, &self.behind.apps, AskAnswer::Refused);
                    self.leave_body(request).await;
                    reply::text(StatusCode::BAD_REQUEST, "no redirect leads there")
                }
            },
            Answer::Page { patience } => self.hold_and_show_page(request, traits, patience).await,
            Answer::GrpcUnavailable => self.hold_and_let_retry(request, traits, manners.hold_for).await,
        }
    }

    async fn pass_quietly(self, request: Request<Incoming>, traits: Traits) -> Response<WakeBody> {
        let (request, client) = with_read_ahead(self.shared, request);
        let pass = self.pass(None, QUIET_PASS);
        let passed = self.send(&pass, request, client).await;
        passed.unwrap_or_else(|error| not_passed(self.shared, error, traits.grpc).0)
    }

    async fn hold_and_pass(
        self,
        request: Request<Incoming>,
        traits: Traits,
        time: Duration,
    ) -> Response<WakeBody> {
        let ask = self.ask(traits);
        let (mut request, client) = with_read_ahead(self.shared, request);
        let spoiled = request.body().spoiled();
        let pass = self.pass(Some(&ask), time);
        let on_leave = if traits.repeatable { OnLeave::ComeAgain } else { OnLeave::WaitOn };
        let wait = self.hold(&ask, Goal::Pass);
        let held = request.body_mut().during(wait.until(pass.until, on_leave)).await;
        match held {
            Held::Ready => {
                let passed = self.send(&pass, request, client).await;
                let (response, answer) = match passed {
                    Ok(response) => (response, AskAnswer::Passed),
                    // Its length cannot be told, so the pod was left with an unfinished request.
                    Err(PassError::Broken) if spoiled.load(Ordering::Relaxed) => {
                        (reply::text(StatusCode::BAD_REQUEST, "the body is malformed"), AskAnswer::Refused)
                    }
                    Err(error) => not_passed(self.shared, error, traits.grpc),
                };
                ask.end(answer);
                response
            }
            held => self.not_held(ask, &held, traits),
        }
    }

    /// For a wake port: should the request come here again, it is passed, so nobody has to wait until every proxy has
    /// heard that the app is ready.
    async fn hold_and_send_back(
        self,
        request: Request<Incoming>,
        traits: Traits,
        time: Duration,
        location: &str,
    ) -> Response<WakeBody> {
        let ask = self.ask(traits);
        let (mut request, _) = with_read_ahead(self.shared, request);
        let held = {
            let wait = self.hold(&ask, Goal::SendBack);
            request.body_mut().during(wait.until(Instant::now() + time, OnLeave::ComeAgain)).await
        };
        match held {
            Held::Ready if self.may_have_come_back() => self.pass_held(ask, request, traits).await,
            Held::Ready => {
                ask.end(AskAnswer::Redirected);
                reply::redirect(location)
            }
            held => self.not_sent_back(ask, held, traits, time, location),
        }
    }

    /// For a proxy's error path: what comes that way once more cannot be passed.
    async fn hold_and_send_on(
        self,
        request: Request<Incoming>,
        traits: Traits,
        time: Duration,
        location: &str,
    ) -> Response<WakeBody> {
        let ask = self.ask(traits);
        let (parts, body) = request.into_parts();
        let mut body = Discard::new(&parts.headers, body, self.shared.limits.discard);
        if traits.found == Readiness::Ready {
            // The proxy has not heard of it, or it sends us what the app itself answered.
            let Some(pause) = self.shared.pacer.comes_back(self.caller) else {
                body.finish(&self.shared.limits).await;
                return self.looping(ask);
            };
            body.during(sleep(pause)).await;
            body.finish(&self.shared.limits).await;
            ask.end(AskAnswer::Redirected);
            return reply::redirect(location);
        }
        let held =
            body.during(self.hold(&ask, Goal::SendOn).until(Instant::now() + time, OnLeave::ComeAgain)).await;
        body.finish(&self.shared.limits).await;
        match held {
            Held::Ready => {
                ask.end(AskAnswer::Redirected);
                reply::redirect(location)
            }
            held => self.not_sent_back(ask, held, traits, time, location),
        }
    }

    /// The app was not ready in time for somebody who can come again.
    fn not_sent_back(
        &self,
        ask: Ask,
        held: Held,
        traits: Traits,
        time: Duration,
        location: &str,
    ) -> Response<WakeBody> {
        let within = self.behind.manners.wake_timeout;
        match held {
            Held::TooLong if self.shared.pacer.may_hop(self.caller, time, within) => {
                ask.end(AskAnswer::Hop);
                reply::redirect(location)
            }
            Held::Leaving => {
                ask.end(AskAnswer::Leaving);
                reply::redirect(location)
            }
            held => self.not_held(ask, &held, traits),
        }
    }

    /// The proxy keeps the request: once the app is ready it is told to send it once more.
    async fn hold_and_have_it_sent_again(
        self,
        request: Request<Incoming>,
        traits: Traits,
        time: Duration,
    ) -> Response<WakeBody> {
        let ask = self.ask(traits);
        self.leave_body(request).await;
        if traits.found == Readiness::Ready {
            let Some(pause) = self.shared.pacer.comes_back(self.caller) else { return self.looping(ask) };
            sleep(pause).await;
            ask.end(AskAnswer::SentAgain);
            return reply::send_again();
        }
        let held = self.hold(&ask, Goal::SendOn).until(Instant::now() + time, OnLeave::ComeAgain).await;
        match held {
            Held::Ready => {
                sleep(self.shared.limits.behind).await;
                ask.end(AskAnswer::SentAgain);
                reply::send_again()
            }
            Held::Leaving => {
                ask.end(AskAnswer::Leaving);
                reply::ask_again()
            }
            held => self.not_held(ask, &held, traits),
        }
    }

    /// The same request came too often although the app is ready.
    fn looping(&self, ask: Ask) -> Response<WakeBody> {
        ask.end(AskAnswer::Looping);
        reply::unavailable(
            "the app is ready, but the proxy in front still sends requests here",
            self.shared.limits.retry_after,
        )
    }

    async fn hold_and_show_page(
        self,
        request: Request<Incoming>,
        traits: Traits,
        patience: Duration,
    ) -> Response<WakeBody> {
        let ask = self.ask(traits);
        let until = Instant::now() + patience;
        let (mut request, _) = with_read_ahead(self.shared, request);
        let by_redirect = traits.forwarded || self.way != Way::WakePort;
        let held = {
            let goal = match self.way {
                Way::ErrorPath(_) => Goal::SendOn,
                Way::WakePort if by_redirect => Goal::SendBack,
                Way::WakePort => Goal::Pass,
            };
            let wait = self.hold(&ask, goal);
            request.body_mut().during(wait.until(until, OnLeave::ComeAgain)).await
        };
        match (held, &self.location) {
            (Held::Ready, Some(location)) if by_redirect && !self.may_have_come_back() => {
                ask.end(AskAnswer::Redirected);
                reply::redirect(location)
            }
            (Held::Ready, _) if self.way == Way::WakePort => self.pass_held(ask, request, traits).await,
            // The page asks again by itself, whoever then answers.
            (Held::Ready | Held::TooLong, _) => {
                ask.end(AskAnswer::Page);
                reply::waiting_page()
            }
            (Held::Failed { reason, sentence, retry_after }, _) => {
                ask.end(AskAnswer::Failed);
                reply::failing_page(reason, &sentence, retry_after)
            }
            (held, _) => self.not_held(ask, &held, traits),
        }
    }

    /// Passes a request that was held to be answered otherwise. It has no body, and asks for no other protocol.
    async fn pass_held(&self, ask: Ask, request: Request<ReadAhead>, traits: Traits) -> Response<WakeBody> {
        let pass = self.pass(Some(&ask), self.behind.manners.wake_timeout);
        let passed = self.send(&pass, request, None).await;
        let (response, answer) = match passed {
            Ok(response) => (response, AskAnswer::Passed),
            Err(error) => not_passed(self.shared, error, traits.grpc),
        };
        ask.end(answer);
        response
    }

    /// Another member may have sent this request back, having seen the app ready a little earlier: once is enough.
    fn may_have_come_back(&self) -> bool {
        self.way == Way::WakePort && self.door.may_have_come_back(self.arrival, &self.shared.limits)
    }

    async fn hold_and_let_retry(
        self,
        request: Request<Incoming>,
        traits: Traits,
        time: Duration,
    ) -> Response<WakeBody> {
        let ask = self.ask(traits);
        let (parts, body) = request.into_parts();
        let mut body = Discard::new(&parts.headers, body, self.shared.limits.discard);
        let held =
            body.during(self.hold(&ask, Goal::SendOn).until(Instant::now() + time, OnLeave::WaitOn)).await;
        body.finish(&self.shared.limits).await;
        match held {
            Held::Ready | Held::TooLong => {
                ask.end(AskAnswer::GrpcUnavailable);
                reply::grpc_unavailable("the app was asleep, try again")
            }
            held => self.not_held(ask, &held, traits),
        }
    }

    fn ask(&self, traits: Traits) -> Ask {
        Ask::begin(self.shared, &self.behind.apps, traits.found)
    }

    fn hold<'a>(&'a self, ask: &'a Ask, goal: Goal) -> Hold<'a> {
        Hold { shared: self.shared, door: &self.door, slot: &self.slot, ask, goal }
    }

    fn pass<'a>(&'a self, ask: Option<&'a Ask>, time: Duration) -> Pass<'a> {
        let until = Instant::now() + time;
        Pass { shared: self.shared, door: &self.door, slot: &self.slot, ask, until }
    }

    /// In a box: what sending needs would otherwise be kept ready by everybody who is only held.
    fn send<'a>(
        &'a self,
        pass: &'a Pass<'a>,
        request: Request<ReadAhead>,
        client: Option<OnUpgrade>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<WakeBody>, PassError>> + Send + 'a>> {
        Box::pin(pass.send(&self.upstream, request.map(BodyExt::boxed_unsync), client))
    }

    async fn leave_body(&self, request: Request<Incoming>) {
        let (parts, body) = request.into_parts();
        discard(self.shared, &parts.headers, body).await;
    }

    /// The answer to somebody whose waiting did not end well.
    fn not_held(&self, ask: Ask, held: &Held, traits: Traits) -> Response<WakeBody> {
        ask.end(match held {
            Held::Ready | Held::TooLong => AskAnswer::TimedOut,
            Held::Failed { .. } => AskAnswer::Failed,
            Held::Shed => AskAnswer::Shed,
            Held::Leaving => AskAnswer::Leaving,
        });
        match (held, &self.location) {
            (Held::Leaving, Some(location)) if traits.repeatable => reply::redirect(location),
            _ => refused(self.shared, held, traits.grpc),
        }
    }
}

/// The request with a body that can be read ahead, and its connection for later, if it is to change protocols.
fn with_read_ahead(
    shared: &Arc<Shared>,
    mut request: Request<Incoming>,
) -> (Request<ReadAhead>, Option<OnUpgrade>) {
    let client = ask::wants_upgrade(&request).then(|| hyper::upgrade::on(&mut request));
    (request.map(|body| ReadAhead::new(shared, body)), client)
}

async fn discard(shared: &Shared, headers: &http::HeaderMap, body: Incoming) {
    Discard::new(headers, body, shared.limits.discard).finish(&shared.limits).await;
}
