//! The way in from proxies' error paths: which app a request is for, by the names that the proxy set.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use http::header::HOST;
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request};
use kubenap_core::proxy::{Doubt, Proxy, Reach, RequestHead};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, Entry, serve, turn_away};
use super::door::Door;
use super::doors::{Doors, Shared};
use super::listen::{keep_alive, pause_after};

/// A value of `--proxy-listen`: `[PROFILE=]ADDR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyListen {
    /// Whose headers are read: one proxy program's, so that no other header can name the app.
    pub profile: Proxy,
    /// Where to listen.
    pub address: SocketAddr,
}

impl FromStr for ProxyListen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (profile, address) = match text.split_once('=') {
            Some((profile, address)) => (profile.parse()?, address),
            None => (Proxy::default(), text),
        };
        let address = address.parse().map_err(|_| {
            format!("`{address}` is not an address; accepted: IP:PORT, as in any=0.0.0.0:8080")
        })?;
        Ok(Self { profile, address })
    }
}

impl fmt::Display for ProxyListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.profile, self.address)
    }
}

/// Serves a proxy listener until `shutdown` is cancelled or the member leaves.
/// Connections under way are finished by [`Doors::drain`].
pub async fn serve_proxy(listener: TcpListener, profile: Proxy, doors: Doors, shutdown: CancellationToken) {
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

/// A request on an error path whose door is known.
pub(crate) struct Found {
    pub(crate) door: Arc<Door>,
    /// Where its redirect leads.
    pub(crate) location: String,
    pub(crate) reach: Reach,
    /// The method of the client's own request, where this is another one.
    pub(crate) method: Option<Method>,
    /// The client wants another protocol.
    pub(crate) upgrade: bool,
}

/// Which door a request is for, as its proxy says and the hosts that are registered confirm. It costs no call: what is
/// not known is nobody's.
pub(crate) fn find<B>(shared: &Shared, profile: Proxy, request: &Request<B>) -> Result<Found, Doubt> {
    let fields: Vec<_> = request
        .headers()
        .iter()
        // What is no text means nothing to anybody; dropped, it could hide that there are two.
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or("\0")))
        .collect();
    let head = RequestHead {
        method: request.method().as_str(),
        uri: request.uri().path_and_query().map_or("", PathAndQuery::as_str),
        host: host_of(request),
        fields: &fields,
    };
    let target = profile.target(&head)?;
    let hosts = shared.hosts();
    let mut found = BTreeSet::new();
    for host in &target.hosts {
        found.extend(hosts.find(host, &target.location));
    }
    // Names that lead to different doors: one of them is not the proxy's.
    let (Some(key), None) = (found.pop_first(), found.pop_first()) else { return Err(Doubt::Whom) };
    if target.service.is_some_and(|named| named != (&*key.namespace, &*key.service)) {
        return Err(Doubt::Whom);
    }
    let door = shared.door(key).ok_or(Doubt::Whom)?;
    let method = (target.method != head.method).then(|| target.method.parse().map_err(|_| Doubt::Whom));
    Ok(Found {
        door,
        method: method.transpose()?,
        location: target.location,
        reach: target.reach,
        upgrade: target.upgrade,
    })
}

/// The one name that the request is for.
fn host_of<B>(request: &Request<B>) -> Option<&str> {
    let mut named = request.headers().get_all(HOST).into_iter();
    let own = named.next();
    let authority = request.uri().authority().map(Authority::as_str);
    match (own, named.next(), authority) {
        (Some(own), None, None) => own.to_str().ok(),
        (Some(own), None, Some(authority)) => own.to_str().ok().filter(|own| *own == authority),
        (None, _, authority) => authority,
        (Some(_), Some(_), _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_a_profile_and_an_address() {
        let parsed: ProxyListen = "any=127.0.0.1:8080".parse().unwrap();
        assert_eq!(parsed, "127.0.0.1:8080".parse().unwrap());
        assert_eq!(parsed.to_string(), "any=127.0.0.1:8080");
        assert_eq!("nginx=[::1]:80".parse::<ProxyListen>().unwrap().profile.to_string(), "nginx");
        assert_eq!(
            "x=127.0.0.1:80".parse::<ProxyListen>().unwrap_err(),
            "`x` is not a proxy; accepted: any, nginx, traefik, envoy, istio, envoy-gateway, haproxy, caddy"
        );
        assert!("any=localhost".parse::<ProxyListen>().unwrap_err().contains("accepted: IP:PORT"));
    }
}
