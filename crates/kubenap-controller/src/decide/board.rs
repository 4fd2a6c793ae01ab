//! What people are shown of each app: the latest decision of this member, ready for the command line.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kubenap_core::app::AppId;
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

/// The latest status of every app.
#[derive(Debug, Default)]
pub struct Board {
    apps: Mutex<BTreeMap<AppId, AppStatus>>,
}

impl Board {
    /// Puts up an app's status.
    pub fn put(&self, app: &AppId, status: AppStatus) {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).insert(app.clone(), status);
    }

    /// An app is gone.
    pub fn forget(&self, app: &AppId) {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).remove(app);
    }

    /// All of them, by namespace and name.
    pub fn all(&self) -> Vec<AppStatus> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}
