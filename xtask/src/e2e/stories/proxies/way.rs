//! The ways in: each proxy in each form in which it leads to an app, and what its column in the matrix says of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::{caddy, envoy, envoy_gateway, haproxy, nginx, traefik};
use crate::e2e::cluster::{ENVOY_GATEWAY, TRAEFIK};

/// A proxy program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::e2e::stories) enum Program {
    Nginx,
    Traefik,
    Envoy,
    EnvoyGateway,
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
    /// The same, with a text of `kubenap render` in it; the other one is what it was before.
    Rendered {
        /// As `--proxy` and `--form` name it.
        proxy: &'static str,
        form: &'static str,
        around: fn(&Listen, &Told) -> Result<String>,
        before: fn(&Listen, &[Site]) -> Result<String>,
    },
    /// In the cluster, with the objects of `kubenap render`; the other ones are what was there before.
    Applied { form: &'static str, before: fn(&Site) -> Vec<Value> },
}

/// What `kubenap render` says of an app.
pub(super) struct Told {
    pub(super) site: Site,
    /// As the proxy's administrator gets it.
    pub(super) text: String,
    /// Pieces that are no text: annotations, and what goes into other objects.
    pub(super) pieces: Vec<Value>,
    /// Where `KubeNap` is asked.
    pub(super) wake: SocketAddr,
}

/// An app as a proxy must know it.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// The Deployment, and the Service with the ports 80 (`http`) and 8090 (`alt`).
    pub(super) app: String,
    pub(super) host: String,
    pub(super) cluster_ip: IpAddr,
    /// Where requests for it go.
    pub(super) http: SocketAddr,
    /// Where gRPC calls go.
    pub(super) grpc: SocketAddr,
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
        name: "ngxtext",
        program: Program::Nginx,
        form: "nginx.conf, rendered",
        entry: Entry::Rendered {
            proxy: "nginx",
            form: "plain",
            around: nginx::rendered,
            before: nginx::plain,
        },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "ngxf5",
        program: Program::Nginx,
        form: "F5's directives around the rendered annotations",
        entry: Entry::Rendered { proxy: "nginx", form: "f5", around: nginx::f5, before: nginx::plain },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "ngxerr",
        program: Program::Nginx,
        form: "ingress-nginx's directives around the rendered annotations",
        entry: Entry::Rendered {
            proxy: "nginx",
            form: "ingress-nginx-errors",
            around: nginx::ingress_nginx,
            before: nginx::plain,
        },
        impossible: &[HTTP1_TEXT],
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
        name: "treerr",
        program: Program::Traefik,
        form: "Ingress, rendered middleware `errors`",
        entry: Entry::Applied { form: "ingress", before: traefik::http_ingress },
        impossible: &[HTTP1_TEXT, OWN_502, FORCED_307],
    },
    Way {
        name: "trefail",
        program: Program::Traefik,
        form: "IngressRoute, rendered failover",
        entry: Entry::Applied { form: "ingressroute", before: traefik::ingress_route },
        impossible: &[HTTP1_TEXT, OWN_502],
    },
    Way {
        name: "trerterr",
        program: Program::Traefik,
        form: "IngressRoute, rendered middleware `errors`",
        entry: Entry::Applied { form: "ingressroute-errors", before: traefik::ingress_route },
        impossible: &[HTTP1_TEXT, OWN_502, FORCED_307],
    },
    Way {
        name: "trengx",
        program: Program::Traefik,
        form: "nginx annotations, rendered default-backend",
        entry: Entry::Applied { form: "nginx-annotations", before: traefik::http_nginx_ingress },
        impossible: &[HTTP1_TEXT, OWN_502_503],
    },
    Way {
        name: "envoy",
        program: Program::Envoy,
        form: "static, substitution",
        entry: Entry::File(envoy::plain),
        impossible: &[],
    },
    Way {
        name: "envoylua",
        program: Program::Envoy,
        form: "static, rendered, Lua",
        entry: Entry::Rendered { proxy: "envoy", form: "lua", around: envoy::rendered, before: envoy::plain },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "envoyprio",
        program: Program::Envoy,
        form: "static, rendered, priorities",
        entry: Entry::Rendered {
            proxy: "envoy",
            form: "priority",
            around: envoy::rendered,
            before: envoy::plain,
        },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "envoyhops",
        program: Program::Envoy,
        form: "static, rendered, two hops",
        entry: Entry::Rendered {
            proxy: "envoy",
            form: "redirect",
            around: envoy::rendered,
            before: envoy::plain,
        },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "envoyfil",
        program: Program::Envoy,
        form: "the filter of Istio's rendered EnvoyFilter",
        entry: Entry::Rendered {
            proxy: "istio",
            form: "envoyfilter",
            around: envoy::envoy_filter,
            before: envoy::plain,
        },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "egroute",
        program: Program::EnvoyGateway,
        form: "HTTPRoute, substitution",
        entry: Entry::Objects(envoy_gateway::http_route),
        impossible: &[],
    },
    Way {
        name: "egfall",
        program: Program::EnvoyGateway,
        form: "HTTPRoute, rendered fallback",
        entry: Entry::Applied { form: "fallback", before: envoy_gateway::http1_route },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "haproxy",
        program: Program::Haproxy,
        form: "haproxy.cfg, substitution",
        entry: Entry::File(haproxy::plain),
        impossible: &[],
    },
    Way {
        name: "hatext",
        program: Program::Haproxy,
        form: "haproxy.cfg, rendered",
        entry: Entry::Rendered {
            proxy: "haproxy",
            form: "plain",
            around: haproxy::rendered,
            before: haproxy::plain,
        },
        impossible: &[HTTP1_TEXT],
    },
    Way {
        name: "caddy",
        program: Program::Caddy,
        form: "Caddyfile, substitution",
        entry: Entry::File(caddy::plain),
        impossible: &[],
    },
    Way {
        name: "caddytext",
        program: Program::Caddy,
        form: "Caddyfile, rendered",
        entry: Entry::Rendered {
            proxy: "caddy",
            form: "plain",
            around: caddy::rendered,
            before: caddy::plain,
        },
        impossible: &[HTTP1_TEXT],
    },
];

