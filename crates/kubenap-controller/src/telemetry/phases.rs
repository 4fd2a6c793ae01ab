//! Which phase each app is in, kept as one word each and told as four series each: there may be thousands of apps.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kubenap_core::app::AppId;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::PhaseLabel;

/// `kubenap_app_phase`. A clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Phases(Arc<Mutex<BTreeMap<AppId, PhaseLabel>>>);

/// The labels of one series.
#[derive(Clone, Debug, EncodeLabelSet)]
struct Labels {
    namespace: String,
    app: String,
    phase: PhaseLabel,
}

impl Phases {
    /// The app is in this phase.
    pub fn set(&self, app: &AppId, phase: PhaseLabel) {
        let mut phases = self.lock();
        match phases.get_mut(app) {
            Some(known) => *known = phase,
            None => drop(phases.insert(app.clone(), phase)),
        }
    }

    /// The app is gone.
    pub fn forget(&self, app: &AppId) {
        self.lock().remove(app);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppId, PhaseLabel>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Collector for Phases {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let phases = self.lock().clone();
        if phases.is_empty() {
            return Ok(());
        }
        let help = "1 for the phase the app is in.";
        let mut family = encoder.encode_descriptor("app_phase", help, None, MetricType::Gauge)?;
        for (app, phase) in phases {
            let mut labels = Labels { namespace: app.namespace.clone(), app: app.name.clone(), phase };
            for each in PhaseLabel::ALL {
                labels.phase = each;
                ConstGauge::new(i64::from(each == phase)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
