//! What those are told who cannot be served: 404, 502, 503, 504, or their like in gRPC.

use std::time::Duration;

use http::{Response, StatusCode};
use kubenap_core::proxy::Doubt;

use super::doors::Shared;
use super::hold::Held;
use super::pass::PassError;
use super::reply::{self, WakeBody};
use crate::telemetry::AskAnswer;

/// The answer to a request for no app that is known, or for one that was reached already.
pub(super) fn doubted(doubt: Doubt) -> Response<WakeBody> {
    const NOTHING: &str = "nothing sleeps under this name and path";
    match doubt {
        Doubt::Whom => reply::text(StatusCode::NOT_FOUND, NOTHING),
        Doubt::Where => reply::text(StatusCode::BAD_REQUEST, NOTHING),
        Doubt::Reached(code) => reply::text(
            StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY),
            "the app was reached and broke off; what it may have carried out is not asked for again",
        ),
    }
}

/// 503, or its like in gRPC, for somebody who cannot be served now.
pub(super) fn refused(shared: &Shared, held: &Held, grpc: bool) -> Response<WakeBody> {
    let (line, retry_after) = match held {
        Held::Failed { sentence, retry_after, .. } => (sentence.as_str(), *retry_after),
        Held::Ready | Held::TooLong => ("the app was not ready in time", shared.limits.retry_after),
        Held::Shed => ("too many requests wait", Duration::from_secs(1)),
        Held::Leaving => ("asked at a moment of change, try again", Duration::from_secs(1)),
    };
    match held {
        _ if grpc => reply::grpc_unavailable(line),
        Held::Failed { reason, .. } => reply::failed(reason, line, retry_after),
        Held::Ready | Held::TooLong | Held::Shed | Held::Leaving => reply::unavailable(line, retry_after),
    }
}

/// The answer when a request could not be passed to the app, and what to call it.
pub(super) fn not_passed(shared: &Shared, error: PassError, grpc: bool) -> (Response<WakeBody>, AskAnswer) {
    let broken = |status, line| if grpc { reply::grpc_unavailable(line) } else { reply::text(status, line) };
    match error {
        PassError::TooLong => (refused(shared, &Held::TooLong, grpc), AskAnswer::TimedOut),
        PassError::Failed { reason, sentence, retry_after } => {
            (refused(shared, &Held::Failed { reason, sentence, retry_after }, grpc), AskAnswer::Failed)
        }
        PassError::Broken => {
            (broken(StatusCode::BAD_GATEWAY, "the app broke the connection off"), AskAnswer::Broken)
        }
        PassError::Silent => {
            (broken(StatusCode::GATEWAY_TIMEOUT, "the app does not answer"), AskAnswer::TimedOut)
        }
    }
}
