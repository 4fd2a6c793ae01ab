//! What traffic each app gets: one question for all apps per poll, put to every source.
//!
//! A source answers with a last-seen and a watermark for each app, both on the controller's clock. Whatever a
//! source does not know for certain it says as a blind spot, and a blind spot keeps the app awake.
//!
//! `prometheus` and `ingress` read what a proxy counts. They do not see callers inside the cluster that go to an
//! app's Service without the proxy: for an app without any Ingress they are blind, and for an app that has
//! one the drowsy phase of a nap catches such callers.

mod spec;
mod fields;
mod poll;
mod polled;
mod prometheus;
mod promql;
mod missing;
mod queries;
mod influx;
mod datadog;
mod logs;
mod ingress;
mod proxy_pods;
mod exposition;
mod preset;
mod mapping;
mod ledger;
mod kept;
mod keep;
mod verdict;
mod past;
mod fetch;
mod credentials;
mod error;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use kubenap_core::simulate::Past;

pub use credentials::{Authorization, Credentials, Secret};
pub use error::{SourceError, SpecError};
pub use fetch::Endpoint;
pub use ingress::IngressSource;
pub use keep::NAME as KEPT_IN;
pub use names::Names;
pub use poll::{Polls, Watched};
pub use polled::{PartState, Polled, SourceState};
pub use prometheus::PrometheusSource;
pub use spec::{SourceArg, SourceSpec, build, build_kept, resolve};

pub(crate) use exposition::read_exposition;
pub(crate) use promql::read_answer;

use verdict::Looked;

/// Where traffic is learned from: one question for all apps.
#[async_trait]
pub trait TrafficMetricsSource: fmt::Debug + Send + Sync {
    /// The source's name, as in `--source` and `kubenap/metrics`.
    fn name(&self) -> &str;

    /// Whether it counts for apps that do not choose their sources with `kubenap/metrics`.
    fn by_default(&self) -> bool {
        true
    }

    /// Asks once, for all targets; every remote call in it has a deadline.
    ///
    /// # Errors
    /// When nothing can be said about any app. What only concerns some apps is a blind spot in their samples.
    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError>;

    /// Whether it asks the queries that apps bring; such an app is known by its query alone there.
    fn asks_queries(&self) -> bool {
        false
    }

    /// Asks the queries of all targets that bring one, apart from [`poll`](Self::poll): one that hangs holds up nobody else.
    ///
    /// # Errors
    /// When nothing can be said about any of them. What only concerns some is a blind spot in their samples.
    async fn queries(&self, _: &Ask) -> Result<Samples, SourceError> {
        Ok(Samples::blind(Blind::NotMapped))
    }

    /// What it remembers of the past of all targets.
    ///
    /// # Errors
    /// When it has no memory that can be asked, or does not answer.
    async fn past(&self, _: &AskPast) -> Result<Vec<(AppId, AppPast)>, SourceError> {
        Err(SourceError::NoPast { name: self.name().to_owned() })
    }
}

/// One question.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The controller's time when the question is put; answers are on this clock.
    pub now: Timestamp,
    /// The apps it is about.
    pub targets: Arc<[Target]>,
    /// How far back a source with a memory should look at its start: the longest `idleAfter`.
    pub history: Duration,
}

/// A question about the past.
#[derive(Clone, Debug)]
pub struct AskPast {
    /// The time when the question is put; answers are on this clock.
    pub now: Timestamp,
    /// The apps it is about.
    pub targets: Arc<[Target]>,
    /// How far back.
    pub since: Duration,
    /// How far two looks are apart, in whole seconds: between them nothing is told apart.
    pub step: Duration,
}

/// What one source remembers of one app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppPast {
    /// When it was used, and of which time nothing is known.
    pub past: Past,
    /// How many series are the app's.
    pub matched: usize,
    /// Which label values were looked for, the first few of them.
    pub looked_for: Vec<String>,
}

/// An app, as sources need to know it to find its series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Who it is.
    pub app: AppId,
    /// Its Services.
    pub services: Box<[TargetService]>,
    /// The names of its pods that run now; `None` when they are not known. When given, the app's own
    /// metric counts as complete only if every one of these pods is scraped.
    pub pods: Option<Names>,
    /// What is asked about it in place of what proxies count, where a source asks it.
    pub query: Option<Box<str>>,
    /// Path prefixes that are no use of the app, for sources that see paths.
    pub ignore_paths: Vec<String>,
    /// Parts of `User-Agent`, in lower case, that are no use of the app, for sources that see it.
    pub ignore_user_agents: Vec<String>,
}

impl Target {
    /// An app of which nothing more is known.
    pub fn of(app: AppId) -> Self {
        Self {
            app,
            services: Box::default(),
            pods: None,
            query: None,
            ignore_paths: Vec::new(),
            ignore_user_agents: Vec::new(),
        }
    }
}

