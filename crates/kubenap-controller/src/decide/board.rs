//! What people are shown of each app: the latest decision of this member, ready for the command line.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::app::AppId;
use kubenap_core::duration;
use kubenap_core::seen::Phase;
use kubenap_core::why::Why;
use serde::{Deserialize, Serialize};

/// One app, as `kubenap status -o json` prints it. The names are a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AppStatus {
    /// The namespace.
    pub namespace: String,
    /// The Deployment's name.
    pub name: String,
    /// `awake`, `drowsy`, `asleep` or `waking`.
    pub phase: String,
    /// `spec.replicas`.
    pub replicas: u32,
    /// The count that a wake restores; none while it is awake.
    pub restore_replicas: Option<u32>,
    /// Quiet this long before a nap.
    pub idle_after: String,
    /// The last activity known (RFC 3339); none: not known.
    pub last_seen: Option<String>,
    /// Up to when the sources know (RFC 3339); none: not known.
    pub watermark: Option<String>,
    /// Why it is as it is, in a sentence.
    pub why: String,
    /// The same as a label.
    pub label: String,
    /// What is wrong with its annotations.
    pub complaints: Vec<String>,
}

/// The same, as it is kept: thousands of apps have one each, and few are ever asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The phase.
    pub phase: Phase,
    /// `spec.replicas`.
    pub replicas: u32,
    /// The count that a wake restores.
    pub restore_replicas: Option<u32>,
    /// Quiet this long before a nap.
    pub idle_after: Duration,
    /// The last activity known; [`Timestamp::MIN`]: not known.
    pub last_seen: Timestamp,
    /// Up to when the sources know; [`Timestamp::MIN`]: not known.
    pub watermark: Timestamp,
    /// Why it is as it is.
    pub why: Why,
    /// What is wrong with its annotations.
    pub complaints: Box<[String]>,
}

impl Row {
    /// In words.
    pub fn status(&self, app: &AppId) -> AppStatus {
        let shown = |moment: Timestamp| (moment > Timestamp::MIN).then(|| moment.to_string());
        AppStatus {
            namespace: app.namespace.clone(),
            name: app.name.clone(),
            phase: self.phase.text().to_owned(),
            replicas: self.replicas,
            restore_replicas: self.restore_replicas,
            idle_after: duration::show(self.idle_after),
            last_seen: shown(self.last_seen),
            watermark: shown(self.watermark),
            why: self.why.to_string(),
            label: self.why.label().to_owned(),
            complaints: self.complaints.to_vec(),
        }
    }
}

/// The latest status of every app.
#[derive(Debug, Default)]
pub struct Board {
    /// In boxes, so that the tree's empty places cost little.
    apps: Mutex<BTreeMap<AppId, Box<Row>>>,
}

impl Board {
    /// Puts up an app's status.
    pub fn put(&self, app: &AppId, row: Row) {
        let mut apps = self.lock();
        match apps.get_mut(app) {
            Some(known) => **known = row,
            None => drop(apps.insert(app.clone(), Box::new(row))),
        }
    }

    /// An app is gone.
    pub fn forget(&self, app: &AppId) {
        self.lock().remove(app);
    }

    /// All of them, by namespace and name.
    pub fn all(&self) -> Vec<AppStatus> {
        self.lock().iter().map(|(app, row)| row.status(app)).collect()
    }

    /// Whether there is one of this app, and what it says.
    pub fn look<T>(&self, app: &AppId, look: impl FnOnce(&Row) -> T) -> Option<T> {
        self.lock().get(app).map(|row| look(row))
    }

    /// The phase of each.
    pub fn phases(&self) -> Vec<Phase> {
        self.lock().values().map(|row| row.phase).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AppId, Box<Row>>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
