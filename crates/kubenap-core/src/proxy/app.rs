//! An app as a proxy sees it, and where KubeNap is asked for it.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use serde_json::Value;

use super::routes::{self, Rule};
use super::{Form, Unfit};
use crate::app::AppId;

/// What is rendered: an app with its way in.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// Which one.
    pub id: AppId,
    /// Its Service ports; the first is its main one, to which its routes lead.
    pub services: Vec<AppService>,
    /// The objects that lead to these Services.
    pub routes: Vec<Route>,
    /// `kubenap/wakeTimeout`: a proxy must have more patience than this with KubeNap.
    pub wake_timeout: Duration,
    /// The form that somebody asked for by name; none: the first that fits.
    pub form: Option<String>,
    /// The proxy's version, where it is known.
    pub version: Option<Version>,
}

/// One port of one of an app's Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppService {
    /// The Service.
    pub name: String,
    /// The port's number.
    pub port: u16,
    /// The port's name, or nothing.
    pub port_name: String,
    /// Its cluster address, where it is known.
    pub ip: Option<IpAddr>,
}

/// An Ingress, IngressRoute, HTTPRoute or VirtualService.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    /// As it stands in the cluster or in a file.
    pub object: Value,
    /// The controller that its IngressClass names, where that is known.
    pub controller: Option<String>,
}

/// Where a proxy finds KubeNap's `--proxy-listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeAddress {
    /// The namespace of KubeNap's Service.
    pub namespace: String,
    /// KubeNap's Service.
    pub service: String,
    /// Its port that leads to the listener with this proxy's profile.
    pub port: u16,
    /// Its cluster address, where it is known: some proxies take no name.
    pub ip: Option<IpAddr>,
}

/// The first two numbers of a program's version, such as 3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl App {
    /// Its main Service port.
    pub fn service(&self) -> Result<&AppService, Unfit> {
        self.services.first().ok_or_else(|| {
            Unfit::new(
                format!("{} has no Service", self.id),
                "a Service whose selector matches its pods, or `kubenap/service` on the Deployment",
            )
        })
    }

    /// The first route of a kind, such as `Ingress`.
    pub fn route(&self, kind: &str) -> Option<&Route> {
        self.routes.iter().find(|route| route.kind() == kind)
    }

    /// The rules of all routes that lead to one of its Services.
    pub fn rules(&self) -> Vec<Rule> {
        let own = |rule: &Rule| self.services.iter().any(|service| service.name == rule.service);
        let rules = self.routes.iter().flat_map(|route| routes::rules(&route.object));
        rules.filter(own).collect()
    }

    /// Where a proxy that is configured by hand finds its main Service: by address where that is known, since not every
    /// proxy can ask the cluster's DNS.
    pub(super) fn place(&self) -> Result<Place, Unfit> {
        Ok(self.place_of(self.service()?))
    }

    /// The same for another of its Service ports.
    pub(super) fn place_of(&self, service: &AppService) -> Place {
        let name = format!("{}.{}.svc", service.name, self.id.namespace);
        Place { host: service.ip.map_or(name, |ip| ip.to_string()), port: service.port }
    }

    /// Its name as every configuration takes one: letters, digits and `_`. With a digest, for `a-b/c` and `a/b-c` are one
    /// word; and short, for NGINX has no room for long ones.
    pub(super) fn word(&self) -> String {
        format!("kubenap_{}", self.id.digest())
    }

    /// Whether what is said of an Ingress would be said of somebody else's Services, too.
    pub(super) fn shares(&self, ingress: &Route) -> bool {
        let own = |name: &str| self.services.iter().any(|service| service.name == name);
        routes::ingress_backends(&ingress.object)
            .iter()
            .any(|backend| backend["service"]["name"].as_str().is_none_or(|name| !own(name)))
    }

    /// What the rules of its IngressRoutes match, where it is not understood which hosts and paths that are.
    pub(super) fn unread(&self) -> Vec<&str> {
        let own = |name: &str| self.services.iter().any(|service| service.name == name);
        self.routes.iter().flat_map(|route| routes::unread(&route.object, &self.id.namespace, own)).collect()
    }

    /// What must be known beside a text for a file.
    pub(super) fn notes_on_text(&self) -> Vec<String> {
        let note = |rule: &str| {
            format!(
                "The rule `{rule}` is not understood: KubeNap answers 404 for what only it leads to, and its hosts are not in the text."
            )
        };
        self.unread().into_iter().map(note).collect()
    }

    /// How long a proxy waits for KubeNap's answer, in seconds.
    pub(super) fn patience(&self) -> u64 {
        self.wake_timeout.as_secs().saturating_add(10)
    }

    /// Its host names, each once, in order; nothing where one of its rules is for every host.
    pub fn hosts(&self) -> Vec<String> {
        let mut hosts: Vec<_> = self.rules().into_iter().map(|rule| rule.host).collect();
        if hosts.iter().any(|host| host == "*") {
            return Vec::new();
        }
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// The form that was asked for, else what `fits` says.
    pub(super) fn form(&self, forms: &'static [Form], fits: &'static str) -> Result<&'static str, Unfit> {
        let Some(wanted) = &self.form else { return Ok(fits) };
        forms.iter().find(|form| form.name == wanted).map(|form| form.name).ok_or_else(|| {
            let names: Vec<_> = forms.iter().map(|form| form.name).collect();
            Unfit::new(
                format!("there is no form `{wanted}`; accepted: {}", names.join(", ")),
                "leave --form out",
            )
        })
    }
}

