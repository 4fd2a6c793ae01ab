//! Who decides: a member, what it can do, and how long things take by its settings.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use crate::policy::Policy;

/// The member that decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Its identity.
    pub name: String,
    /// The addresses that it advertises.
    pub addresses: BTreeSet<IpAddr>,
    /// It leads.
    pub leading: bool,
    /// It listens on all wake ports of the app.
    pub listening: bool,
    /// The members that live, this one included.
    pub living: BTreeSet<String>,
}

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// `--drowsy`: how long KubeNap and the pods both answer.
    pub drowsy: Duration,
    /// `--min-awake`: no nap sooner after a wake.
    pub min_awake: Duration,
}

/// An app with a query of its own naps only while what it shows is no older: two scrapes of a minute each, one evaluation
/// of rules and a poll fit into it.
pub const QUERY_LAG: Duration = Duration::from_secs(210);

impl Timing {
    /// Drowsy for longer than this, and whoever armed the app is gone. The last look of an app with a query of its own
    /// waits until what the query shows is past the arming. Every member takes this from the same annotation.
    pub fn abandoned(self, policy: &Policy) -> Duration {
        let lag = if policy.query.is_some() { QUERY_LAG } else { Duration::ZERO };
        (self.drowsy * 10).max(Duration::from_secs(60)) + lag
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self { drowsy: Duration::from_secs(5), min_awake: Duration::from_secs(60) }
    }
}
