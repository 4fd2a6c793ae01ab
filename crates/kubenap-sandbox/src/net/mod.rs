//! The network: addresses, the apps in the pods, the Services' addresses, a toy ingress.
pub(crate) mod addresses;
pub(crate) mod backend;
pub(crate) mod endpoints;
pub(crate) mod proxy;
pub(crate) mod routes;
pub(crate) mod metrics;
pub(crate) mod ingress;
