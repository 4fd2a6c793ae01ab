//! What was asked of the API: every write, and how often each kind of request came.
use jiff::Timestamp;
use std::collections::{BTreeMap, VecDeque};

/// One write that a client asked for, carried out or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// When it was answered, on the sandbox's clock.
    pub time: Timestamp,
    /// `create`, `update`, `patch` or `delete`.
    pub verb: String,
    /// Such as `deployments`.
    pub plural: String,
    /// Empty for what has no namespace.
    pub namespace: String,
    /// The object's name; for a create, the one it got.
    pub name: String,
    /// `scale`, `status` or empty.
    pub subresource: String,
    /// The field manager, or else the first word of the user agent.
    pub client: String,
    /// The HTTP status of the answer.
    pub status: u16,
}

/// A verb and a resource (`deployments`, `deployments/scale`), as RBAC rules name them.
pub type RequestCounts = BTreeMap<(String, String), u64>;

/// The last writes and all counts.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(crate) writes: VecDeque<Write>,
    pub(crate) requests: RequestCounts,
    /// Events that watches had to send, by resource.
    pub(crate) events: BTreeMap<String, u64>,
}

/// More writes than any test makes; beyond that the oldest are forgotten.
const KEPT: usize = 100_000;

impl Journal {
    pub(crate) fn request(&mut self, verb: &str, resource: &str) {
        *self.requests.entry((verb.to_owned(), resource.to_owned())).or_default() += 1;
    }

    pub(crate) fn event(&mut self, resource: &str) {
        *self.events.entry(resource.to_owned()).or_default() += 1;
    }

    pub(crate) fn write(&mut self, write: Write) {
        if self.writes.len() == KEPT {
            self.writes.pop_front();
        }
        self.writes.push_back(write);
    }
}
