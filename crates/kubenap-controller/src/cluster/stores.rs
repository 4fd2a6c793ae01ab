//! Every store, and the watches that fill them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::IngressClass;
use kube::api::ListParams;
use kube::{Api, Resource};
use kubenap_core::app::{AppId, key};
use kubenap_core::policy::Texts;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::slices::SlimSlice;
use super::slim::{Slim, SlimDeployment, SlimIngress, SlimIngressClass, SlimLease, SlimPod, SlimService};
use super::watched::{Changed, Watched};
use super::{Cluster, ClusterError};

/// After which time it is tried again whether IngressClasses may be listed now.
const ASK_AGAIN: Duration = Duration::from_mins(1);

/// What is known of the cluster.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Deployments that carry KubeNap's label.
    pub deployments: Watched<SlimDeployment>,
    /// Services.
    pub services: Watched<SlimService>,
    /// EndpointSlices.
    pub slices: Watched<SlimSlice>,
    /// Pods.
    pub pods: Watched<SlimPod>,
    /// Ingresses.
    pub ingresses: Watched<SlimIngress>,
    /// IngressClasses, whatever the namespaces are; none as long as they may not be listed.
    pub ingress_classes: Watched<SlimIngressClass>,
    /// The Leases of KubeNap's own namespace.
    pub leases: Watched<SlimLease>,
    /// When each member was last seen to write one of its slices.
    pub wrote: Wrote,
    namespaces: Vec<String>,
}

/// When each member was last seen to write a slice: a sign of life, as good as a renewed Lease.
#[derive(Clone, Debug, Default)]
pub struct Wrote(Arc<Mutex<BTreeMap<String, Instant>>>);

impl Wrote {
    fn note(&self, member: &str) {
        let mut moments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moments.insert(member.to_owned(), Instant::now());
    }

    /// The members that wrote one within this time. Older moments are forgotten.
    pub fn within(&self, span: Duration) -> BTreeSet<String> {
        let mut moments = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        moments.retain(|_, at| at.elapsed() < span);
        moments.keys().cloned().collect()
    }
}

/// Told of every app that a change concerns.
pub type Touched = Arc<dyn Fn(&AppId) + Send + Sync>;

impl Stores {
    /// Lists again what apps' turns rest on, at most once in a while, however many apps want it.
    pub fn read_anew(&self) {
        self.deployments.read_anew();
        self.services.read_anew();
        self.slices.read_anew();
        self.pods.read_anew();
    }

    /// Starts all watches in `tasks`. No namespaces: all of them.
    pub fn start(
        cluster: &Cluster,
        namespaces: &[String],
        lease_namespace: &str,
        touched: &Touched,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let stores = Self {
            deployments: Watched::new(),
            services: Watched::new(),
            slices: Watched::new(),
            pods: Watched::new(),
            ingresses: Watched::new(),
            ingress_classes: Watched::new(),
            leases: Watched::new(),
            wrote: Wrote::default(),
            namespaces: namespaces.to_vec(),
        };
        let label = Some(key::ENABLED);
        let tell = Arc::clone(touched);
        let deployment: Changed<SlimDeployment> =
            Arc::new(move |(namespace, name), _, _| tell(&AppId::new(namespace, name)));
        stores.follow(cluster, &stores.deployments, label, &deployment, tasks);

        let (tell, of) = (Arc::clone(touched), stores.clone());
        let service: Changed<SlimService> = Arc::new(move |(namespace, _), old, new| {
            let selectors = old.iter().chain(&new).map(|service| &service.selector);
            of.tell_selected(namespace, &selectors.collect::<Vec<_>>(), &tell);
        });
        stores.follow(cluster, &stores.services, None, &service, tasks);

        let (tell, of) = (Arc::clone(touched), stores.clone());
        let slice: Changed<SlimSlice> = Arc::new(move |(namespace, _), old, new| {
            if let Some(SlimSlice::Ours(slice)) = new {
                of.wrote.note(&slice.member);
            }
            for slice in old.iter().chain(&new) {
                if let SlimSlice::Ours(slice) = slice {
                    slice.apps.keys().for_each(|name| tell(&AppId::new(namespace, name)));
                }
                if let Some(service) = of.services.find(namespace, slice.service()) {
                    of.tell_selected(namespace, &[&service.selector], &tell);
                }
            }
        });
        stores.follow(cluster, &stores.slices, None, &slice, tasks);

        let (tell, of) = (Arc::clone(touched), stores.clone());
        let pod: Changed<SlimPod> = Arc::new(move |(namespace, _), old, new| {
            let Some(pod) = new.or(old) else { return };
            for (name, deployment) in of.deployments.within(namespace) {
                if deployment.selector.takes(&pod.labels) {
                    tell(&AppId::new(namespace, name));
                }
            }
        });
        stores.follow(cluster, &stores.pods, None, &pod, tasks);

        // A route changes whom a request is for, not what an app does next: the next turn reads it.
        let nothing: Changed<SlimIngress> = Arc::new(|_, _, _| {});
        stores.follow(cluster, &stores.ingresses, None, &nothing, tasks);

        tasks.spawn(follow_classes(cluster.clone(), stores.ingress_classes.clone()));

        let leases: Api<Lease> = Api::namespaced(cluster.client(), lease_namespace);
        tasks.spawn(stores.leases.clone().follow(leases, None, Arc::new(|_, _, _| {})));
        stores
    }

