//! When pods became ready, by a watch: the API's own timestamps are whole seconds.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::api::Api;
use kube::runtime::watcher::{self, Event};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Follows the pods of a namespace until it is dropped.
pub(crate) struct ReadyPods {
    /// By the label `app`: when one of its pods was last seen to become ready.
    moments: Arc<Mutex<BTreeMap<String, Instant>>>,
    task: JoinHandle<()>,
}

impl ReadyPods {
    /// Begins to follow.
    pub(crate) fn follow(pods: Api<Pod>) -> Self {
        let moments = Arc::new(Mutex::new(BTreeMap::new()));
        let noted = Arc::clone(&moments);
        let task = tokio::spawn(async move {
            let mut events = watcher::watcher(pods, watcher::Config::default()).boxed();
            // By uid, so that a pod counts once, when it becomes ready.
            let mut known = BTreeSet::new();
            while let Some(event) = events.next().await {
                let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
                let now = Instant::now();
                let conditions = pod.status.and_then(|status| status.conditions).unwrap_or_default();
                let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
                    && pod.metadata.deletion_timestamp.is_none();
                let uid = pod.metadata.uid.unwrap_or_default();
                if ready && known.insert(uid) {
                    let app =
                        pod.metadata.labels.and_then(|mut labels| labels.remove("app")).unwrap_or_default();
                    noted.lock().unwrap_or_else(PoisonError::into_inner).insert(app, now);
                }
            }
        });
        Self { moments, task }
    }

    /// When a pod of the app became ready after this moment; waits for it.
    pub(crate) async fn after(&self, app: &str, moment: Instant, within: Duration) -> Result<Instant> {
        let deadline = Instant::now() + within;
        loop {
            let last = self.moments.lock().unwrap_or_else(PoisonError::into_inner).get(app).copied();
            match last {
                Some(last) if last > moment => return Ok(last),
                _ if Instant::now() > deadline => bail!("no pod of {app} became ready within {within:?}"),
                _ => sleep(Duration::from_millis(5)).await,
            }
        }
    }
}

impl Drop for ReadyPods {
    fn drop(&mut self) {
        self.task.abort();
    }
}
