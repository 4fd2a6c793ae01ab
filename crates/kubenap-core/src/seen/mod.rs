//! What the cluster says about one app: raw facts, and the few questions that rest on them alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

use crate::app::AppId;

mod hook;
mod pieces;
mod record;
mod reverts;
mod trouble;

pub use hook::{HookGap, HookSeen};
pub use pieces::{KINDS as PIECE_KINDS, MADE, PieceId, Pieces};
pub use record::{Phase, PortKey, Record, WakePorts, counted, remembered};
pub use reverts::{MOST as MOST_REVERTS, Reverts};
pub use trouble::Trouble;

/// Everything that was read of an app and what surrounds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The Deployment itself.
    pub deployment: DeploymentSeen,
    /// Its Services, in order of name.
    pub services: Vec<ServiceSeen>,
    /// Services that an annotation names and that do not exist.
    pub missing_services: Vec<String>,
    /// Ingresses that an annotation names and that do not exist.
    pub missing_ingresses: Vec<String>,
    /// KubeNap's own slices of these Services.
    pub slices: Vec<Slice>,
    /// The hook on the error path of the proxy in front. Counts only for an app that is not substituted.
    pub hook: HookSeen,
    /// Why KubeNap cannot put the hook in place itself, where it is to and cannot.
    pub hook_refusal: String,
    /// What KubeNap has yet to apply for the hook to be in place; only where it may.
    pub unapplied: Vec<Value>,
    /// The pieces that are there by KubeNap's own hand, as far as this member has looked.
    pub applied: Pieces,
    /// What its ReplicaSets remember of a nap, as copies of its annotations that `kubectl rollout undo` does not reach.
    /// Read where the Deployment is at zero and nothing else says why.
    pub remembered: Option<Stamp>,
    /// The greatest epoch of which its ReplicaSets have a copy, read before a nap: what an undo may bring back. Greater
    /// than all others here where annotations were undone before.
    pub counted: u64,
    /// Everybody else's endpoints of these Services.
    pub endpoints: Vec<EndpointSeen>,
    /// The pods of the app and of those that share its Services.
    pub pods: Vec<PodSeen>,
    /// No pod that answers now belongs to the time before the nap: since the nap the app was seen without any pod, or
    /// its Deployment and its ReplicaSets have observed the wake and the pods were read after that. Once true it stays
    /// so for this wake; a later write on the Deployment, which is not observed at once, does not take it back.
    pub pods_confirmed: bool,
    /// Who else scales the Deployment.
    pub scaler: Option<Scaler>,
    /// Other opted-in Deployments behind one of the Services.
    pub peers: Vec<Peer>,
    /// Deployments behind one of the Services that are not opted in.
    pub strangers: Vec<String>,
}

/// The facts about a Deployment that matter here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentSeen {
    /// Its unique id.
    pub uid: String,
    /// The version that was read; every write on it carries this.
    pub resource_version: String,
    /// Grows with each change of its spec.
    pub generation: i64,
    /// Up to which generation its controller has acted.
    pub observed_generation: i64,
    /// `spec.replicas`.
    pub replicas: u32,
    /// `status.replicas`: pods that exist.
    pub pods: u32,
    /// Pods of the newest template.
    pub updated: u32,
    /// Pods that are ready.
    pub ready: u32,
    /// `spec.paused`.
    pub paused: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// What keeps its ReplicaSet from making pods (`ReplicaFailure`): a quota or an admission rule.
    pub refused: Option<Trouble>,
    /// Its template has a readiness probe.
    pub probed: bool,
    /// What KubeNap wrote on it.
    pub record: Record,
}

/// A Service of the app.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSeen {
    /// Its name.
    pub name: String,
    /// Its unique id, the owner of KubeNap's slices.
    pub uid: String,
    /// Why KubeNap cannot stand in for it, if so.
    pub refusal: Option<ServiceRefusal>,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// The address families it serves.
    pub families: BTreeSet<Family>,
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// Its name; empty for the one port of a Service without names.
    pub name: String,
    /// The number that clients use.
    pub number: u16,
    /// `appProtocol`, copied to slices.
    pub app_protocol: Option<String>,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

/// Why KubeNap cannot stand in for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceRefusal {
    /// No cluster IP: clients look up the pods themselves.
    Headless,
    /// A name for something outside.
    ExternalName,
    /// Its endpoints are written by somebody else.
    NoSelector,
    /// A port is UDP or SCTP.
    NotTcp,
    /// `publishNotReadyAddresses`.
    NotReadyToo,
    /// Internal or external traffic policy `Local`.
    LocalOnly,
    /// No member has an address of one of its families.
    NoSuchFamily,
    /// It has no ports.
    NoPorts,
}

/// One of KubeNap's EndpointSlices: one member's addresses for one Service and family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: String,
    /// The Service it is of.
    pub service: String,
    /// The member whose addresses it holds.
    pub member: String,
    /// Its unique id; empty for one that is yet to be written.
    pub uid: String,
    /// The version that was read; empty for one that is yet to be written.
    pub resource_version: String,
    /// Its address family.
    pub family: Family,
    /// The member's addresses; none in one that its member left behind for what it remembers.
    pub addresses: BTreeSet<IpAddr>,
    /// Port name to the number that the member listens on.
    pub ports: Vec<ServicePort>,
    /// Epoch and count of each app behind the Service, by the Deployment's name.
    pub apps: BTreeMap<String, Stamp>,
    /// Marked as terminating: it is about to be deleted.
    pub leaving: bool,
}

