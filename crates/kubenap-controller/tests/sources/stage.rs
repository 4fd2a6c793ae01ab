//! The harness: one source, a world that it is asked about, and a clock that only the test moves.
#![expect(clippy::unwrap_used, reason = "a harness that breaks should stop its test")]

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_controller::activity::{
    AppPast, Ask, AskPast, Credentials, Names, Samples, SourceError, SourceSpec, Target, TargetPort,
    TargetService, TrafficMetricsSource, build_kept,
};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use serde_json::json;
use tempfile::TempDir;

use crate::lines;
use crate::stand_in::{Kind, Proxy, Shared, World, cluster, serve};

/// Which source is on stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Prometheus,
    Ingress,
    Flux,
    InfluxQl,
    /// Access logs in files.
    Files,
    /// Access logs of the proxies' pods.
    Pods,
    Datadog,
}

impl Source {
    /// By how many ticks it may know of a thing later than it happened.
    fn lag(self) -> u64 {
        match self {
            Self::Prometheus | Self::Ingress | Self::Pods => 0,
            // Without a line nothing is known.
            Self::Files => 1,
            // Only what lies before the last sign of life has arrived for certain.
            Self::Flux | Self::InfluxQl => 2,
            // It is asked each minute, about whole minutes.
            Self::Datadog => 8,
        }
    }
}

pub(crate) struct Stage {
    kind: Source,
    world: Shared,
    port: u16,
    source: Arc<dyn TrafficMetricsSource>,
    pub(crate) targets: Vec<Target>,
    /// The longest `idleAfter`.
    pub(crate) history: Duration,
    last: Option<Samples>,
    folder: TempDir,
}

/// How much time a tick is.
pub(crate) const TICK: f64 = 15.0;

const START: f64 = 1_700_000_000.0;

impl Stage {
    /// A stage with one Traefik that has been running for an hour, and the app `shop/web` behind it.
    pub(crate) async fn new(kind: Source) -> Self {
        let mut world = World { now: START, ..World::default() };
        world.proxies.insert("a".to_owned(), traefik(START - 3600.0));
        let world = Arc::new(Mutex::new(world));
        let port = serve(Arc::clone(&world)).await;
        let folder = TempDir::new().unwrap();
        let source = source(kind, &world, port, folder.path());
        let (targets, history) = (vec![target("shop", "web")], Duration::from_hours(1));
        Self { kind, world, port, source, targets, history, last: None, folder }
    }

