//! Every store, and the watches that fill them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::api::ListParams;
use kube::{Api, Resource};
use kubenap_core::app::{AppId, key};
use kubenap_core::proxy::routes::{KINDS, OTHERS};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::observe::selected_by;
use super::route_kinds::{self, Absence, Unlisted};
use super::slices::SlimSlice;
use super::slim::{Slim, SlimDeployment, SlimIngress, SlimIngressClass, SlimLease, SlimPod, SlimService};
use super::slim_route::{OTHER_KINDS, ROUTE_KINDS, SlimRoute};
use super::space::{Space, Tag};
use super::thin::Thin;
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
    /// Routes that are no Ingresses, a store for each kind; none as long as the kind is not there or may not be listed.
    pub routes: [Watched<SlimRoute>; ROUTE_KINDS],
    /// The same of those kinds that are read only for where they lead.
    pub other_routes: [Watched<SlimRoute>; OTHER_KINDS],
    /// Which kinds of routes are not known.
    pub unlisted: Unlisted,
    /// The Leases of KubeNap's own namespace.
    pub leases: Watched<SlimLease>,
    /// When each member was last seen to write one of its slices.
    pub wrote: Wrote,
    /// Which members' slices there are.
    pub authors: Authors,
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

/// The members that have slices, and how many each.
#[derive(Clone, Debug, Default)]
pub struct Authors(Arc<Mutex<BTreeMap<String, usize>>>);

