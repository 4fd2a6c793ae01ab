//! What should happen next to an app, and why: pure, total, without a clock.
//!
//! The modules in the order in which data flows:
//! an [`App`](app::App) is read from a Deployment's label and annotations ([`policy`]);
//! sources say what traffic they saw ([`activity`]);
//! the cluster says what is there ([`seen`]), from which follows which [`situation`] the app is in;
//! [`decide`](decide::decide) picks the one next [`step`], with the reason ([`why`]) for it;
//! a step gives its [`writes`](write) as data; a [`breaker`] says how soon a wake that failed is tried again. [`answer`] says what a single request gets,
//! [`proxy`] what a proxy must be told so that it asks at all, and [`simulate`] which naps an app would have had in the past.

pub mod app;
pub mod duration;
pub mod policy;
pub mod activity;
pub mod seen;
pub mod situation;
pub mod keep_awake;
pub mod decide;
pub mod step;
pub mod write;
pub mod why;
pub mod breaker;
pub mod answer;
pub mod proxy;
pub mod simulate;
