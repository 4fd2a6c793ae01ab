//! From flags to what the controller is told; all mistakes at once.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::Context as _;
use kubenap_controller::activity::{Authorization, Credentials, Secret};
use kubenap_controller::clock::Clock;
use kubenap_controller::settings::Settings;
use kubenap_core::decide::Timing;
use kubenap_core::proxy::WakeAddress;

use crate::args::{ClusterArgs, RunArgs};
use crate::connect;
use crate::outcome::Outcome;

/// How long a member that leaves goes on answering after it has taken its addresses out.
const PROPAGATION: Duration = Duration::from_secs(6);
/// How long it waits for requests under way.
const GRACE: Duration = Duration::from_secs(40);

/// Settings for `kubenap run` against the cluster of `config`.
pub(crate) fn settings(
    run: RunArgs,
    cluster: &ClusterArgs,
    config: &kube::Config,
) -> anyhow::Result<Settings> {
    let RunArgs {
        advertise_address,
        wake_ports,
        proxy_listen,
        admin_listen,
        source: _,
        sources,
        poll,
        idle_after,
        min_awake,
        drowsy,
        naps_per_minute,
        identity,
        wake_service,
        no_substitute,
        manage_proxies,
    } = run;
    let mut mistakes = Vec::new();
    let advertise = match advertise(advertise_address, config) {
        Ok(addresses) => addresses,
        Err(error) => {
            mistakes.push(format!("{error:#}"));
            Vec::new()
        }
    };
    for address in &advertise {
        if address.is_unspecified() || address.is_multicast() {
            mistakes.push(format!("--advertise-address: {address} is no address that clients can reach"));
        }
    }
    let v4 = advertise.iter().filter(|address| address.is_ipv4()).count();
    if v4 > 1 || advertise.len() - v4 > 1 {
        mistakes.push(
            "--advertise-address: more than one address of a family; accepted: one a family".to_owned(),
        );
    }
    let identity = identity.unwrap_or_else(own_name);
    if !is_name(&identity) {
        mistakes.push(format!(
            "--identity: `{identity}` cannot name a Lease; accepted: lower case letters, digits, - and ., at most 200"
        ));
    }
    if !mistakes.is_empty() {
        return Err(anyhow::Error::new(Outcome::Usage).context(mistakes.join("\n")));
    }
    let lease_namespace = connect::lease_namespace(cluster);
    // A Lease whose owner is not found in its namespace would be cleared away.
    let is_pod = variable("POD_NAME").as_ref() == Some(&identity)
        && variable("POD_NAMESPACE").as_ref() == Some(&lease_namespace);
    let own = WakeAddress { namespace: lease_namespace.clone(), ..WakeAddress::default() };
    Ok(Settings {
        namespaces: cluster.namespace.clone(),
        advertise,
        wake_ports: wake_ports.from..=wake_ports.to,
        proxy_listen,
        wake_service: wake_service.unwrap_or(own),
        substitute: !no_substitute,
        manage_proxies,
        admin_listen,
        sources,
        credentials: credentials(),
        poll,
        idle_after,
        timing: Timing { drowsy, min_awake },
        naps_per_minute,
        lease_namespace,
        identity,
        pod_uid: variable("POD_UID").filter(|_| is_pod),
        clock: Clock::System,
        propagation: PROPAGATION,
        grace: GRACE,
        open_files: open_files(),
    })
}

/// What Prometheus servers get that a flag names.
pub(crate) fn credentials() -> Credentials {
    let token = variable("KUBENAP_PROMETHEUS_TOKEN_FILE").map(|path| Secret::File(path.into()));
    let token = token.or_else(|| variable("KUBENAP_PROMETHEUS_TOKEN").map(Secret::Text));
    Credentials { authorization: token.map(Authorization::Bearer), ..Credentials::default() }
}

fn advertise(given: Vec<IpAddr>, config: &kube::Config) -> anyhow::Result<Vec<IpAddr>> {
    if !given.is_empty() {
        return Ok(given);
    }
    if let Some(text) = variable("POD_IP") {
        let address = text.parse().with_context(|| format!("POD_IP: `{text}` is not an IP address"))?;
        return Ok(vec![address]);
    }
    let host = config.cluster_url.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    // Connecting a datagram socket sends nothing; it only asks the system for the route.
    let route = || -> std::io::Result<IpAddr> {
        let any: SocketAddr = if host.contains(':') { ([0_u16; 8], 0).into() } else { ([0_u8; 4], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect((host.as_str(), port))?;
        Ok(socket.local_addr()?.ip())
    };
    let address = route()
        .context("cannot tell which local address leads to the API server; give --advertise-address")?;
    Ok(vec![address])
}

/// Raises the limit of open files as far as it goes, and says how far. Each held request is one.
fn open_files() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::warn!(%error, "cannot raise the limit of open files");
            current
        }
    }
}

/// The host's name with a random tail: two members on one host are two.
fn own_name() -> String {
    if let Some(name) = variable("POD_NAME") {
        return name;
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let clean: String = host
        .trim()
        .to_ascii_lowercase()
        .chars()
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
        .take(60)
        .collect();
    // The standard library's hasher is seeded at random in every process.
    let tail =
        std::hash::BuildHasher::hash_one(&std::collections::hash_map::RandomState::new(), clean.as_str());
    let host = clean.trim_matches('-');
    format!("{}-{:06x}", if host.is_empty() { "kubenap" } else { host }, tail & 0x00ff_ffff)
}

/// An environment variable that is there and says something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn is_name(text: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    text.len() <= 200
        && text.starts_with(good)
        && text.ends_with(good)
        && text.chars().all(|c| good(c) || c == '-' || c == '.')
}