    /// Another process takes over: only what the source can ask for is known.
    pub(crate) fn restart(&mut self) {
        self.source = source(self.kind, &self.world, self.port, self.folder.path());
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn proxy(&self, name: &str, change: impl FnOnce(&mut Proxy)) {
        change(self.world().proxies.get_mut(name).unwrap());
    }

    /// Sets the count of a Service in namespace `shop`, as the first proxy shows it.
    pub(crate) fn count(&self, service: &str, value: f64) {
        self.proxy("a", |proxy| {
            proxy.counters.insert(format!("service=\"{service}\""), value);
        });
    }

    /// Time passes, and Prometheus remembers it; nobody asks.
    pub(crate) fn pass(&self) {
        let mut world = self.world();
        world.now += TICK;
        let moment = (world.now, world.proxies.clone());
        world.log.push(Arc::new(moment));
        if self.kind == Source::Files {
            let lines = lines::at(&world, world.log.len() - 1);
            let text: String = lines.into_iter().map(|(_, line)| line + "\n").collect();
            let log = self.folder.path().join("access.log");
            let mut file = OpenOptions::new().create(true).append(true).open(log).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
    }

    /// A tick passes, and the source is asked.
    pub(crate) async fn tick(&mut self) -> Result<(), SourceError> {
        self.pass();
        let samples = self.ask().await?;
        self.last = Some(samples);
        Ok(())
    }

    /// Many ticks, each of which must be answered.
    pub(crate) async fn ticks(&mut self, count: usize) {
        for _ in 0..count {
            self.tick().await.unwrap();
        }
    }

    pub(crate) async fn ask(&self) -> Result<Samples, SourceError> {
        let now = self.now();
        let ask = Ask { now, targets: self.targets.clone().into(), history: self.history };
        // A file that is away for a moment, in the middle of a rotation.
        let moved = self.kind == Source::Files && self.world().fault.is_some();
        let [log, other] = ["access.log", "moved.log"].map(|name| self.folder.path().join(name));
        if moved {
            std::fs::rename(&log, &other).unwrap();
        }
        let answer = self.source.poll(&ask).await;
        if moved {
            std::fs::rename(&other, &log).unwrap();
        }
        answer
    }

    /// What the source remembers of the last so many ticks, with a look each minute.
    pub(crate) async fn past(&self, ticks: u32) -> Result<Vec<(AppId, AppPast)>, SourceError> {
        let since = Duration::from_secs_f64(TICK) * ticks;
        let (now, targets) = (self.now(), self.targets.clone().into());
        self.source.past(&AskPast { now, targets, since, step: Duration::from_mins(1) }).await
    }

    pub(crate) fn now(&self) -> Timestamp {
        #[expect(clippy::cast_possible_truncation, reason = "the tests' times are whole seconds")]
        Timestamp::from_second(self.world().now as i64).unwrap()
    }

    pub(crate) fn activity(&self, name: &str) -> Activity {
        let id: AppId = name.parse().unwrap();
        self.last.as_ref().unwrap().of(&id)
    }

    /// For how many ticks the app has been quiet, rounded.
    pub(crate) fn quiet(&self, name: &str) -> u64 {
        let ticks = self.activity(name).quiet_since(Timestamp::MIN).as_secs_f64() / TICK;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a span of a test")]
        let ticks = ticks.round() as u64;
        ticks
    }

    /// That it is known to have been quiet for so many ticks: never for more, and for less only by the source's lag.
    #[track_caller]
    pub(crate) fn is_quiet(&self, name: &str, ticks: u64) {
        let quiet = self.quiet(name);
        assert!(quiet <= ticks, "{:?}: {name} is quiet for {ticks} ticks, and not {quiet}", self.kind);
        assert!(
            quiet + self.kind.lag() >= ticks,
            "{:?}: {name} is quiet for {ticks}, and not {quiet}",
            self.kind
        );
    }

    pub(crate) fn blind(&self, name: &str) -> Vec<Blind> {
        self.activity(name).blind.into_iter().collect()
    }
}

pub(crate) fn traefik(started: f64) -> Proxy {
    Proxy {
        kind: Kind::Traefik,
        up: true,
        ready: true,
        deleting: false,
        started,
        age: 0.0,
        entered: 0.0,
        counters: BTreeMap::new(),
    }
}

/// An app with a Service of its own name, to which an Ingress of that name leads by port 80.
pub(crate) fn target(namespace: &str, name: &str) -> Target {
    let service = TargetService {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        ports: vec![TargetPort { name: Some("http".to_owned()), number: 80 }],
        ingress_ports: Names::from(["80".to_owned()]),
        ingresses: vec![(namespace.to_owned(), name.to_owned())],
        ..TargetService::default()
    };
    Target { services: [service].into(), ..Target::of(AppId::new(namespace, name)) }
}

fn source(kind: Source, world: &Shared, port: u16, folder: &Path) -> Arc<dyn TrafficMetricsSource> {
    let url = format!("http://me:hunter2@127.0.0.1:{port}");
    let settings = match kind {
        Source::Prometheus => json!({"kind": "prometheus", "url": url}),
        Source::Ingress => json!({"kind": "ingress"}),
        Source::Files => json!({"kind": "logs", "files": [folder.join("access.log")], "every": "1h"}),
        Source::Pods => json!({"kind": "logs", "pods": "app.kubernetes.io/name in (traefik)"}),
        Source::Flux => json!({"kind": "influxdb", "url": url, "org": "shop", "bucket": "traffic"}),
        Source::Datadog => {
            let key = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/datadog/app-key");
            json!({"kind": "datadog", "url": url, "apiKeyFile": key, "appKeyFile": key})
        }
        Source::InfluxQl => {
            json!({"kind": "influxdb", "url": url, "language": "influxql", "database": "traffic"})
        }
    };
    let spec = SourceSpec::read("main", settings).unwrap();
    let client = cluster(Arc::clone(world), port);
    build_kept(&[spec], &Credentials::default(), &client, Some("own")).unwrap().remove(0)
}
