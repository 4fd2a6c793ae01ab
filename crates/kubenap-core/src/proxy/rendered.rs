//! What a proxy must be told: objects and texts, with what somebody should know who applies them.

use std::fmt;

use serde_json::Value;

/// All that one proxy must be told for one app.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendered {
    /// Which of the proxy's forms this is.
    pub form: &'static str,
    /// In the order in which they are applied; taken back in the opposite order.
    pub pieces: Vec<Piece>,
    /// What else must be known, one sentence each.
    pub notes: Vec<String>,
    /// What this does to an app that is awake.
    pub hook: Hook,
    /// Why the controller must not apply this itself; none: it may.
    pub by_hand: Option<&'static str>,
}

/// One thing that is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// A whole object that is nobody else's: created, and deleted when it is no longer needed.
    Object(Value),
    /// Some fields of an object that somebody else owns: applied on the server by a field manager of one's own, and
    /// taken back by applying none of them.
    Fields(Value),
    /// Text for a file that only the proxy's administrator writes.
    Text {
        /// Where it goes.
        place: &'static str,
        /// The text.
        text: String,
    },
}

/// What the proxy's hook does to an app that is awake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// There is none: substitution does it.
    None,
    /// Nothing: it may stay in place for good.
    Silent,
    /// What this says: whoever can, applies it only while the app sleeps.
    Touches(&'static str),
}

/// Why nothing can be rendered, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// What is wrong.
    pub problem: String,
    /// What somebody can do.
    pub hint: String,
}

impl Unfit {
    pub(super) fn new(problem: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { problem: problem.into(), hint: hint.into() }
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nhint: {}", self.problem, self.hint)
    }
}

impl std::error::Error for Unfit {}

impl Rendered {
    /// Substitution: nothing to tell.
    pub(super) fn substitution(notes: &[&str]) -> Self {
        let notes = notes.iter().map(|note| (*note).to_owned()).collect();
        Self { form: "substitution", pieces: Vec::new(), notes, hook: Hook::None, by_hand: None }
    }
}
