//! Gathers the facts about apps and carries out the steps.

pub mod activity;
pub mod clock;
pub mod telemetry;
pub mod wake;
