//! The network: addresses, the apps in the pods, the Services' addresses, a toy ingress.
pub(crate) mod addresses;
