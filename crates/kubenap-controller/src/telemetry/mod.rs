//! Every metric that KubeNap exposes, with its exact name and its closed sets of labels.

mod count;
mod labels;
mod phases;
mod pieces;
mod wake_clock;
mod watermarks;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use jiff::Timestamp;
use kubenap_core::app::AppId;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

pub use labels::{AskAnswer, NapOutcome, PhaseLabel, WakeOutcome, WakePart};
pub use phases::Phases;
pub use wake_clock::WakeClock;

use pieces::Pieces;

/// What `/metrics` says its body is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metric families. Cheap to write to from anywhere; shared as an `Arc`.
#[derive(Debug)]
pub struct Telemetry {
    /// `kubenap_apps{phase}`: how many apps are in each phase.
    pub apps: Family<ByPhase, Gauge>,
    /// `kubenap_app_phase{namespace,app,phase}`: 1 for the phase that the app is in, 0 for the others.
    pub app_phase: Phases,
    /// `kubenap_naps_total{outcome}`: naps that ended one way or another.
    pub naps: Family<ByNapOutcome, Counter>,
    /// `kubenap_wakes_total{outcome}`: wakes that ended one way or another.
    pub wakes: Family<ByWakeOutcome, Counter>,
    /// `kubenap_wake_duration_seconds`: from the first ask to the release of what was held.
    pub wake_duration: Histogram,
    /// `kubenap_wake_part_duration_seconds{part}`: the same time, part by part.
    pub wake_part_duration: Family<ByWakePart, Histogram, fn() -> Histogram>,
    /// `kubenap_asks_total{namespace,app,answer}`: requests that needed the app, and what they got.
    pub asks: Family<ByAnswer, Counter>,
    /// `kubenap_held_requests`: requests that wait for an app right now.
    pub held_requests: Gauge,
    /// `kubenap_source_up{source}`: 1 if the last poll of the source was understood.
    pub source_up: Family<BySource, Gauge>,
    /// `kubenap_source_watermark_age_seconds{source}`: how old the oldest of the source's watermarks is.
    pub source_watermark_age: Family<BySource, Gauge<f64, AtomicU64>>,
    /// `kubenap_asleep_seconds_total{namespace,app}`: how long the app slept.
    pub asleep_seconds: Family<ByApp, Counter<f64, AtomicU64>>,
    /// `kubenap_saved_replica_seconds_total{namespace,app}`: time asleep times the replicas it would have had.
    pub saved_replica_seconds: Family<ByApp, Counter<f64, AtomicU64>>,
    /// `kubenap_leader`: 1 while this member leads.
    pub leader: Gauge,
    watermarks: Mutex<BTreeMap<String, Timestamp>>,
    registry: Registry,
}

/// The labels of a family counted by app.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByApp {
    namespace: String,
    app: String,
}

/// The label of a family counted by phase.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByPhase {
    /// The phase.
    pub phase: PhaseLabel,
}

/// The label of `kubenap_naps_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByNapOutcome {
    /// How the nap ended.
    pub outcome: NapOutcome,
}

/// The label of `kubenap_wakes_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByWakeOutcome {
    /// How the wake ended.
    pub outcome: WakeOutcome,
}

/// The label of `kubenap_wake_part_duration_seconds`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByWakePart {
    /// Which part of the wake.
    pub part: WakePart,
}

/// The labels of `kubenap_asks_total`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByAnswer {
    namespace: String,
    app: String,
    answer: AskAnswer,
}

/// The label of a family counted by source of traffic. Sources come from the command line, so the set is closed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct BySource {
    /// The source's name, as on the command line.
    pub source: String,
}

