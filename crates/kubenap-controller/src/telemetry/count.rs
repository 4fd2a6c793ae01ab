//! Counting what happened, in one call each.

use std::time::Duration;

use kubenap_core::app::AppId;

use super::{
    ByApp, ByNapOutcome, ByPhase, ByWakeOutcome, ByWakePart, NapOutcome, PhaseLabel, Telemetry, WakeOutcome,
    WakePart,
};

impl Telemetry {
    /// One more nap that ended so.
    pub fn count_nap(&self, outcome: NapOutcome) {
        self.naps.get_or_create(&ByNapOutcome { outcome }).inc();
    }

    /// One more wake that ended so.
    pub fn count_wake(&self, outcome: WakeOutcome) {
        self.wakes.get_or_create(&ByWakeOutcome { outcome }).inc();
    }

    /// How long a wake took, from the first ask.
    pub fn observe_wake(&self, took: Duration) {
        self.wake_duration.observe(took.as_secs_f64());
    }

    /// How long a part of a wake took.
    pub fn observe_wake_part(&self, part: WakePart, took: Duration) {
        self.wake_part_duration.get_or_create(&ByWakePart { part }).observe(took.as_secs_f64());
    }

    /// An app slept for this long, with so many replicas not running.
    pub fn count_sleep(&self, app: &AppId, slept: Duration, replicas: u32) {
        let label = ByApp { namespace: app.namespace.clone(), app: app.name.clone() };
        self.asleep_seconds.get_or_create(&label).inc_by(slept.as_secs_f64());
        let saved = slept.as_secs_f64() * f64::from(replicas);
        self.saved_replica_seconds.get_or_create(&label).inc_by(saved);
    }

    /// How many apps are in each phase.
    pub fn count_apps(&self, phases: &[&str]) {
        for phase in PhaseLabel::ALL {
            let count = phases.iter().filter(|name| **name == phase.label()).count();
            self.apps.get_or_create(&ByPhase { phase }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}
