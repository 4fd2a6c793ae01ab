//! A small cluster as data: one app with its pods and slices, and how Kubernetes and the API server change it.

use std::collections::{BTreeMap, BTreeSet};

use kubenap_core::app::key;
use kubenap_core::policy::Texts;
use kubenap_core::seen::{
    DeploymentSeen, EndpointSeen, Family, PodSeen, Record, Seen, ServicePort, ServiceSeen, Slice, Trouble,
};
use kubenap_core::write::Write;

/// The Deployment, and its Service.
pub(super) const APP: &str = "web";

/// Everything that the API server holds.
#[derive(Clone, Debug)]
pub(super) struct Objects {
    pub(super) labels: Texts,
    pub(super) annotations: Texts,
    pub(super) replicas: u32,
    pub(super) generation: i64,
    /// Up to which generation the Deployment's controller has acted.
    pub(super) observed: i64,
    /// Grows with every change of whatever object.
    pub(super) clock: u64,
    /// The Deployment's `resourceVersion`.
    pub(super) version: u64,
    pub(super) template: u32,
    /// The copies of the annotations on the ReplicaSets, the current one last.
    pub(super) copies: Vec<Texts>,
    /// The ReplicaSet's controller has acted on what the Deployment's has observed.
    pub(super) acted: bool,
    pub(super) pods: Vec<Pod>,
    /// The uids of the pods that the Service's endpoints show as ready.
    pub(super) shown: BTreeSet<u64>,
    pub(super) slices: BTreeMap<String, Slice>,
}

/// One pod.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) uid: u64,
    pub(super) template: u32,
    pub(super) ready: bool,
    pub(super) deleting: bool,
    /// Its image cannot be had.
    pub(super) broken: bool,
}

/// Why a write was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Conflict;

impl Objects {
    /// An app that is opted in, and has no pods yet.
    pub(super) fn new(replicas: u32) -> Self {
        Self {
            labels: Texts::from([(key::ENABLED.to_owned(), "true".to_owned())]),
            annotations: Texts::new(),
            replicas,
            generation: 1,
            observed: 0,
            clock: 1,
            version: 1,
            template: 1,
            copies: vec![Texts::new()],
            acted: false,
            pods: Vec::new(),
            shown: BTreeSet::new(),
            slices: BTreeMap::new(),
        }
    }

    pub(super) fn living(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| !pod.deleting)
    }

    /// Whether as many pods as are wanted are ready, and no other is there.
    pub(super) fn is_well(&self) -> bool {
        let ready = self.living().filter(|pod| pod.ready && pod.template == self.template).count();
        ready == self.replicas as usize && self.living().count() == ready
    }

    /// Somebody writes on the Deployment.
    pub(super) fn edited(&mut self) {
        self.generation += 1;
        self.version = self.clock + 1;
    }

    /// The Deployment's controller acts on the newest version.
    pub(super) fn observe(&mut self) {
        self.observed = self.generation;
        if let Some(copy) = self.copies.last_mut() {
            copy.extend(self.annotations.clone());
        }
        self.acted = false;
    }

    /// What KubeNap reads.
    pub(super) fn seen(&self) -> Seen {
        let count = |which: &dyn Fn(&Pod) -> bool| {
            u32::try_from(self.living().filter(|pod| which(pod)).count()).unwrap_or(u32::MAX)
        };
        let deployment = DeploymentSeen {
            uid: "deployment".to_owned(),
            resource_version: self.version.to_string(),
            generation: self.generation,
            observed_generation: self.observed,
            replicas: self.replicas,
            pods: count(&|_| true),
            updated: count(&|pod| pod.template == self.template),
            ready: count(&|pod| pod.ready),
            paused: false,
            deleting: false,
            refused: None,
            probed: true,
            record: Record::read(&self.annotations),
        };
        let port = || ServicePort { name: "http".to_owned(), number: 80, app_protocol: None };
        let service = ServiceSeen {
            name: APP.to_owned(),
            uid: "service".to_owned(),
            refusal: None,
            ports: vec![port()],
            families: BTreeSet::from([Family::V4]),
        };
        let endpoint = |uid: &u64| EndpointSeen {
            service: APP.to_owned(),
            port: "http".to_owned(),
            address: ([10, 1, 0, 1], 8080).into(),
            pod: uid.to_string(),
            ready: true,
        };
        let pod = |pod: &Pod| PodSeen {
            uid: pod.uid.to_string(),
            ready: pod.ready,
            deleting: pod.deleting,
            trouble: (pod.broken && !pod.ready).then_some(Trouble::Image),
        };
        Seen {
            deployment,
            services: vec![service],
            slices: self.slices.values().cloned().collect(),
            endpoints: self.shown.iter().map(endpoint).collect(),
            pods: self.pods.iter().map(pod).collect(),
            pods_confirmed: true,
            ..Seen::default()
        }
    }

    /// Carries out one write as an API server does.
    pub(super) fn write(&mut self, write: Write) -> Result<(), Conflict> {
        let version = (self.clock + 1).to_string();
        match write {
            Write::Deployment(patch) => {
                let right = patch.resource_version.is_some_and(|read| read == self.version.to_string());
                if !right {
                    return Err(Conflict);
                }
                self.annotations.retain(|name, _| !patch.clear.contains(name.as_str()));
                self.annotations.extend(patch.set.into_iter().map(|(name, text)| (name.to_owned(), text)));
                self.replicas = patch.replicas.unwrap_or(self.replicas);
                self.edited();
            }
            Write::PutSlice { mut slice, .. } => {
                let known = self.slices.get(&slice.name).map(|known| known.uid.clone());
                slice.uid = known.unwrap_or_else(|| version.clone());
                slice.resource_version = version;
                self.slices.insert(slice.name.clone(), slice);
            }
            Write::MarkLeaving { slice, resource_version, .. } => {
                let known = self.slices.get_mut(&slice.name).ok_or(Conflict)?;
                if resource_version.is_some_and(|read| read != known.resource_version) {
                    return Err(Conflict);
                }
                (known.leaving, known.resource_version) = (true, version);
            }
            Write::DeleteSlice { name, uid, resource_version, .. } => {
                // What is gone already need not be deleted.
                let Some(known) = self.slices.get(&name) else { return Ok(()) };
                let other = uid.is_some_and(|read| read != known.uid)
                    || resource_version.is_some_and(|read| read != known.resource_version);
                if other {
                    return Err(Conflict);
                }
                self.slices.remove(&name);
            }
            Write::Attach { .. } | Write::Detach { .. } => {
                panic!("a proxy is told of an app that is substituted")
            }
        }
        Ok(())
    }
}
