//! The rules that the tree keeps about itself: each is a test, so that nobody has to remember it.
#![expect(clippy::unwrap_used, reason = "a tree that cannot be read is a failed test")]

mod tree;
mod sources;
mod manifests;
mod documents;
