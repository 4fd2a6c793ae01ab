//! The data plane over real loopback sockets, with small servers in the place of pods.

mod world;
mod http1;
mod http2;
mod other;
mod proxy;
mod profiles;
mod slow;
mod corpora;
mod silence;