/// One Service of an app, and the ways in that lead to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetService {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub name: String,
    /// Its ports.
    pub ports: Vec<TargetPort>,
    /// The Service port exactly as Ingresses write it, a name or a number; empty when no Ingress leads here.
    pub ingress_ports: Names,
    /// Namespace and name of the Ingresses that lead here.
    pub ingresses: Vec<(String, String)>,
    /// `spec.controller` of these Ingresses' classes, such as `k8s.io/ingress-nginx`; empty when not known.
    /// Where it is known, only the metrics of that proxy can say that nothing came.
    pub controllers: Names,
    /// Whether a rule that leads here has no host, or one with a wildcard: ingress-nginx does not count those.
    pub open_hosts: bool,
    /// Whether a route that is no Ingress leads here for hosts that it does not spell out.
    pub open_routes: bool,
    /// The hosts of the rules and routes that lead here, in lower case, for sources that see nothing but hosts.
    pub hosts: Names,
    /// The HTTPRoutes, GRPCRoutes and VirtualServices that lead here, of whichever namespace.
    pub routes: Box<[TargetRoute]>,
    /// The rules of IngressRoutes that lead here, of whichever namespace.
    pub ingress_routes: Box<[TargetIngressRule]>,
    /// Whether a route leads here, or may, by which connections come: nobody but an app's own query sees those.
    pub unseen: bool,
}

/// A route by which requests come to a Service from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetRoute {
    /// The route's namespace.
    pub namespace: String,
    /// The route's name.
    pub name: String,
    /// Which of its rules lead to the Service, counted from zero.
    pub rules: Box<[usize]>,
    /// Namespace and name of the gateways that serve it; an empty one: others that are not known.
    pub gateways: Box<[String]>,
    /// What it is.
    pub form: RouteForm,
}

/// What a route is, of those by which requests come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteForm {
    /// An HTTPRoute.
    Http,
    /// A GRPCRoute.
    Grpc,
    /// A VirtualService.
    Virtual,
}

/// A rule of an IngressRoute that leads to a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetIngressRule {
    /// The IngressRoute's namespace.
    pub namespace: String,
    /// The IngressRoute's name.
    pub name: String,
    /// The rule's place, counted from zero.
    pub rule: usize,
    /// The first ten bytes of the SHA-256 of what it matches, in hexadecimal: Traefik names it so.
    pub digest: String,
}

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Its number.
    pub number: u16,
}

/// One source's answer: what it knows about each app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Samples {
    apps: BTreeMap<AppId, AppSample>,
    otherwise: Blind,
    /// The apps whose requests it sees only when they end.
    late: BTreeSet<AppId>,
    /// What was looked for, where it is names.
    looked: Option<Looked>,
    /// What was asked for the apps that bring a query, and what is wrong with the answer.
    asked: BTreeMap<AppId, String>,
}

/// What one source knows about one app, and how it came to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppSample {
    /// Last-seen and watermark on the controller's clock, or why the source is blind.
    pub activity: Activity,
    /// How many series are the app's.
    pub matched: usize,
}

impl Samples {
    /// The same blind spot for every app.
    pub fn blind(why: Blind) -> Self {
        Self {
            apps: BTreeMap::new(),
            otherwise: why,
            late: BTreeSet::new(),
            looked: None,
            asked: BTreeMap::new(),
        }
    }

    /// That the queries which these apps bring cannot be asked, and why.
    fn unasked(targets: &[Target], error: &str) -> Self {
        let mut samples = Self::blind(Blind::SourceDown);
        for target in targets {
            let Some(query) = target.query.as_deref() else { continue };
            samples.asked.insert(target.app.clone(), queries::asked(query, error));
            samples.apps.insert(target.app.clone(), AppSample::blind(Blind::SourceDown));
        }
        samples
    }

    /// What is known about the app; an app that is not in the answer is blind: absence is not silence.
    pub fn of(&self, app: &AppId) -> Activity {
        self.apps.get(app).map_or_else(|| Activity::blind(self.otherwise), |sample| sample.activity.clone())
    }

    /// The app's sample with its details, if the answer has one.
    pub fn detail(&self, app: &AppId) -> Option<&AppSample> {
        self.apps.get(app)
    }

    /// Which label values were looked for of the app, the first few of them.
    pub fn looked_for(&self, app: &AppId) -> Vec<String> {
        let names = || self.looked.as_ref().map(|looked| looked.of(app)).unwrap_or_default();
        self.asked.get(app).map_or_else(names, |asked| vec![asked.clone()])
    }

    /// Whether requests to the app that are still open are seen: a WebSocket, a long download.
    pub fn sees_open(&self, app: &AppId) -> bool {
        !self.late.contains(app)
    }

    /// Every app that the answer speaks of.
    pub fn iter(&self) -> impl Iterator<Item = (&AppId, &AppSample)> {
        self.apps.iter()
    }
}

impl AppSample {
    fn blind(why: Blind) -> Self {
        Self { activity: Activity::blind(why), matched: 0 }
    }
}

impl FromIterator<(AppId, AppSample)> for Samples {
    fn from_iter<I: IntoIterator<Item = (AppId, AppSample)>>(apps: I) -> Self {
        Self {
            apps: apps.into_iter().collect(),
            otherwise: Blind::NoSeries,
            late: BTreeSet::new(),
            looked: None,
            asked: BTreeMap::new(),
        }
    }
}
