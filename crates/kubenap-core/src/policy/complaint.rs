//! What is wrong with an annotation: its key, its value, and what is accepted.

use std::fmt;

use super::keys;

/// Something on a Deployment that KubeNap cannot follow.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Complaint {
    /// The label or annotation.
    pub key: String,
    /// Its value, at most the first 64 characters.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What is accepted.
    pub accepted: String,
    /// Whether naps are forbidden by it.
    pub weight: Weight,
}

/// What follows from a complaint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Weight {
    /// No nap until it is mended.
    Refuses,
    /// Worth saying; naps go on.
    Warns,
}

impl Complaint {
    pub(super) fn refuses(key: &str, value: &str, problem: &str, accepted: &str) -> Self {
        Self::new(key, value, problem, accepted, Weight::Refuses)
    }

    pub(super) fn later(key: &str, value: &str, weight: Weight, accepted: &str) -> Self {
        let problem = match weight {
            Weight::Refuses => "is understood, but not carried out by this version, so the app is kept awake",
            Weight::Warns => "is understood, but does nothing more than the default in this version",
        };
        Self::new(key, value, problem, accepted, weight)
    }

    pub(super) fn unknown(key: &str, value: &str) -> Self {
        let accepted = match keys::nearest(key) {
            Some(near) => format!("did you mean {near}?"),
            None => "the keys that KubeNap's reference page lists".to_owned(),
        };
        Self::new(key, value, "is not a key of KubeNap", &accepted, Weight::Refuses)
    }

    fn new(key: &str, value: &str, problem: &str, accepted: &str, weight: Weight) -> Self {
        let value = value.chars().take(64).collect();
        Self {
            key: key.to_owned(),
            value,
            problem: problem.to_owned(),
            accepted: accepted.to_owned(),
            weight,
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, problem, accepted, weight: _ } = self;
        write!(f, "{}: \"{}\" {problem}; accepted: {accepted}", key.escape_debug(), value.escape_debug())
    }
}
