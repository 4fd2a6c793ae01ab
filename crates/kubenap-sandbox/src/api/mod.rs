//! The Kubernetes API as an axum router: a request comes in, is counted, meets its faults, is carried out.
mod target;
mod query;
mod read;
mod watch;
mod write;
mod admit;
mod scale;
mod logs;
mod events;
mod discovery;
mod review;
mod view;
pub(crate) mod errors;

use crate::Sandbox;
use crate::faults::Effect;
use crate::journal::Write;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use errors::ApiError;
use http::{HeaderMap, HeaderValue, Method, header};
use jiff::fmt::rfc2822::DateTimePrinter;
use query::Query;
use target::{Place, Target};
use view::View;

pub(crate) use admit::{Scope, Who, count_generation, create, replace};
pub(crate) use events::stored as stored_event;
pub(crate) use logs::Printed;
pub(crate) use write::end;

/// As large as a real API server takes.
const BODY_LIMIT: usize = 3 * 1024 * 1024;

pub(crate) fn router(sandbox: Sandbox) -> Router {
    Router::new().fallback(serve).with_state(sandbox)
}

/// One request about an object or a list of them, read and ready to be carried out.
struct Call {
    verb: &'static str,
    place: Place,
    query: Query,
    view: View,
    client: String,
    media: String,
    body: Bytes,
}

async fn serve(State(sandbox): State<Sandbox>, request: Request) -> Response {
    let mut response = answered(&sandbox, request).await;
    // RFC 9110, section 6.6.1: a server with a clock says what time it is.
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&sandbox.now());
    if let Some(date) = date.ok().and_then(|date| HeaderValue::try_from(date).ok()) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

async fn answered(sandbox: &Sandbox, request: Request) -> Response {
    sandbox.faults().thawed().await;
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return ApiError::too_large().into_response();
    };
    let query = Query::parse(parts.uri.query().unwrap_or(""));
    match target::target(parts.uri.path()) {
        Target::Other => {
            let struck = sandbox.faults().strike("get", "apis", "");
            discovery::answer(parts.uri.path(), struck.contains(&Effect::NoGroups))
        }
        Target::SelfReview => review::answer(sandbox, &parts.method, &body),
        Target::Object(place) => {
            let verb = match verb(&parts.method, &place, &query) {
                Ok(verb) => verb,
                Err(error) => return error.into_response(),
            };
            let view = match View::accepted(&parts.headers) {
                Ok(view) => view,
                Err(error) => return error.into_response(),
            };
            let client = client(&query, &parts.headers);
            let media = text(&parts.headers, header::CONTENT_TYPE);
            let media = media.split(';').next().unwrap_or("").trim().to_owned();
            answer(sandbox, Call { verb, place, query, view, client, media, body }).await
        }
    }
}

async fn answer(sandbox: &Sandbox, call: Call) -> Response {
    let resource = call.place.resource();
    sandbox.journal().request(call.verb, &resource);
    let (mut after, mut ago) = (None, 0);
    let mut refusal = sandbox.faults().is_cut_off().then(|| ApiError::fault(503));
    let is_write = !matches!(call.verb, "get" | "list" | "watch") && call.query.text("dryRun").is_empty();
    for effect in sandbox.faults().strike(call.verb, &resource, &call.place.name) {
        match effect {
            Effect::Delay(time) => tokio::time::sleep(time).await,
            Effect::Conflict if is_write => {
                refusal = Some(ApiError::stale(call.place.kind, &call.place.name));
            }
            Effect::Gone if call.verb == "watch" => return watch::gone(),
            Effect::Gone if !call.query.text("continue").is_empty() => refusal = Some(ApiError::expired()),
            Effect::FailBefore(code) => refusal = Some(ApiError::fault(code)),
            Effect::FailAfter(code) => after = Some(ApiError::fault(code)),
            Effect::TooManyRequests(seconds) => refusal = Some(ApiError::too_many_requests(seconds)),
            Effect::Silent if call.verb == "watch" => return watch::silent(),
            Effect::StaleList(versions) => ago = versions,
            Effect::Deny => {
                let why = format!("the sandbox was told to deny {} of {resource}", call.verb);
                refusal = Some(ApiError::forbidden(call.place.kind, &call.place.name, &why));
            }
            // Not what this request can suffer; those of events never come here.
            Effect::Conflict
            | Effect::Gone
            | Effect::Silent
            | Effect::DropEvent
            | Effect::RepeatEvent
            | Effect::DelayEvent(_)
            | Effect::StaleEvent
            | Effect::NoGroups => {}
        }
    }
    let (name, outcome) = match refusal {
        Some(error) => (call.place.name.clone(), Err(error)),
        None => carry_out(sandbox, &call, ago),
    };
    let response = match (outcome, after) {
        (Ok(_), Some(error)) | (Err(error), _) => error.into_response(),
        (Ok(response), None) => response,
    };
    if is_write {
        sandbox.journal().write(Write {
            time: sandbox.now(),
            verb: call.verb.to_owned(),
            plural: call.place.kind.plural.to_owned(),
            namespace: call.place.namespace,
            name,
            subresource: call.place.subresource,
            client: call.client,
            status: response.status().as_u16(),
        });
    }
    response
}

/// Does it; `ago`: how many versions old a list is to be. The name is that of the object, for a create the one it got.
fn carry_out(sandbox: &Sandbox, call: &Call, ago: u64) -> (String, Result<Response, ApiError>) {
    let mut name = call.place.name.clone();
    let outcome = match call.verb {
        "get" if call.place.subresource == "log" => logs::read(sandbox, call),
        "get" => read::get(sandbox, call),
        "list" => read::list(sandbox, call, ago),
        "watch" => watch::watch(sandbox, call),
        _ => write::write(sandbox, call).map(|(written, response)| {
            if name.is_empty() {
                name = written;
            }
            sandbox.faults().wrote();
            response
        }),
    };
    (name, outcome)
}

fn verb(method: &Method, place: &Place, query: &Query) -> Result<&'static str, ApiError> {
    let known = match place.subresource.as_str() {
        "" => true,
        "status" => place.kind.status,
        "scale" => place.kind.scale,
        "log" => place.kind.plural == "pods" && *method == Method::GET && !place.name.is_empty(),
        _ => false,
    };
    if !known {
        return Err(ApiError::not_implemented(&place.resource()));
    }
    let all_namespaces = place.kind.namespaced && place.namespace.is_empty();
    match (method, place.name.is_empty()) {
        (&Method::GET, true) if query.is_true("watch") => Ok("watch"),
        (&Method::GET, true) => Ok("list"),
        (&Method::GET, false) => Ok("get"),
        (&Method::POST, true) if !all_namespaces => Ok("create"),
        (&Method::PUT, false) => Ok("update"),
        (&Method::PATCH, false) => Ok("patch"),
        (&Method::DELETE, false) if place.subresource.is_empty() => Ok("delete"),
        (&Method::DELETE, true) => Err(ApiError::not_implemented("deletecollection")),
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// Who asks: the field manager, or what the user agent says before its version.
fn client(query: &Query, headers: &HeaderMap) -> String {
    match query.text("fieldManager") {
        "" => {
            let agent = text(headers, header::USER_AGENT);
            let short = agent.split('/').next().unwrap_or("").to_owned();
            if short.is_empty() { "unknown".to_owned() } else { short }
        }
        manager => manager.to_owned(),
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("").to_owned()
}
