//! What the label and annotations of a Deployment ask for, with every complaint at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::answer::WakeMode;
use crate::app::{PREFIX, key};
use crate::duration;
use crate::proxy::Proxy;

mod complaint;
mod keys;
mod query;

pub use complaint::{Complaint, Weight};
pub use keys::{KEYS, Key, is_like};

/// How one app naps and wakes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The Services named; none: those whose selector matches the pods.
    pub services: Option<Vec<String>>,
    /// The Ingresses named; none: all that route to the Services.
    pub ingresses: Option<Vec<String>>,
    /// Quiet this long before a nap.
    pub idle_after: Duration,
    /// Replicas to wake to; none: as many as it fell asleep with.
    pub replica_count: Option<u32>,
    /// The proxy in front.
    pub proxy: Proxy,
    /// How requests are answered.
    pub wake: WakeMode,
    /// How long a request is held before a 307.
    pub hold_for: Duration,
    /// How long a request that must be passed is held.
    pub wake_timeout: Duration,
    /// The sources asked for this app; none: all.
    pub metrics: Option<Vec<String>>,
    /// What Prometheus is asked in place of what proxies count.
    pub query: Option<String>,
    /// Path prefixes that never wake.
    pub ignore_paths: Vec<String>,
    /// Parts of `User-Agent`, lower case, that never wake.
    pub ignore_user_agents: Vec<String>,
    /// Whether a zero that KubeNap did not make is woken.
    pub adopt_zero: Option<bool>,
    /// Whether KubeNap puts its addresses into the Services. If not, the error path of the proxy in front alone leads
    /// to KubeNap while the app sleeps.
    pub substitute: bool,
    /// Somebody vouches for the hook on the proxy's error path.
    pub hook_declared: bool,
    /// A person's request.
    pub wish: Option<Wish>,
}

/// What a person asks for with `kubenap/wish`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wish {
    /// Nap now; a request in the drowsy phase cancels.
    Nap,
    /// Nap now; requests in the drowsy phase are passed and it goes on.
    ForceNap,
    /// Wake now.
    Wake,
}

/// What holds for apps that do not say.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// `--idle-after`.
    pub idle_after: Duration,
    /// The names of the sources that are configured; empty: not known, any name is accepted.
    pub sources: Vec<String>,
    /// Those of them that count for apps that do not choose.
    pub by_default: Vec<String>,
    /// Those of them that ask a query of an app's own.
    pub asking: Vec<String>,
    /// Whether EndpointSlices may be written at all; not with `--no-substitute`.
    pub substitute: bool,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            idle_after: Duration::from_secs(600),
            sources: Vec::new(),
            by_default: Vec::new(),
            asking: Vec::new(),
            substitute: true,
        }
    }
}

/// A policy with what is wrong with its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What can be understood; defaults stand in for the rest.
    pub policy: Policy,
    /// Everything that cannot; one of weight [`Weight::Refuses`] forbids naps.
    pub complaints: Vec<Complaint>,
}

/// A label's or annotation map of Kubernetes.
pub type Texts = BTreeMap<String, String>;

/// Whether the label opts the Deployment in.
pub fn opted_in(labels: &Texts) -> bool {
    labels.get(key::ENABLED).is_some_and(|value| value == "true")
}

/// Reads everything. Never fails: what is not understood is a complaint.
pub fn read(labels: &Texts, annotations: &Texts, defaults: &Defaults) -> Reading {
    let mut complaints = Vec::new();
    if let Some(value) = labels.get(key::ENABLED).filter(|value| !matches!(value.as_str(), "true" | "false"))
    {
        complaints.push(Complaint::refuses(key::ENABLED, value, "is not understood", "true or false"));
    }
    for (name, value) in annotations.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
        if name == key::ENABLED {
            complaints.push(Complaint::refuses(
                name,
                value,
                "is an annotation here",
                "this key as a label, with the value true",
            ));
        } else if let Some(known) = keys::find(name) {
            if let keys::Status::Later(weight) = known.status() {
                complaints.push(Complaint::later(name, value, weight, known.accepted));
            }
        } else if !key::STATE.contains(&name.as_str()) {
            complaints.push(Complaint::unknown(name, value));
        }
    }
    let mut read = Reader { annotations, complaints };
    let mut policy = Policy {
        services: read.names("kubenap/service"),
        ingresses: read.names("kubenap/ingress"),
        idle_after: read.duration("kubenap/idleAfter", Duration::from_secs(1)).unwrap_or(defaults.idle_after),
        replica_count: read.one_of("kubenap/replicaCount", |text| {
            text.parse().ok().filter(|count| (1..=1_000_000).contains(count))
        }),
        proxy: read.one_of("kubenap/proxy", Proxy::find).unwrap_or_default(),
        wake: read.one_of("kubenap/wake", parse_wake).unwrap_or_default(),
        hold_for: read.duration("kubenap/holdFor", Duration::ZERO).unwrap_or(HOLD_FOR),
        wake_timeout: read.duration("kubenap/wakeTimeout", Duration::from_secs(1)).unwrap_or(WAKE_TIMEOUT),
        metrics: read.sources(&defaults.sources),
        query: None,
        ignore_paths: read.list("kubenap/ignorePaths", |text| {
            (text.starts_with('/') && text.len() <= 1024).then(|| text.to_owned())
        }),
        ignore_user_agents: read.list("kubenap/ignoreUserAgents", |text| {
            (text.len() >= 3 && text.len() <= 256).then(|| text.to_ascii_lowercase())
        }),
        adopt_zero: read.one_of("kubenap/adoptZero", |text| text.parse().ok()),
        substitute: read.substitute(defaults.substitute),
        hook_declared: read.one_of("kubenap/hook", |text| (text == "declared").then_some(())).is_some(),
        wish: read.one_of(key::WISH, Wish::parse),
    };
    policy.query = read.query(policy.metrics.as_deref(), defaults);
    Reading { policy, complaints: read.complaints }
}

