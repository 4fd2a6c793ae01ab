//! What a sandbox is like: how fast its pods are, and whether they are really listening.
use jiff::Timestamp;
use std::time::Duration;

/// How a sandbox behaves. `Settings::default()` is a quick cluster without sockets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Pods, Services and the toy ingress really listen on loopback addresses.
    pub sockets: bool,
    /// From a pod's creation to its readiness; it runs, not yet ready, after half of that.
    /// A pod template's annotation `sandbox/readyDelay` (such as `2s`) goes before it.
    pub ready_delay: Duration,
    /// A pod that was told to stop lingers, and serves, for this long.
    pub stop_delay: Duration,
    /// `EndpointSlices` follow their pods this late.
    pub slice_delay: Duration,
    /// Watches that asked for bookmarks get one this often.
    pub bookmark_every: Duration,
    /// How many changes a watch can look back; before that it is told 410.
    pub history: usize,
    /// The time at the start; from then on it moves with tokio's clock, which tests can pause.
    pub start: Timestamp,
    /// Where random names and choices begin, so that a run can be repeated.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sockets: false,
            ready_delay: Duration::from_millis(300),
            stop_delay: Duration::from_secs(1),
            slice_delay: Duration::from_millis(50),
            bookmark_every: Duration::from_secs(10),
            history: 10_000,
            start: Timestamp::constant(1_767_258_000, 0),
            seed: 1,
        }
    }
}
