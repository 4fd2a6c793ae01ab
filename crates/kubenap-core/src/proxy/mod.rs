//! What each proxy must be told so that its own error path wakes an app, and what its requests say: pure.
//!
//! Each proxy is one file with one [`ProxyPlugin`], and one line in [`PLUGINS`]. [`app`] is what is rendered,
//! [`rendered`] what comes out, [`routes`] which hosts and paths lead where ([`expression`]: by an expression of Traefik's;
//! [`reach`]: by which hosts and gateways alone), [`outright`] which of them without any other condition, [`read`] finds both
//! among objects, [`head`] how a request on an error path is read, [`location`] where a redirect may lead, [`objects`] what
//! several proxies need alike.

use std::fmt;
use std::str::FromStr;

pub mod app;
pub mod rendered;
pub mod routes;
pub mod outright;
pub mod read;
pub mod head;
pub mod location;
mod expression;
mod reach;
mod objects;
mod any;
mod nginx;
mod traefik;
mod envoy;
mod istio;
mod envoy_gateway;
mod haproxy;
mod caddy;

pub use app::{App, AppService, Route, Version, WakeAddress};
pub use head::{Doubt, Reach, RequestHead, Target};
pub use rendered::{Hook, Piece, Rendered, Unfit};

/// One proxy program.
pub trait ProxyPlugin: fmt::Debug + Sync {
    /// As in `kubenap/proxy`, `kubenap render --proxy` and `--proxy-listen`.
    fn name(&self) -> &'static str;

    /// The ways to tell this proxy, each with what it is for. The first that fits the app's routes is rendered where
    /// none is named.
    fn forms(&self) -> &'static [Form];

    /// What the proxy must be told so that `app`, while it sleeps, is asked for at `wake`.
    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit>;

    /// What a request that this proxy sent from its error path is about. Only what the proxy itself sets is read.
    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt>;
}

/// One way to tell a proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Its name, for `kubenap render --form`.
    pub name: &'static str,
    /// What it is for, in one line.
    pub about: &'static str,
    /// The kind of route that it hangs on; none: it is text for a file.
    pub route: Option<&'static str>,
}

/// Every proxy.
pub const PLUGINS: &[&dyn ProxyPlugin] = &[
    &any::Any,
    &nginx::Nginx,
    &traefik::Traefik,
    &envoy::Envoy,
    &istio::Istio,
    &envoy_gateway::EnvoyGateway,
    &haproxy::HaProxy,
    &caddy::Caddy,
];

/// A proxy out of [`PLUGINS`]; by default `any`.
#[derive(Clone, Copy)]
pub struct Proxy(&'static dyn ProxyPlugin);

impl Proxy {
    /// The one of this name.
    pub fn find(name: &str) -> Option<Self> {
        PLUGINS.iter().find(|plugin| plugin.name() == name).copied().map(Self)
    }

    /// The names of all, as they are listed for people.
    pub fn names() -> String {
        PLUGINS.iter().map(|plugin| plugin.name()).collect::<Vec<_>>().join(", ")
    }

    /// What it can do.
    pub fn plugin(self) -> &'static dyn ProxyPlugin {
        self.0
    }

    /// What a request from this proxy is about; `/wake?original=…` is understood from each of them.
    pub fn target<'a>(self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        match head::asked_by_name(head) {
            Some(target) => target,
            None => self.0.target(head),
        }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self(&any::Any)
    }
}

impl PartialEq for Proxy {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Eq for Proxy {}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl FromStr for Proxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::find(text).ok_or_else(|| format!("`{text}` is not a proxy; accepted: {}", Self::names()))
    }
}
