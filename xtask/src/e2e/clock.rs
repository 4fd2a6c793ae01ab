//! The machine's clock, asked in one place.

use std::time::SystemTime;

/// Now.
#[expect(
    clippy::disallowed_methods,
    reason = "stories run on the real clock, which this file asks for all of them"
)]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