impl Route {
    /// Its kind, such as `Ingress`.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// One of its annotations.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.object["metadata"]["annotations"][name].as_str()
    }
}

impl WakeAddress {
    /// Its name in the cluster's DNS.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.service, self.namespace)
    }

    /// Where a proxy that is configured by hand finds it.
    pub(super) fn place(&self) -> Place {
        Place { host: self.ip.map_or_else(|| self.host(), |ip| ip.to_string()), port: self.port }
    }

    /// Its cluster address, or what to do to have one.
    pub(super) fn ip(&self) -> Result<IpAddr, Unfit> {
        self.ip.ok_or_else(|| {
            Unfit::new(
                format!("the cluster address of Service {}/{} is not known", self.namespace, self.service),
                "give --wake-ip, or name the file of that Service as the cluster has it, or render from the cluster itself",
            )
        })
    }
}

/// A host and a port. Shown as `web.shop.svc:80` or `[::1]:80`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl Default for WakeAddress {
    /// What the chart makes of itself.
    fn default() -> Self {
        Self { namespace: "kubenap-system".to_owned(), service: "kubenap".to_owned(), port: 80, ip: None }
    }
}

impl FromStr for WakeAddress {
    type Err = String;

    /// `NAMESPACE/SERVICE[:PORT]`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse =
            || format!("`{text}` is no Service; accepted: NAMESPACE/SERVICE or NAMESPACE/SERVICE:PORT");
        let (namespace, rest) = text.split_once('/').ok_or_else(refuse)?;
        let (service, port) = match rest.split_once(':') {
            Some((service, port)) => {
                (service, port.parse().ok().filter(|port| *port > 0).ok_or_else(refuse)?)
            }
            None => (rest, 80),
        };
        let name = |text: &str| {
            !text.is_empty()
                && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        if !name(namespace) || !name(service) {
            return Err(refuse());
        }
        Ok(Self { namespace: namespace.to_owned(), service: service.to_owned(), port, ip: None })
    }
}

impl FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || format!("`{text}` is not a version; accepted: MAJOR.MINOR, such as 3.4");
        let (major, rest) = text.strip_prefix('v').unwrap_or(text).split_once('.').ok_or_else(refuse)?;
        let minor = rest.split('.').next().unwrap_or_default();
        Ok(Self { major: major.parse().map_err(|_| refuse())?, minor: minor.parse().map_err(|_| refuse())? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}
