//! What the sandbox does beyond the contract: faults, paused time, broken pods, real sockets.
mod world;
mod time;
mod faults;
mod pods;
mod sockets;
mod refusals;
