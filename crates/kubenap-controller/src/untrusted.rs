//! What strangers send, read as the data plane and the sources read it; for fuzz targets and corpora, and for nothing else.
//!
//! The readers themselves stay private: this is the one way to them from outside of this crate, and promises nothing.

use http::StatusCode;

use crate::activity::{Endpoint, read_answer, read_exposition};
use crate::wake::{self, Limits};

/// What becomes of the first bytes of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// More must come before it is clear what this is.
    Unclear,
    /// It is not HTTP/1.
    OtherProtocol,
    /// It is refused with this status.
    Refused(u16),
    /// It is a request whose head is this long.
    Passes(usize),
}

/// Judges the first bytes of a connection.
pub fn head(bytes: &[u8]) -> Head {
    wake::judge(bytes, &Limits::default())
}

/// The path and query, if they may stand in a `Location`.
pub fn location(target: &str) -> Option<&str> {
    wake::safe_location(target)
}

/// The path that `original` in the query of `/wake` names, if a redirect may lead there.
pub fn original(query: &str) -> Option<String> {
    wake::original(query)
}

/// Reads an exposition that comes in these pieces: each wanted sample as text, and how many lines were not understood.
pub fn exposition<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<String>, usize) {
    read_exposition(pieces)
}

/// Reads an answer of Prometheus and all that is read out of one: how many values and keys there are.
pub fn promql(body: &[u8]) -> Result<usize, String> {
    let from = Endpoint::parse("http://prometheus.example:9090")?;
    read_answer(body, StatusCode::OK, &from).map_err(|error| error.to_string())
}