impl Telemetry {
    /// All families, registered under their names and still empty.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("kubenap");
        // The registry appends `_total` to counters, and the unit to names, itself.
        let apps = Family::default();
        registry.register("apps", "Apps by phase", Family::clone(&apps));
        let app_phase = Phases::default();
        registry.register_collector(Box::new(app_phase.clone()));
        let naps = Family::default();
        registry.register("naps", "Naps by outcome", Family::clone(&naps));
        let wakes = Family::default();
        registry.register("wakes", "Wakes by outcome", Family::clone(&wakes));
        let wake_duration = wake_histogram();
        registry.register_with_unit(
            "wake_duration",
            "From the first ask to the release of what was held",
            Unit::Seconds,
            Histogram::clone(&wake_duration),
        );
        let wake_part_duration = Family::new_with_constructor(wake_histogram as fn() -> Histogram);
        registry.register_with_unit(
            "wake_part_duration",
            "The parts of a wake",
            Unit::Seconds,
            Family::clone(&wake_part_duration),
        );
        let asks = Family::default();
        registry.register("asks", "Requests that needed an app, by what they got", Family::clone(&asks));
        let held_requests = Gauge::default();
        registry.register("held_requests", "Requests that wait for an app", Gauge::clone(&held_requests));
        let source_up = Family::default();
        registry.register("source_up", "1 if the last poll was understood", Family::clone(&source_up));
        let source_watermark_age = Family::default();
        registry.register_with_unit(
            "source_watermark_age",
            "Age of the source's oldest watermark",
            Unit::Seconds,
            Family::clone(&source_watermark_age),
        );
        let asleep_seconds = Family::default();
        registry.register_with_unit(
            "asleep",
            "How long apps slept",
            Unit::Seconds,
            Family::clone(&asleep_seconds),
        );
        let saved_replica_seconds = Family::default();
        registry.register_with_unit(
            "saved_replica",
            "Time asleep times the replicas that did not run",
            Unit::Seconds,
            Family::clone(&saved_replica_seconds),
        );
        let leader = Gauge::default();
        registry.register("leader", "1 while this member leads", Gauge::clone(&leader));
        Self {
            apps,
            app_phase,
            naps,
            wakes,
            wake_duration,
            wake_part_duration,
            asks,
            held_requests,
            source_up,
            source_watermark_age,
            asleep_seconds,
            saved_replica_seconds,
            leader,
            watermarks: Mutex::default(),
            registry,
        }
    }

    /// The text that `/metrics` answers with, of the type [`CONTENT_TYPE`], piece by piece: with thousands of apps it has
    /// megabytes, and a single text doubles its room again and again while it grows.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut body = Pieces::default();
        if let Err(error) = text::encode(&mut body, &self.registry) {
            // It takes every write, so only a label's own formatting can fail.
            tracing::error!(%error, "cannot write the metrics");
            return Vec::new();
        }
        body.whole()
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.encode().concat()).unwrap_or_default()
    }

    /// One more ask of `app` that got `answer`.
    pub fn count_ask(&self, app: &AppId, answer: AskAnswer) {
        let (namespace, name) = (app.namespace.clone(), app.name.clone());
        self.asks.get_or_create(&ByAnswer { namespace, app: name, answer }).inc();
    }

    /// Says which phase `app` is in.
    pub fn set_phase(&self, app: &AppId, phase: PhaseLabel) {
        self.app_phase.set(app, phase);
    }

    /// Takes every series of `app` away: it is no longer opted in.
    pub fn forget(&self, app: &AppId) {
        self.app_phase.forget(app);
        let (namespace, name) = (app.namespace.clone(), app.name.clone());
        for answer in AskAnswer::ALL {
            self.asks.remove(&ByAnswer { namespace: namespace.clone(), app: name.clone(), answer });
        }
        let labels = ByApp { namespace, app: name };
        self.asleep_seconds.remove(&labels);
        self.saved_replica_seconds.remove(&labels);
    }
}

impl Default for Telemetry {
    fn default() -> Self {
        Self::new()
    }
}

impl From<&AppId> for ByApp {
    fn from(app: &AppId) -> Self {
        Self { namespace: app.namespace.clone(), app: app.name.clone() }
    }
}

/// From a pod that answers in a tenth of a second to a node that must be bought first.
fn wake_histogram() -> Histogram {
    Histogram::new([0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_the_name_that_the_design_gives_it() {
        let telemetry = Telemetry::new();
        let app = AppId::new("shop", "web");
        telemetry.apps.get_or_create(&ByPhase { phase: PhaseLabel::Asleep }).set(3);
        telemetry.set_phase(&app, PhaseLabel::Waking);
        telemetry.naps.get_or_create(&ByNapOutcome { outcome: NapOutcome::Asleep }).inc();
        telemetry.wakes.get_or_create(&ByWakeOutcome { outcome: WakeOutcome::Awake }).inc();
        telemetry.wake_duration.observe(1.5);
        telemetry.wake_part_duration.get_or_create(&ByWakePart { part: WakePart::Scale }).observe(0.1);
        telemetry.count_ask(&app, AskAnswer::Redirected);
        telemetry.source_up.get_or_create(&BySource { source: "ingress".into() }).set(1);
        telemetry.source_watermark_age.get_or_create(&BySource { source: "ingress".into() }).set(2.5);
        telemetry.asleep_seconds.get_or_create(&ByApp::from(&app)).inc_by(4.0);
        telemetry.saved_replica_seconds.get_or_create(&ByApp::from(&app)).inc_by(8.0);
        telemetry.leader.set(1);
        let text = telemetry.text();
        for line in [
            "kubenap_apps{phase=\"asleep\"} 3",
            "kubenap_app_phase{namespace=\"shop\",app=\"web\",phase=\"waking\"} 1",
            "kubenap_app_phase{namespace=\"shop\",app=\"web\",phase=\"asleep\"} 0",
            "kubenap_naps_total{outcome=\"asleep\"} 1",
            "kubenap_wakes_total{outcome=\"awake\"} 1",
            "kubenap_wake_duration_seconds_count 1",
            "kubenap_wake_part_duration_seconds_count{part=\"scale\"} 1",
            "kubenap_asks_total{namespace=\"shop\",app=\"web\",answer=\"redirected\"} 1",
            "kubenap_held_requests 0",
            "kubenap_source_up{source=\"ingress\"} 1",
            "kubenap_source_watermark_age_seconds{source=\"ingress\"} 2.5",
            "kubenap_asleep_seconds_total{namespace=\"shop\",app=\"web\"} 4.0",
            "kubenap_saved_replica_seconds_total{namespace=\"shop\",app=\"web\"} 8.0",
            "kubenap_leader 1",
        ] {
            assert!(text.lines().any(|each| each == line), "no line `{line}` in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn an_app_that_left_leaves_no_series_behind() {
        let telemetry = Telemetry::new();
        let app = AppId::new("shop", "web");
        telemetry.set_phase(&app, PhaseLabel::Awake);
        telemetry.count_ask(&app, AskAnswer::Passed);
        telemetry.asleep_seconds.get_or_create(&ByApp::from(&app)).inc_by(4.0);
        telemetry.forget(&app);
        assert!(!telemetry.text().contains("shop"));
    }
}
