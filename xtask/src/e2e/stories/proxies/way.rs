//! The ways in: each proxy in each form in which it leads to an app, and what its column in the matrix says of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{caddy, envoy, haproxy, nginx, traefik};
use crate::e2e::cluster::TRAEFIK;

/// A proxy program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Program {
    Nginx,
    Traefik,
    Envoy,
    Haproxy,
    Caddy,
}

/// How an app is reached, and how a request for one that sleeps gets to `KubeNap`.
pub(super) struct Way {
    /// Names its apps and hosts.
    pub(super) name: &'static str,
    pub(super) program: Program,
    /// The head of its column.
    pub(super) form: &'static str,
    pub(super) entry: Entry,
    /// Cases that cannot be, each with the reason.
    pub(super) impossible: &'static [(&'static str, &'static str)],
}

/// Where a proxy's configuration is.
pub(super) enum Entry {
    /// In the cluster: objects.
    Objects(fn(&Site) -> Vec<Value>),
    /// In a file of a process beside the cluster.
    File(fn(&Listen, &[Site]) -> Result<String>),
}

/// An app as a proxy must know it.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The Deployment, and the Service with the ports 80 (`http`) and 8090 (`alt`).
    pub(super) app: String,
    pub(super) host: String,
    pub(super) cluster_ip: IpAddr,
    /// How long the proxy waits for the app's answer.
    pub(super) timeout: Duration,
}

/// Where a process listens, and what it may write into.
#[derive(Clone, Debug)]
pub(super) struct Listen {
    pub(super) http: SocketAddr,
    /// For gRPC, where one port cannot be for both.
    pub(super) grpc: SocketAddr,
    pub(super) folder: std::path::PathBuf,
}

/// All of them, by substitution first.
pub(super) const WAYS: &[Way] = &[
    Way {
        name: "nginx",
        program: Program::Nginx,
        form: "nginx.conf, substitution",
        entry: Entry::File(nginx::plain),
        impossible: &[],
    },
    Way {
        name: "ingress",
        program: Program::Traefik,
        form: "Ingress, substitution",
        entry: Entry::Objects(traefik::ingress),
        impossible: &[],
    },
    Way {
        name: "route",
        program: Program::Traefik,
        form: "IngressRoute, substitution",
        entry: Entry::Objects(traefik::ingress_route),
        impossible: &[],
    },
    Way {
        name: "ngxann",
        program: Program::Traefik,
        form: "nginx annotations, substitution",
        entry: Entry::Objects(traefik::nginx_annotations),
        impossible: &[],
    },
    Way {
        name: "gateway",
        program: Program::Traefik,
        form: "HTTPRoute, substitution",
        entry: Entry::Objects(traefik::http_route),
        impossible: &[],
    },
    Way {
        name: "envoy",
        program: Program::Envoy,
        form: "static, substitution",
        entry: Entry::File(envoy::plain),
        impossible: &[],
    },
    Way {
        name: "haproxy",
        program: Program::Haproxy,
        form: "haproxy.cfg, substitution",
        entry: Entry::File(haproxy::plain),
        impossible: &[],
    },
    Way {
        name: "caddy",
        program: Program::Caddy,
        form: "Caddyfile, substitution",
        entry: Entry::File(caddy::plain),
        impossible: &[],
    },
];

/// The first port of the processes; each has the next one.
const FIRST_PORT: u16 = 9200;
/// How far from its first port a process listens for gRPC.
const GRPC: u16 = 100;
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

impl Way {
    /// Where requests go.
    pub(super) fn http(&self) -> SocketAddr {
        match self.entry {
            Entry::Objects(_) => TRAEFIK,
            Entry::File(_) => SocketAddr::new(NODE, self.port()),
        }
    }

    /// Where gRPC calls go.
    pub(super) fn grpc(&self) -> SocketAddr {
        match (&self.entry, self.program) {
            (Entry::Objects(_), _) => TRAEFIK,
            (Entry::File(_), Program::Nginx | Program::Haproxy) => {
                SocketAddr::new(NODE, self.port() + GRPC)
            }
            (Entry::File(_), Program::Traefik | Program::Envoy | Program::Caddy) => self.http(),
        }
    }

    /// Why a case cannot be here.
    pub(super) fn impossible(&self, case: &str) -> Option<&'static str> {
        self.impossible.iter().find(|(name, _)| *name == case).map(|(_, why)| *why)
    }

    fn port(&self) -> u16 {
        let place = WAYS.iter().position(|way| way.name == self.name).unwrap_or_default();
        FIRST_PORT + u16::try_from(place).unwrap_or_default()
    }
}

impl Program {
    /// All of them, in the matrix's order.
    pub(super) const ALL: [Self; 5] = [Self::Nginx, Self::Traefik, Self::Envoy, Self::Haproxy, Self::Caddy];

    /// As people write it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Nginx => "NGINX",
            Self::Traefik => "Traefik",
            Self::Envoy => "Envoy",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
        }
    }

    /// As `e2e/cluster/parts/proxies` names it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }
}
