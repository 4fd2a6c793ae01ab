//! The command as people and scripts meet it: help, exit codes, messages, and which of three places a flag is taken from.
#![expect(clippy::unwrap_used, reason = "a program that cannot be started is a failed test")]

mod command;
mod help;
mod usage;
mod render;
mod cluster;
mod config;