/// For ways whose text is for HTTP/1.
const HTTP1_TEXT: (&str, &str) =
    ("grpc", "the text is for HTTP/1, and an error path would lose the call's body: use substitution");

/// For Traefik's hooks that look at the status alone.
const OWN_502: (&str, &str) = (
    "own",
    "a 502 of the app's own is taken for its sleep while the hook is in place, so KubeNap applies it for a nap only",
);
/// For Traefik's reading of `custom-http-errors`.
const OWN_502_503: (&str, &str) = (
    "own",
    "a 502 or 503 of the app's own is taken for its sleep while the hook is in place, so KubeNap applies it for a nap only",
);
/// For Traefik's middleware `errors`.
const FORCED_307: (&str, &str) = ("down", "Traefik makes a 307 without a Location of KubeNap's absence");

/// The first port of the processes; each has the next one.
const FIRST_PORT: u16 = 9200;
/// How far from its first port a process listens for gRPC.
const GRPC: u16 = 100;
const NODE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));

/// How far from the first app's port is the slow one's, where each has a process of its own.
const SLOW: u16 = 50;

impl Way {
    /// Where requests and gRPC calls for one of its two apps go.
    pub(super) fn ports(&self, slow: bool) -> (SocketAddr, SocketAddr) {
        let port = match self.entry {
            Entry::Objects(_) | Entry::Applied { .. } => {
                let gateway = self.program == Program::EnvoyGateway;
                let address = if gateway { ENVOY_GATEWAY } else { TRAEFIK };
                return (address, address);
            }
            Entry::Rendered { .. } if slow => self.port() + SLOW,
            Entry::File(_) | Entry::Rendered { .. } => self.port(),
        };
        let grpc = match self.program {
            Program::Nginx | Program::Haproxy => port + GRPC,
            Program::Traefik | Program::Envoy | Program::EnvoyGateway | Program::Caddy => port,
        };
        (SocketAddr::new(NODE, port), SocketAddr::new(NODE, grpc))
    }

    /// Whether a request that waits is always given to the app itself, so that its caller notices nothing but the time.
    pub(super) fn substitutes(&self) -> bool {
        matches!(self.entry, Entry::Objects(_) | Entry::File(_))
    }

    /// Whether `KubeNap` sees on objects that this form's hook is in place: it looks for what is rendered unasked.
    pub(super) fn shows_its_hook(&self) -> bool {
        matches!(self.entry, Entry::Applied { form: "ingress" | "ingressroute", .. })
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
    pub(super) const ALL: [Self; 6] =
        [Self::Nginx, Self::Traefik, Self::Envoy, Self::EnvoyGateway, Self::Haproxy, Self::Caddy];

    /// As people write it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Nginx => "NGINX",
            Self::Traefik => "Traefik",
            Self::Envoy => "Envoy",
            Self::EnvoyGateway => "Envoy Gateway",
            Self::Haproxy => "HAProxy",
            Self::Caddy => "Caddy",
        }
    }

    /// The profile and the port of `KubeNap`'s listener for it.
    pub(super) fn listener(self) -> (&'static str, u16) {
        match self {
            Self::Nginx => ("nginx", 8082),
            Self::Traefik => ("traefik", 8083),
            Self::Envoy => ("envoy", 8084),
            Self::EnvoyGateway => ("envoy-gateway", 8087),
            Self::Haproxy => ("haproxy", 8085),
            Self::Caddy => ("caddy", 8086),
        }
    }

    /// As `e2e/cluster/parts/proxies` names it.
    pub(in crate::e2e::stories) fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik => "traefik",
            Self::Envoy => "envoy",
            Self::EnvoyGateway => "envoy-gateway",
            Self::Haproxy => "haproxy",
            Self::Caddy => "caddy",
        }
    }
}