/// How long a request is held before a 307, by default.
pub const HOLD_FOR: Duration = Duration::from_secs(10);
/// How long a request that must be passed is held, by default.
pub const WAKE_TIMEOUT: Duration = Duration::from_secs(120);

impl Policy {
    /// Whether the next request may wake a zero that KubeNap did not make.
    pub fn adopts_zero(&self) -> bool {
        self.adopt_zero.unwrap_or(self.replica_count.is_some())
    }
}

impl Reading {
    /// Whether something was written that forbids naps.
    pub fn refuses(&self) -> bool {
        self.complaints.iter().any(|complaint| complaint.weight == Weight::Refuses)
    }
}

impl Wish {
    /// Reads the annotation's value.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "nap" => Self::Nap,
            "forceNap" => Self::ForceNap,
            "wake" => Self::Wake,
            _ => return None,
        })
    }

    /// The annotation's value.
    pub fn text(self) -> &'static str {
        match self {
            Self::Nap => "nap",
            Self::ForceNap => "forceNap",
            Self::Wake => "wake",
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

fn parse_wake(text: &str) -> Option<WakeMode> {
    Some(match text {
        "auto" => WakeMode::Auto,
        "redirect" => WakeMode::Redirect,
        "pass" => WakeMode::Pass,
        "page" => WakeMode::Page,
        _ => return None,
    })
}

struct Reader<'a> {
    annotations: &'a Texts,
    complaints: Vec<Complaint>,
}

impl Reader<'_> {
    fn one_of<T>(&mut self, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let text = self.annotations.get(name)?;
        let value = parse(text);
        if value.is_none() {
            self.refuse(name, text.clone(), "is not understood");
        }
        value
    }

    fn duration(&mut self, name: &str, least: Duration) -> Option<Duration> {
        let text = self.annotations.get(name)?.clone();
        match duration::parse(&text) {
            Ok(value) if value >= least => Some(value),
            Ok(_) => {
                self.refuse(name, text, "is too short");
                None
            }
            Err(_) => {
                self.refuse(name, text, "is not a duration");
                None
            }
        }
    }

    fn list(&mut self, name: &str, parse: impl Fn(&str) -> Option<String>) -> Vec<String> {
        let Some(text) = self.annotations.get(name).cloned() else { return Vec::new() };
        let items: Option<Vec<_>> = text.split(',').map(|item| parse(item.trim())).collect();
        match items {
            Some(items) if items.len() <= 100 => items,
            _ => {
                self.refuse(name, text, "is not understood");
                Vec::new()
            }
        }
    }

    fn names(&mut self, name: &str) -> Option<Vec<String>> {
        self.annotations.get(name)?;
        let mut names = self.list(name, |text| is_name(text).then(|| text.to_owned()));
        names.sort();
        names.dedup();
        // A list that is not understood is as if it were not there: an app without any Service could not be woken.
        (!names.is_empty()).then_some(names)
    }

    fn sources(&mut self, known: &[String]) -> Option<Vec<String>> {
        const NAME: &str = "kubenap/metrics";
        let names = self.names(NAME)?;
        if let Some(stranger) = names.iter().find(|name| !known.is_empty() && !known.contains(name)) {
            let problem = "names a source that is not configured";
            let accepted = format!("of the configured sources: {}", known.join(", "));
            self.complaints.push(Complaint::refuses(NAME, stranger, problem, &accepted));
        }
        Some(names)
    }

    fn query(&mut self, metrics: Option<&[String]>, defaults: &Defaults) -> Option<String> {
        const NAME: &str = "kubenap/query";
        let query = self.annotations.get(NAME)?.trim().to_owned();
        if let Some(problem) = query::problem(&query) {
            self.refuse(NAME, query, &problem);
            return None;
        }
        let counting = metrics.unwrap_or(&defaults.by_default);
        if !defaults.sources.is_empty() && !counting.iter().any(|name| defaults.asking.contains(name)) {
            let problem = format!("is asked by no source that counts for it ({})", counting.join(", "));
            let accepted = "where a source of kind prometheus with `allowQuery: true` counts for it";
            self.complaints.push(Complaint::refuses(NAME, &query, &problem, accepted));
        }
        Some(query)
    }

    fn substitute(&mut self, possible: bool) -> bool {
        const NAME: &str = "kubenap/substitute";
        let wanted = self.one_of(NAME, |text| text.parse().ok());
        if wanted == Some(true) && !possible {
            let problem = "is not possible here: the controller runs with --no-substitute";
            self.complaints.push(Complaint::refuses(NAME, "true", problem, "false"));
        }
        possible && wanted.unwrap_or(true)
    }

    fn refuse(&mut self, name: &str, value: impl AsRef<str>, problem: &str) {
        let accepted = keys::find(name).map_or("", |known| known.accepted);
        self.complaints.push(Complaint::refuses(name, value.as_ref(), problem, accepted));
    }
}

/// A DNS-1123 subdomain, which the names of Services, Ingresses and sources are.
fn is_name(text: &str) -> bool {
    let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.len() <= 253
        && bytes.first().is_some_and(|c| good(*c))
        && bytes.last().is_some_and(|c| good(*c))
        && bytes.iter().all(|c| good(*c) || *c == b'-' || *c == b'.')
}
