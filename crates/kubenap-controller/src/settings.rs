//! What the controller is told at its start.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use kubenap_core::decide::Timing;
use kubenap_core::proxy::WakeAddress;

use crate::activity::{Credentials, SourceSpec};
use crate::clock::Clock;
use crate::wake::ProxyListen;

/// Everything that `kubenap run` can be told, checked already.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to look for apps; empty: everywhere.
    pub namespaces: Vec<String>,
    /// What goes into EndpointSlices; wake ports bind these.
    pub advertise: Vec<IpAddr>,
    /// The wake ports.
    pub wake_ports: RangeInclusive<u16>,
    /// Listeners for asks on proxies' error paths.
    pub proxy_listen: Vec<ProxyListen>,
    /// The Service through which proxies' error paths find the proxy listeners of all members.
    pub wake_service: WakeAddress,
    /// Apps may be substituted; if not, proxies' error paths alone wake them.
    pub substitute: bool,
    /// The hooks of apps that are not substituted are put in place by KubeNap itself, while they sleep.
    pub manage_proxies: bool,
    /// The listener for metrics, health and the API of the command line.
    pub admin_listen: SocketAddr,
    /// The sources of traffic.
    pub sources: Vec<SourceSpec>,
    /// What Prometheus servers want to see.
    pub credentials: Credentials,
    /// How often sources are asked.
    pub poll: Duration,
    /// Quiet this long before a nap, where an app does not say.
    pub idle_after: Duration,
    /// How long the phases take.
    pub timing: Timing,
    /// Naps a minute; none: two percent of the apps, at least one. Zero: no limit.
    pub naps_per_minute: Option<u32>,
    /// Where the Leases live.
    pub lease_namespace: String,
    /// Who this member is: a DNS-1123 subdomain, different for each member.
    pub identity: String,
    /// The uid of the pod that this member is, where the Leases are in the pod's namespace: its Lease goes with it.
    pub pod_uid: Option<String>,
    /// The time.
    pub clock: Clock,
    /// How long a member that leaves goes on answering after it has taken its addresses out.
    pub propagation: Duration,
    /// How long a member that leaves waits for requests under way.
    pub grace: Duration,
    /// How many files this process may have open: each held request is one. None: no limit.
    pub open_files: Option<u64>,
}