impl Authors {
    fn change(&self, old: Option<&SlimSlice>, new: Option<&SlimSlice>) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(SlimSlice::Ours(slice)) = new {
            *counts.entry(slice.member.clone()).or_default() += 1;
        }
        if let Some(SlimSlice::Ours(slice)) = old
            && let Some(count) = counts.get_mut(&slice.member)
        {
            *count = count.saturating_sub(1);
            counts.retain(|_, count| *count > 0);
        }
    }

    /// All of them.
    pub fn all(&self) -> BTreeSet<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
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
            routes: std::array::from_fn(|_| Watched::new()),
            other_routes: std::array::from_fn(|_| Watched::new()),
            unlisted: Unlisted::default(),
            leases: Watched::new(),
            wrote: Wrote::default(),
            authors: Authors::default(),
            namespaces: namespaces.to_vec(),
        };
        let label = Some(key::ENABLED);
        let tell = Arc::clone(touched);
        let deployment: Changed<SlimDeployment> =
            Arc::new(move |_, old, new| new.or(old).into_iter().for_each(|deployment| tell(&deployment.id)));
        stores.follow(cluster, &stores.deployments, label, &deployment, tasks);

        // What first lists say concerns everybody, and everybody is looked at when all of them are in.
        let followers = stores.followers();
        let (tell, of) = (Arc::clone(touched), stores.clone());
        let service: Changed<SlimService> = Arc::new(move |(namespace, _), old, new| {
            if of.services.is_synced(followers) {
                let deployments = of.deployments.within(namespace);
                for service in old.iter().chain(&new) {
                    tell_selected(&deployments, service, &tell);
                }
            }
        });
        stores.follow(cluster, &stores.services, None, &service, tasks);

        let (tell, of) = (Arc::clone(touched), stores.clone());
        let slice: Changed<SlimSlice> = Arc::new(move |(namespace, _), old, new| {
            of.authors.change(old, new);
            if let Some(SlimSlice::Ours(slice)) = new {
                of.wrote.note(&slice.member);
            }
            if !of.slices.is_synced(followers) {
                return;
            }
            for slice in old.iter().chain(&new) {
                if let SlimSlice::Ours(slice) = slice {
                    slice.apps.keys().for_each(|name| tell(&AppId::new(namespace, name)));
                }
                if let Some(service) = of.services.find(namespace, slice.service()) {
                    tell_selected(&of.deployments.within(namespace), &service, &tell);
                }
            }
        });
        stores.follow(cluster, &stores.slices, None, &slice, tasks);

        let (tell, of) = (Arc::clone(touched), stores.clone());
        let pod: Changed<SlimPod> = Arc::new(move |(namespace, _), old, new| {
            let Some(pod) = new.or(old).filter(|_| of.pods.is_synced(followers)) else { return };
            let deployments = of.deployments.within(namespace);
            let tagged =
                pod.labels.iter().flat_map(|(name, value)| deployments.tagged(Tag::label(name, value)));
            // A pod carries all labels of its template, so some are tried more than once.
            let own: BTreeSet<_> =
                tagged.filter(|(_, one)| one.selector.takes(&pod.labels)).map(|(_, one)| &one.id).collect();
            for app in own {
                tell(app);
            }
        });
        stores.follow(cluster, &stores.pods, None, &pod, tasks);

        // A route changes whom a request is for, not what an app does next: the next turn reads it.
        let nothing: Changed<SlimIngress> = Arc::new(|_, _, _| {});
        stores.follow(cluster, &stores.ingresses, None, &nothing, tasks);

        tasks.spawn(follow_classes(cluster.clone(), stores.ingress_classes.clone()));
        let routes = stores.routes.iter().zip(KINDS.into_iter().skip(1));
        for (store, kind) in routes.chain(stores.other_routes.iter().zip(OTHERS)) {
            let spaces: Vec<_> = match namespaces {
                [] => vec![None],
                names => names.iter().cloned().map(Some).collect(),
            };
            let absence = Absence::default();
            for space in spaces {
                stores.unlisted.begin(&kind, space.as_ref());
                let (cluster, store, unlisted) = (cluster.clone(), store.clone(), stores.unlisted.clone());
                let absence = absence.clone();
                tasks.spawn(route_kinds::follow(cluster, store, kind, space, unlisted, absence));
            }
        }

        let leases: Api<Thin<SlimLease>> = Api::namespaced(cluster.client(), lease_namespace);
        let space = Some(lease_namespace.to_owned());
        tasks.spawn(stores.leases.clone().follow(leases, space, None, Arc::new(|_, _, _| {})));
        stores
    }

    /// Waits until every first list is in, but for IngressClasses and what may not be installed: one can do without.
    pub async fn synced(&self) {
        let followers = self.followers();
        self.deployments.synced(followers).await;
        self.services.synced(followers).await;
        self.slices.synced(followers).await;
        self.pods.synced(followers).await;
        self.ingresses.synced(followers).await;
        self.leases.synced(1).await;
    }

    /// Every app that is opted in, and every app that a slice of ours still remembers.
    pub fn apps(&self) -> BTreeSet<AppId> {
        let mut apps = BTreeSet::new();
        for space in self.deployments.all().values() {
            apps.extend(space.values().map(|deployment| deployment.id.clone()));
        }
        for (namespace, space) in self.slices.all() {
            for (_, slice) in space.iter() {
                if let SlimSlice::Ours(slice) = &**slice {
                    apps.extend(slice.apps.keys().map(|name| AppId::new(&*namespace, name)));
                }
            }
        }
        apps
    }

    /// A number that changes when what leads to apps, or which there are, may have changed.
    pub fn routes_version(&self) -> [u64; 7] {
        [
            self.routes.iter().chain(&self.other_routes).map(Watched::version).sum(),
            self.unlisted.count() as u64,
            self.deployments.version(),
            self.services.version(),
            self.pods.version(),
            self.ingresses.version(),
            self.ingress_classes.version(),
        ]
    }

    /// How many watches feed each store.
    fn followers(&self) -> usize {
        self.namespaces.len().max(1)
    }

    fn follow<T>(
        &self,
        cluster: &Cluster,
        store: &Watched<T>,
        labels: Option<&str>,
        changed: &Changed<T>,
        tasks: &mut JoinSet<()>,
    ) where
        T: Slim,
        T::Object: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        let apis: Vec<(Option<String>, Api<Thin<T>>)> = if self.namespaces.is_empty() {
            vec![(None, Api::all(cluster.client()))]
        } else {
            let one = |name: &String| (Some(name.clone()), Api::namespaced(cluster.client(), name));
            self.namespaces.iter().map(one).collect()
        };
        for (space, api) in apis {
            let labels = labels.map(str::to_owned);
            tasks.spawn(store.clone().follow(api, space, labels, Arc::clone(changed)));
        }
    }
}

fn tell_selected(deployments: &Space<SlimDeployment>, service: &SlimService, touched: &Touched) {
    for (_, deployment) in selected_by(deployments, service) {
        touched(&deployment.id);
    }
}

/// Follows IngressClasses as soon as they may be listed. They belong to no namespace, so whoever grants rights by
/// namespace may leave them out: which proxy serves an Ingress is then not known, and all else goes on.
async fn follow_classes(cluster: Cluster, store: Watched<SlimIngressClass>) {
    let classes: Api<Thin<SlimIngressClass>> = Api::all(cluster.client());
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
    store.follow(classes, None, None, Arc::new(|_, _, _| {})).await;
}
