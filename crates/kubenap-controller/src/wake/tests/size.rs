//! What a held request keeps in memory: ten thousand of them are to be cheap.

use std::mem::size_of;

use crate::wake::connection::{Connection, serve};
use crate::wake::pass::Upstream;
use crate::wake::visit::respond;
use hyper::body::Incoming;

/// hyper's buffers come on top, of which a request with a head of the usual length touches one page.
const MOST: usize = 6 * 1024;

fn size<A, B, F: Future>(_: impl Fn(A, B) -> F) -> usize {
    size_of::<F>()
}

#[test]
fn a_request_that_waits_keeps_few_bytes() {
    let (task, answer) = (
        size(serve),
        size(|connection: &'static Connection, (upstream, request): (Upstream, http::Request<Incoming>)| {
            respond(connection, upstream, request)
        }),
    );
    assert!(task + answer <= MOST, "a task of {task} bytes, and an answer to come of {answer}");
}