    /// Waits until every first list is in, but for IngressClasses: one can do without.
    pub async fn synced(&self) {
        let followers = self.namespaces.len().max(1);
        self.deployments.synced(followers).await;
        self.services.synced(followers).await;
        self.slices.synced(followers).await;
        self.pods.synced(followers).await;
        self.ingresses.synced(followers).await;
        self.leases.synced(1).await;
    }

    /// Every app that is opted in, and every app that a slice of ours still remembers.
    pub fn apps(&self) -> BTreeSet<AppId> {
        let mut apps: BTreeSet<_> =
            self.deployments.all().into_keys().map(|(namespace, name)| AppId::new(namespace, name)).collect();
        for ((namespace, _), slice) in self.slices.all() {
            if let SlimSlice::Ours(slice) = &*slice {
                apps.extend(slice.apps.keys().map(|name| AppId::new(&namespace, name)));
            }
        }
        apps
    }

    fn tell_selected(&self, namespace: &str, selectors: &[&Texts], touched: &Touched) {
        for (name, deployment) in self.deployments.within(namespace) {
            if selectors.iter().any(|selector| deployment.is_selected_by(selector)) {
                touched(&AppId::new(namespace, name));
            }
        }
    }

    fn follow<T, K>(
        &self,
        cluster: &Cluster,
        store: &Watched<T>,
        labels: Option<&str>,
        changed: &Changed<T>,
        tasks: &mut JoinSet<()>,
    ) where
        T: Slim<Object = K>,
        K: Resource<Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
        K::DynamicType: Default + Eq + Hash + Clone,
    {
        let apis: Vec<Api<K>> = if self.namespaces.is_empty() {
            vec![Api::all(cluster.client())]
        } else {
            self.namespaces.iter().map(|name| Api::namespaced(cluster.client(), name)).collect()
        };
        for api in apis {
            tasks.spawn(store.clone().follow(api, labels.map(str::to_owned), Arc::clone(changed)));
        }
    }
}

/// Follows IngressClasses as soon as they may be listed. They belong to no namespace, so whoever grants rights by
/// namespace may leave them out: which proxy serves an Ingress is then not known, and all else goes on.
async fn follow_classes(cluster: Cluster, store: Watched<SlimIngressClass>) {
    let classes: Api<IngressClass> = Api::all(cluster.client());
    let mut told = false;
    // Whatever else goes wrong is the watch's to try again.
    while let Err(error @ ClusterError::Forbidden(_)) =
        cluster.call(classes.list(&ListParams::default().limit(1))).await
    {
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                error = error.chain(),
                "IngressClasses may not be listed, so which proxy serves an Ingress is not known"
            );
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    store.follow(classes, None, Arc::new(|_, _, _| {})).await;
}
