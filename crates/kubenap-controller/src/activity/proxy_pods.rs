//! To be filled in a moment.
