//! Gathers the facts about apps and carries out the steps.
//!
//! Folder by folder, in the order in which a request's life goes: [`activity`] learns what traffic there is;
//! [`cluster`] what Kubernetes says; [`decide`] puts both into the core's facts and takes one step;
//! [`eager`] asks pods that start; [`nap`] carries its writes out; [`wake`] answers requests while an app sleeps; [`web`] shows it all.

pub mod settings;
pub mod activity;
pub mod cluster;
pub mod decide;
pub mod eager;
pub mod nap;
pub mod routes;
mod leading;
mod elsewhere;
pub mod survey;
pub mod wake;
pub mod web;
pub mod run;
pub mod clock;
pub mod telemetry;
#[doc(hidden)]
pub mod untrusted;