/// What a slice remembers of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// The nap that it was written for.
    pub epoch: u64,
    /// The replica count to restore.
    pub restore: u32,
}

/// One endpoint of somebody else's slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSeen {
    /// The Service.
    pub service: String,
    /// The Service port's name.
    pub port: String,
    /// Where it is.
    pub address: SocketAddr,
    /// The uid of the pod behind it.
    pub pod: String,
    /// It is shown as ready and not as terminating.
    pub ready: bool,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// Its unique id.
    pub uid: String,
    /// It is ready.
    pub ready: bool,
    /// It was told to stop.
    pub deleting: bool,
    /// Why it cannot start, if that can be told.
    pub trouble: Option<Trouble>,
}

/// Who else scales the Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaler {
    /// Its kind and name, for messages.
    pub name: String,
    /// The least that it scales to.
    pub least: u32,
    /// It scales to zero by itself.
    pub owns_zero: bool,
}

/// Another opted-in Deployment behind one of the app's Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Which.
    pub id: AppId,
    /// What it is doing.
    pub phase: Phase,
    /// Nothing of its own keeps it from a nap.
    pub willing: bool,
    /// What slices must say of it; none while it is awake.
    pub stamp: Option<Stamp>,
}

impl Seen {
    /// Whether every Service port, by name, has an endpoint on a pod that stays.
    ///
    /// Just after a scale to zero, slices still show dying pods as ready; so an endpoint counts only if its pod is
    /// not being deleted, and if no pod of the time before the nap can be among them (`pods_confirmed`).
    ///
    /// An app without a Service has no way in that could be asked; a ready pod is all there is to it.
    pub fn ready(&self) -> bool {
        if self.services.is_empty() {
            return self.pods_confirmed && self.pods.iter().any(|pod| pod.ready && !pod.deleting);
        }
        self.pods_confirmed
            && self.services.iter().all(|service| {
                service.ports.iter().all(|port| !self.targets(&service.name, &port.name).is_empty())
            })
    }

    /// The pieces of the hook that KubeNap has put in place, or was about to: as it is written down, and as it is seen.
    pub fn pieces(&self) -> Pieces {
        self.deployment.record.hook_pieces.and(&self.applied.0)
    }

    /// Whether some of that is not written down on the Deployment yet.
    pub fn unrecorded(&self) -> bool {
        let recorded = &self.deployment.record.hook_pieces;
        self.wanted_pieces() != *recorded
    }

    /// All that is to be written down of the hook: these, and what is yet to be applied.
    pub fn wanted_pieces(&self) -> Pieces {
        let ids: Vec<_> = self.unapplied.iter().map(PieceId::of).collect();
        self.pieces().and(&ids)
    }

    /// What the app's proxy was told, and which whole objects it is yet to be told. While this changes, it may not have
    /// heard of all that leads to it.
    pub fn told(&self) -> (Pieces, Pieces) {
        let whole = self.unapplied.iter().map(PieceId::of).filter(PieceId::is_whole);
        (self.pieces(), Pieces(whole.collect()))
    }

    /// The addresses of living, ready pods for one Service port.
    pub fn targets(&self, service: &str, port: &str) -> Vec<SocketAddr> {
        let living = |uid: &str| self.pods.iter().any(|pod| pod.uid == uid && pod.ready && !pod.deleting);
        self.endpoints
            .iter()
            .filter(|end| end.ready && end.service == service && end.port == port && living(&end.pod))
            .map(|end| end.address)
            .collect()
    }

    /// Why the app cannot start, if no pod is ready and one says so.
    pub fn trouble(&self) -> Option<Trouble> {
        let living = || self.pods.iter().filter(|pod| !pod.deleting);
        if living().any(|pod| pod.ready) {
            return None;
        }
        living().filter_map(|pod| pod.trouble).min().or(self.deployment.refused)
    }

    /// The greatest epoch that anything says of the app called `name`.
    pub fn epoch(&self, name: &str) -> u64 {
        let stamps = self.slices.iter().filter_map(|slice| slice.apps.get(name)).chain(&self.remembered);
        stamps.map(|stamp| stamp.epoch).fold(self.deployment.record.epoch, u64::max)
    }

    /// The newest stamp of the app called `name`: on slices that are not about to go, or in its ReplicaSets.
    pub fn stamp(&self, name: &str) -> Option<Stamp> {
        self.slices
            .iter()
            .filter(|slice| !slice.leaving)
            .filter_map(|slice| slice.apps.get(name))
            .chain(&self.remembered)
            .copied()
            .max()
    }
}

impl Slice {
    /// Whether new connections arrive at the member by it.
    pub fn is_open(&self) -> bool {
        !self.leaving && !self.addresses.is_empty()
    }
}

impl ServiceRefusal {
    /// What the Service is, for messages.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::Headless => "is headless",
            Self::ExternalName => "is of type ExternalName",
            Self::NoSelector => "has no selector",
            Self::NotTcp => "has a port that is not TCP",
            Self::NotReadyToo => "has publishNotReadyAddresses",
            Self::LocalOnly => "has a traffic policy Local",
            Self::NoSuchFamily => "has an address family that KubeNap has no address of",
            Self::NoPorts => "has no ports",
        }
    }
}
