//! From a connection on a wake port, or a request on a proxy's error path, to its answer.
//!
//! [`Doors`] is the registry between this and the rest of the controller. A connection arrives at a `door`
//! through `listen`; `connection` finds out what it speaks (`sniff`, `head`); `ask` says what the request is;
//! `visit` answers it: it may be held (`hold`), shown the waiting page (`page`), passed (`pass`, `http2`, `raw`)
//! or sent back (`redirect`). `proxy_listen` is the way in from proxies' error paths, `drain` the way out.

mod limits;
mod door;
mod doors;
mod hosts;
mod crowd;
mod budget;
mod listen;
mod connection;
mod sniff;
mod head;
mod stream;
mod ask;
mod visit;
mod hold;
mod body;
mod page;
mod pass;
mod http2;
mod raw;
mod redirect;
mod reply;
mod refuse;
mod proxy_listen;
mod here;
mod drain;

pub(crate) use budget::{Bucket, Rate};
pub use budget::{Turn, WakeBudget};
pub(crate) use connection::judge;
pub(crate) use crowd::Crowd;
pub use door::{AskView, DoorKey, DoorSpec, DoorState};
pub use doors::{Doors, DoorsSettings, OpenError};
pub(crate) use here::Question;
pub(crate) use hosts::stand_for;
pub use hosts::{HostRule, Place};
pub use limits::Limits;
pub(crate) use listen::pause_after;
pub use proxy_listen::{ProxyListen, serve_proxy};
pub(crate) use redirect::{original, safe_location};

#[cfg(test)]
mod tests;
