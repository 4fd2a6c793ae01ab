//! When pods got an address and became ready, by a watch: the API's own timestamps are whole seconds.

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
    /// By the label `app`: the pod that was last seen to become ready.
    moments: Arc<Mutex<BTreeMap<String, Moments>>>,
    task: JoinHandle<()>,
}

/// When a watch showed what of a pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    /// Its address: nobody can send it anything before.
    pub(crate) address: Instant,
    /// That it is ready.
    pub(crate) ready: Instant,
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
            let mut addresses = BTreeMap::new();
            while let Some(event) = events.next().await {
                let Ok(Event::Apply(pod) | Event::InitApply(pod)) = event else { continue };
                let now = Instant::now();
                let status = pod.status.unwrap_or_default();
                let uid = pod.metadata.uid.unwrap_or_default();
                if status.pod_ip.is_some() {
                    addresses.entry(uid.clone()).or_insert(now);
                }
                let conditions = status.conditions.unwrap_or_default();
                let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True")
                    && pod.metadata.deletion_timestamp.is_none();
                let address = addresses.get(&uid).copied().unwrap_or(now);
                if ready && known.insert(uid) {
                    let app =
                        pod.metadata.labels.and_then(|mut labels| labels.remove("app")).unwrap_or_default();
                    noted
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(app, Moments { address, ready: now });
                }
            }
        });
        Self { moments, task }
    }

    /// A pod of the app that became ready after this moment; waits for it.
    pub(crate) async fn after(&self, app: &str, moment: Instant, within: Duration) -> Result<Moments> {
        let deadline = Instant::now() + within;
        loop {
            let last = self.moments.lock().unwrap_or_else(PoisonError::into_inner).get(app).copied();
            match last {
                Some(last) if last.ready > moment => return Ok(last),
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
