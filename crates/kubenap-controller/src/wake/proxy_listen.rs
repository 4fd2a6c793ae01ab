//! The way in from proxies' error paths: which app a request is for, by the names that the proxy set.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderName, Request, StatusCode};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::ask::tokens;
use super::connection::{Connection, Entry, serve, turn_away};
use super::door::Door;
use super::doors::{Doors, Shared};
use super::listen::{keep_alive, pause_after};
use super::redirect::{original, safe_location};

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
        let address = address.parse().map_err(|_| {
            format!("`{address}` is not an address; accepted: IP:PORT, as in any=0.0.0.0:8080")
        })?;
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
    let shared = doors.shared;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return,
            () = shared.closed.cancelled() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        // A proxy is one peer with many connections: it gives some up only for one that has far fewer.
        let Some(slot) = shared.strangers.enter(&Arc::new(peer.ip())) else {
            shared.tasks.spawn(turn_away(stream));
            continue;
        };
        keep_alive(&stream);
        let entry = Entry::ErrorPath(profile, Arc::new(slot));
        let connection = Connection { shared: Arc::clone(&shared), peer: peer.ip(), entry };
        shared.tasks.spawn(serve(stream, connection));
    }
}

/// Which door a request is for, and where its redirect leads; or the status that says there is none.
pub(crate) fn find<B>(
    shared: &Shared,
    profile: Profile,
    request: &Request<B>,
) -> Result<(Arc<Door>, String), StatusCode> {
    let Profile::Any = profile;
    let path = request.uri().path();
    let location = if path == "/wake" {
        // No redirect leads nowhere: a `/wake` without a good path is a mistake, and wakes nothing.
        original(request.uri().query().unwrap_or_default()).ok_or(StatusCode::BAD_REQUEST)?
    } else {
        target(request).ok_or(StatusCode::BAD_REQUEST)?
    };
    let hosts = shared.hosts();
    let mut found = BTreeSet::new();
    for host in hosts_of(request) {
        found.extend(hosts.find(host, &location));
    }
    // Names that lead to different doors: one of them is not the proxy's.
    let (Some(key), None) = (found.pop_first(), found.pop_first()) else { return Err(StatusCode::NOT_FOUND) };
    let door = shared.door(key).ok_or(StatusCode::NOT_FOUND)?;
    Ok((door, location))
}

/// Where the client wanted to go: as the proxy says, or else where the request itself goes.
fn target<B>(request: &Request<B>) -> Option<String> {
    let told = ["x-original-uri", "x-forwarded-uri"].into_iter().find_map(|name| {
        let mut values = request.headers().get_all(name).into_iter();
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        safe_location(value.to_str().ok()?)
    });
    let own = || safe_location(request.uri().path_and_query()?.as_str());
    told.or_else(own).map(str::to_owned)
}

/// Every name that the request may be for.
fn hosts_of<B>(request: &Request<B>) -> impl Iterator<Item = &str> {
    let headers = request.headers();
    let own = headers.get_all(HOST).into_iter().filter_map(|host| host.to_str().ok());
    let authority = request.uri().authority().map(http::uri::Authority::as_str);
    let forwarded = HeaderName::from_static("x-forwarded-host");
    let told: Vec<_> = tokens(headers, &forwarded).collect();
    own.chain(authority).chain(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_profile_and_an_address() {
        let parsed: ProxyListen = "any=127.0.0.1:8080".parse().unwrap();
        assert_eq!(parsed, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(parsed.to_string(), "any=127.0.0.1:8080");
        assert_eq!(
            "nginx=127.0.0.1:80".parse::<ProxyListen>().unwrap_err(),
            "the proxy profile `nginx` comes in a later version; accepted: any"
        );
        assert_eq!(
            "x=127.0.0.1:80".parse::<ProxyListen>().unwrap_err(),
            "`x` is not a proxy profile; accepted: any"
        );
        assert!("any=localhost".parse::<ProxyListen>().unwrap_err().contains("accepted: IP:PORT"));
    }
}
