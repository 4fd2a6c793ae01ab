//! The answers that KubeNap gives itself. None carries anything of the request but its own path.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use kubenap_core::proxy::head::{ASK, RETRY};

use super::page;

/// Whatever went wrong in a body.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// Every body that goes through: one of ours, or one that is passed.
pub(crate) type WakeBody = UnsyncBoxBody<Bytes, BodyError>;

/// Says why an app does not answer, as a class from a closed set.
const REASON: HeaderName = HeaderName::from_static("x-kubenap-reason");

pub(crate) fn full(body: impl Into<Bytes>) -> WakeBody {
    Full::new(body.into()).map_err(|never| match never {}).boxed_unsync()
}

/// A status with a line of text, which nobody may keep.
pub(crate) fn text(status: StatusCode, line: &str) -> Response<WakeBody> {
    let mut response = Response::new(full(format!("{line}\n")));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// 503: come again.
pub(crate) fn unavailable(line: &str, retry_after: Duration) -> Response<WakeBody> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, line);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(whole_seconds(retry_after)));
    response
}

/// 503: the app cannot start, and why.
pub(crate) fn failed(reason: &'static str, sentence: &str, retry_after: Duration) -> Response<WakeBody> {
    let mut response = unavailable(&one_line(sentence), retry_after);
    if let Ok(reason) = HeaderValue::from_str(reason) {
        response.headers_mut().insert(REASON, reason);
    }
    response
}

/// 307 to a path on the same host.
pub(crate) fn redirect(location: &str) -> Response<WakeBody> {
    let Ok(location) = HeaderValue::from_str(location) else {
        return text(StatusCode::BAD_REQUEST, "no redirect leads there");
    };
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, location);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Tells the proxy to send the request that it keeps once more. What else stands here would go to the client with the
/// app's answer, so nothing does.
pub(crate) fn send_again() -> Response<WakeBody> {
    elsewhere(RETRY)
}

/// Tells the proxy to ask once more about the request that it keeps: another member will answer.
pub(crate) fn ask_again() -> Response<WakeBody> {
    elsewhere(ASK)
}

fn elsewhere(location: &'static str) -> Response<WakeBody> {
    let mut response = Response::new(full(Bytes::new()));
    response.headers_mut().insert("x-accel-redirect", HeaderValue::from_static(location));
    response
}

/// `grpc-status: 14` (unavailable) in headers alone, which is what gRPC clients retry.
pub(crate) fn grpc_unavailable(line: &str) -> Response<WakeBody> {
    let mut response = Response::new(full(Bytes::new()));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-status", HeaderValue::from_static("14"));
    let plain: String = line.chars().filter(|c| matches!(c, ' '..='~') && *c != '%').collect();
    if let Ok(message) = HeaderValue::from_str(&plain) {
        headers.insert("grpc-message", message);
    }
    response
}

/// 503 with the waiting page, which loads itself again.
pub(crate) fn waiting_page() -> Response<WakeBody> {
    html(unavailable("", Duration::from_secs(1)), page::HTML)
}

/// 503 with a page that says why the app cannot start, and that loads itself again later.
pub(crate) fn failing_page(
    reason: &'static str,
    sentence: &str,
    retry_after: Duration,
) -> Response<WakeBody> {
    let page = page::failing(&one_line(sentence), whole_seconds(retry_after));
    html(failed(reason, sentence, retry_after), page)
}

fn html(mut response: Response<WakeBody>, page: impl Into<Bytes>) -> Response<WakeBody> {
    *response.body_mut() = full(page);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(page::POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// Rounded up, at least one: zero would be a fast loop.
fn whole_seconds(span: Duration) -> u64 {
    let up = u64::from(span.subsec_nanos() > 0);
    span.as_secs().saturating_add(up).max(1)
}

fn one_line(sentence: &str) -> String {
    sentence.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_stays_one_line_and_times_are_rounded_up() {
        let response = failed("image", "cannot pull\r\nSet-Cookie: x", Duration::from_millis(1500));
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        assert_eq!(response.headers()["x-kubenap-reason"], "image");
        assert_eq!(one_line("a\r\nb"), "a  b");
        assert_eq!(unavailable("", Duration::ZERO).headers()[RETRY_AFTER], "1");
    }
}
