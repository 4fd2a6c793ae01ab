//! Which members live: one Lease each, judged by when its renewals were observed here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lease::{self, DURATION, LEADER};
use super::stores::Stores;
use super::{ADMIN, Cluster, ClusterError};
use crate::clock::Clock;

/// How often a member renews its Lease.
const RENEW: Duration = Duration::from_secs(5);
/// A dead member's Lease is cleared away after this long.
const CLEAR: Duration = Duration::from_secs(120);

/// Who lives.
#[derive(Clone, Debug)]
pub struct Members {
    me: String,
    namespace: String,
    pod_uid: Option<String>,
    stores: Stores,
    seen: Arc<Mutex<BTreeMap<String, (String, Instant)>>>,
    /// Since when this member's own renewals have succeeded, and been seen by its watch, without a break.
    steady: Arc<Mutex<Option<Instant>>>,
}

impl Members {
    /// A member called `me`, with its Lease in `namespace`.
    pub fn new(me: &str, namespace: &str, pod_uid: Option<String>, stores: Stores) -> Self {
        Self {
            me: me.to_owned(),
            namespace: namespace.to_owned(),
            pod_uid,
            stores,
            seen: Arc::default(),
            steady: Arc::default(),
        }
    }

    /// The members that live now, this one always among them.
    ///
    /// After an outage of the API server every member would see every other one's Lease stand still, and take its
    /// addresses out. So everybody lives until this member has renewed its own for one Lease's duration.
    pub fn living(&self) -> BTreeSet<String> {
        let mut living = BTreeSet::from([self.me.clone()]);
        if self.steady().is_none_or(|since| since.elapsed() < DURATION) {
            let leases = self.stores.leases.within(&self.namespace);
            let members = leases.iter().filter(|(name, _)| is_member(name));
            living.extend(members.map(|(_, lease)| lease.holder.clone()));
            living.extend(self.stores.authors.all());
            living.remove("");
            return living;
        }
        for (name, age) in self.ages() {
            let Some(lease) = self.stores.leases.find(&self.namespace, &name) else { continue };
            if age < Duration::from_secs(u64::from(lease.seconds)) && !self.is_unready_pod(&lease.holder) {
                living.insert(lease.holder.clone());
            }
        }
        // Who writes lives, also before its Lease is seen or its pod is ready: to sweep its slices now would only make
        // it write them again, and both for ever.
        living.extend(self.stores.wrote.within(DURATION));
        living.remove("");
        living
    }

    /// Writes this member's Lease for the first time.
    pub async fn join(
        &self,
        cluster: &Cluster,
        admin: Option<&str>,
        clock: Clock,
    ) -> Result<(), ClusterError> {
        let api: Api<Lease> = Api::namespaced(cluster.client(), &self.namespace);
        self.renew(cluster, &api, admin, clock).await
    }

    /// Renews this member's Lease until `stop`; takes it away then, so that others need not wait.
    pub async fn attend(
        self,
        cluster: Cluster,
        admin: Option<String>,
        clock: Clock,
        stop: CancellationToken,
    ) {
        let api: Api<Lease> = Api::namespaced(cluster.client(), &self.namespace);
        loop {
            if let Err(error) = self.renew(&cluster, &api, admin.as_deref(), clock).await {
                tracing::warn!(error = error.chain(), "cannot renew this member's Lease");
            }
            self.clear_old(&cluster, &api).await;
            if stop.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_none() {
                break;
            }
        }
        let gone = cluster.call(api.delete(&lease_name(&self.me), &DeleteParams::default())).await;
        if let Err(error) = gone {
            tracing::warn!(error = error.chain(), "cannot take this member's Lease away");
        }
    }

    async fn renew(
        &self,
        cluster: &Cluster,
        api: &Api<Lease>,
        admin: Option<&str>,
        clock: Clock,
    ) -> Result<(), ClusterError> {
        let renewed = self.write(cluster, api, admin, clock).await;
        let heard = matches!(renewed, Ok(true));
        let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
        *steady = heard.then(|| steady.unwrap_or_else(Instant::now));
        renewed.map(|_| ())
    }

    /// Writes the Lease. Whether the watch had shown the one before: it may be silent while calls go through.
    async fn write(
        &self,
        cluster: &Cluster,
        api: &Api<Lease>,
        admin: Option<&str>,
        clock: Clock,
    ) -> Result<bool, ClusterError> {
        let name = lease_name(&self.me);
        let mut lease = lease::lease(&name, &self.me, DURATION, clock.now());
        if let Some(admin) = admin {
            lease.metadata.annotations = Some([(ADMIN.to_owned(), admin.to_owned())].into());
        }
        // However the pod ends, nothing of it is left behind.
        lease.metadata.owner_references = self.pod_uid.as_ref().map(|uid| {
            let (api_version, kind) = ("v1".to_owned(), "Pod".to_owned());
            let (name, uid) = (self.me.clone(), uid.clone());
            vec![OwnerReference { api_version, kind, name, uid, ..OwnerReference::default() }]
        });
        match cluster.call(api.get_opt(&name)).await? {
            None => {
                cluster.call(api.create(&lease::params(), &lease)).await?;
                Ok(true)
            }
            Some(there) => {
                let shown = self.stores.leases.find(&self.namespace, &name);
                let version = there.metadata.resource_version;
                let heard = shown.is_some_and(|shown| version.as_deref() == Some(&shown.resource_version));
                lease.metadata.resource_version = version;
                cluster.call(api.replace(&name, &lease::params(), &lease)).await?;
                Ok(heard)
            }
        }
    }

    fn steady(&self) -> Option<Instant> {
        *self.steady.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long each member's Lease has not changed, as seen from here.
    fn ages(&self) -> Vec<(String, Duration)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let leases = self.stores.leases.within(&self.namespace);
        let members = leases.iter().filter(|(name, _)| is_member(name));
        let mut next = BTreeMap::new();
        let mut ages = Vec::new();
        for (name, lease) in members {
            let since = match seen.get(name) {
                Some((version, since)) if *version == lease.resource_version => *since,
                _ => Instant::now(),
            };
            ages.push((name.to_owned(), since.elapsed()));
            next.insert(name.to_owned(), (lease.resource_version.clone(), since));
        }
        *seen = next;
        ages
    }

    /// A member that is a pod, and that pod is not ready: its addresses answer nobody.
    fn is_unready_pod(&self, member: &str) -> bool {
        let pod = self.stores.pods.find(&self.namespace, member);
        pod.is_some_and(|pod| pod.seen.deleting || !pod.seen.ready)
    }

    async fn clear_old(&self, cluster: &Cluster, api: &Api<Lease>) {
        for (name, age) in self.ages() {
            let Some(lease) = self.stores.leases.find(&self.namespace, &name) else { continue };
            if age < CLEAR || lease.holder == self.me {
                continue;
            }
            let only = Preconditions { resource_version: Some(lease.resource_version.clone()), uid: None };
            let params = DeleteParams { preconditions: Some(only), ..DeleteParams::default() };
            match cluster.call(api.delete(&name, &params)).await {
                Ok(_) | Err(ClusterError::Conflict(_) | ClusterError::Gone(_)) => {}
                Err(error) => {
                    tracing::warn!(error = error.chain(), "cannot clear a dead member's Lease away");
                }
            }
        }
    }
}

/// The name of a member's Lease.
pub fn lease_name(member: &str) -> String {
    format!("{LEADER}-{member}")
}

/// Whether a Lease of this name is a member's.
pub fn is_member(name: &str) -> bool {
    name.strip_prefix(LEADER).is_some_and(|rest| rest.starts_with('-'))
}
