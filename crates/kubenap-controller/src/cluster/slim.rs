//! Slim forms of Kubernetes objects: only what KubeNap looks at, so that thousands of them are cheap to keep.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressClass};
use kube::{Resource, ResourceExt as _};
use kubenap_core::app::{AppId, PREFIX, key};
use kubenap_core::policy::Texts;
use kubenap_core::seen::{DeploymentSeen, Family, PodSeen, Record, ServicePort, ServiceRefusal, ServiceSeen};
use serde::de::DeserializeOwned;

use super::labels::{self, Labels};
use super::selector::Selector;
use super::space::Tag;
use super::thin::{self, Unread};
use super::trouble::{refusal, trouble};
use crate::eager::{NamedPorts, Readiness, TargetPort};

/// A kind of object that is watched, with its slim form.
pub trait Slim: Clone + Send + Sync + PartialEq + 'static {
    /// The Kubernetes type.
    type Object: Resource + DeserializeOwned;
    /// What [`of`](Self::of) does not look at.
    const UNREAD: &'static Unread = &thin::ANY;
    /// Takes what is needed.
    fn of(object: Self::Object) -> Self;
    /// `metadata.resourceVersion`.
    fn resource_version(&self) -> &str;
    /// What others look for it by.
    fn tags(&self) -> impl Iterator<Item = Tag> {
        std::iter::empty()
    }
}

/// A Deployment.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimDeployment {
    /// Namespace and name.
    pub id: AppId,
    /// KubeNap's label, if it is there.
    pub labels: Arc<Texts>,
    /// KubeNap's annotations.
    pub annotations: Arc<Texts>,
    /// Which pods are its own.
    pub selector: Selector,
    /// The labels of its pods.
    pub template_labels: Labels,
    /// When it was made, by the API server's clock.
    pub created: Timestamp,
    /// How its pods can be asked whether they are ready; none: only their kubelet can tell.
    pub readiness: Option<Arc<Readiness>>,
    /// The named ports of its pods.
    pub ports: NamedPorts,
    /// The facts for the core.
    pub seen: DeploymentSeen,
}

/// A Service.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimService {
    /// The facts for the core, without regard to KubeNap's own addresses.
    pub seen: ServiceSeen,
    /// Where each of its ports leads to on a pod, by the port's number.
    pub targets: Box<[(u16, TargetPort)]>,
    /// The pods it selects; empty: none.
    pub selector: Labels,
    /// Its cluster IPs.
    pub cluster_ips: Box<[IpAddr]>,
    /// Clients stick to one endpoint.
    pub affinity: bool,
    /// Its version.
    pub resource_version: String,
}

/// A pod.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimPod {
    /// The facts for the core.
    pub seen: PodSeen,
    /// It has a node.
    pub scheduled: bool,
    /// It is in the phase `Running`: a container of it has started.
    pub running: bool,
    /// Its address, once it has one.
    pub address: Option<IpAddr>,
    /// Its labels.
    pub labels: Labels,
    /// Its addresses, as the kubelet says.
    pub addresses: Box<[IpAddr]>,
    /// Its version.
    pub resource_version: String,
}

/// An Ingress: which host and path go to which Service port.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimIngress {
    /// When it was made, by the API server's clock.
    pub created: Timestamp,
    /// The name of its class, also where only the annotation of old names it; none: the default class.
    pub class: Option<String>,
    /// Its rules.
    pub rules: Box<[SlimRule]>,
    /// Its version.
    pub resource_version: String,
}

/// One path of an Ingress.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimRule {
    /// The host; none: every host.
    pub host: Option<String>,
    /// The path.
    pub path: String,
    /// The path is the only one; otherwise it is a prefix.
    pub exact: bool,
    /// It takes every request for its host and path.
    pub outright: bool,
    /// The Service.
    pub service: String,
    /// The port as the Ingress writes it: a number or a name.
    pub port: String,
}

/// An IngressClass: which proxy serves the Ingresses that name it.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimIngressClass {
    /// `spec.controller`, such as `k8s.io/ingress-nginx`; empty when it says none.
    pub controller: String,
    /// It is for Ingresses that name no class.
    pub is_default: bool,
    /// Its version.
    pub resource_version: String,
}

/// A Lease.
#[derive(Clone, Debug, PartialEq)]
pub struct SlimLease {
    /// Who holds it; empty: nobody.
    pub holder: String,
    /// How long it holds without renewal, in seconds.
    pub seconds: u32,
    /// Where the holder's admin listener is.
    pub admin: Option<String>,
    /// Its version, which changes with every renewal.
    pub resource_version: String,
}

impl Slim for SlimDeployment {
    type Object = Deployment;
    const UNREAD: &'static Unread = &thin::DEPLOYMENT;

    fn of(object: Deployment) -> Self {
        let id = AppId::new(object.namespace().unwrap_or_default(), object.name_any());
        let meta = object.metadata;
        let ours = |texts: Option<Texts>| -> Texts {
            texts.unwrap_or_default().into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect()
        };
        let annotations = ours(meta.annotations);
        let spec = object.spec.unwrap_or_default();
        let status = object.status.unwrap_or_default();
        let refused = status.conditions.iter().flatten().find_map(refusal);
        let readiness = spec.template.spec.as_ref().and_then(Readiness::of).map(Readiness::shared);
        let ports = spec.template.spec.as_ref().map(NamedPorts::of).unwrap_or_default();
        let containers = spec.template.spec.map(|pod| pod.containers).unwrap_or_default();
        let seen = DeploymentSeen {
            uid: meta.uid.unwrap_or_default(),
            resource_version: meta.resource_version.unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            observed_generation: status.observed_generation.unwrap_or(0),
            replicas: count(spec.replicas.or(Some(1))),
            pods: count(status.replicas),
            updated: count(status.updated_replicas),
            ready: count(status.ready_replicas),
            paused: spec.paused.unwrap_or(false),
            deleting: meta.deletion_timestamp.is_some(),
            refused,
            probed: containers.iter().any(|container| container.readiness_probe.is_some()),
            record: Record::read(&annotations),
        };
        Self {
            id,
            labels: labels::shared(ours(meta.labels)),
            annotations: labels::shared(annotations),
            selector: Selector::of(spec.selector),
            readiness,
            ports,
            created: meta.creation_timestamp.map_or(Timestamp::MIN, |time| time.0),
            template_labels: Labels::of(
                &spec.template.metadata.and_then(|meta| meta.labels).unwrap_or_default(),
            ),
            seen,
        }
    }

    fn tags(&self) -> impl Iterator<Item = Tag> {
        self.template_labels.iter().map(|(name, value)| Tag::label(name, value))
    }

    fn resource_version(&self) -> &str {
        &self.seen.resource_version
    }
}

impl SlimDeployment {
    /// Whether a Service with this selector sends traffic to the Deployment's pods.
    pub fn is_selected_by(&self, selector: &Labels) -> bool {
        !selector.is_empty() && self.template_labels.contain(selector)
    }
}

impl Slim for SlimService {
    type Object = Service;

    fn of(object: Service) -> Self {
        let name = object.name_any();
        let meta = object.metadata;
        let spec = object.spec.unwrap_or_default();
        let selector = Labels::of(&spec.selector.unwrap_or_default());
        let ports = spec.ports.clone().unwrap_or_default();
        let local = |policy: &Option<String>| policy.as_deref() == Some("Local");
        let tcp = |protocol: &Option<String>| protocol.as_deref().is_none_or(|name| name == "TCP");
        let refusal = if spec.type_.as_deref() == Some("ExternalName") {
            Some(ServiceRefusal::ExternalName)
        } else if spec.cluster_ip.as_deref() == Some("None") {
            Some(ServiceRefusal::Headless)
        } else if selector.is_empty() {
            Some(ServiceRefusal::NoSelector)
        } else if ports.is_empty() {
            Some(ServiceRefusal::NoPorts)
        } else if !ports.iter().all(|port| tcp(&port.protocol)) {
            Some(ServiceRefusal::NotTcp)
        } else if spec.publish_not_ready_addresses == Some(true) {
            Some(ServiceRefusal::NotReadyToo)
        } else if local(&spec.internal_traffic_policy) || local(&spec.external_traffic_policy) {
            Some(ServiceRefusal::LocalOnly)
        } else {
            None
        };
        let families = spec.ip_families.unwrap_or_default();
        let family = |name: &str| if name == "IPv6" { Family::V6 } else { Family::V4 };
        let mut families: BTreeSet<_> = families.iter().map(|name| family(name)).collect();
        if families.is_empty() {
            families.insert(Family::V4);
        }
        let targets = ports
            .iter()
            .filter_map(|port| {
                let number = u16::try_from(port.port).ok()?;
                Some((number, TargetPort::of(port.target_port.clone(), number)))
            })
            .collect();
        let mut ports = exact(ports.into_iter().filter_map(|port| {
            let number = u16::try_from(port.port).ok()?;
            Some(ServicePort { name: port.name.unwrap_or_default(), number, app_protocol: port.app_protocol })
        }));
        ports.sort();
        let cluster_ips = spec.cluster_ips.or(spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
        Self {
            seen: ServiceSeen { name, uid: meta.uid.unwrap_or_default(), refusal, ports, families },
            targets,
            selector,
            cluster_ips: cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect(),
            affinity: spec.session_affinity.as_deref() == Some("ClientIP"),
            resource_version: meta.resource_version.unwrap_or_default(),
        }
    }

    fn tags(&self) -> impl Iterator<Item = Tag> {
        self.first().into_iter()
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

impl SlimService {
    /// A label that everything it selects must carry.
    pub fn first(&self) -> Option<Tag> {
        self.selector.iter().next().map(|(name, value)| Tag::label(name, value))
    }
}

impl Slim for SlimPod {
    type Object = Pod;
    const UNREAD: &'static Unread = &thin::POD;

    fn of(object: Pod) -> Self {
        let trouble = trouble(&object);
        let meta = object.metadata;
        let status = object.status.unwrap_or_default();
        // A ReplicaSet leaves an evicted pod lying about; it is as gone as one that was told to stop.
        let ended = matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"));
        let conditions = status.conditions.unwrap_or_default();
        let ready = conditions.iter().any(|one| one.type_ == "Ready" && one.status == "True");
        Self {
            seen: PodSeen {
                uid: meta.uid.unwrap_or_default(),
                ready,
                deleting: ended || meta.deletion_timestamp.is_some(),
                trouble,
            },
            scheduled: object.spec.and_then(|spec| spec.node_name).is_some(),
            running: status.phase.as_deref() == Some("Running"),
            addresses: status.pod_ips.iter().flatten().filter_map(|own| own.ip.parse().ok()).collect(),
            address: status.pod_ip.and_then(|ip| ip.parse().ok()),
            labels: Labels::of(&meta.labels.unwrap_or_default()),
            resource_version: meta.resource_version.unwrap_or_default(),
        }
    }

    fn tags(&self) -> impl Iterator<Item = Tag> {
        self.labels.iter().map(|(name, value)| Tag::label(name, value))
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

/// Where ingress-nginx is told that an Ingress takes a share.
const CANARY: &str = "nginx.ingress.kubernetes.io/canary";

impl Slim for SlimIngress {
    type Object = Ingress;

    fn of(object: Ingress) -> Self {
        let meta = object.metadata;
        let spec = object.spec.unwrap_or_default();
        // Some of the requests for a place that another Ingress has.
        let canary = meta.annotations.as_ref().and_then(|texts| texts.get(CANARY));
        let outright = canary.is_none_or(|value| value != "true");
        let rule = |host: &Option<String>, path: HTTPIngressPath| {
            let service = path.backend.service?;
            let port = service.port.unwrap_or_default();
            let port = port.number.map(|number| number.to_string()).or(port.name).unwrap_or_default();
            Some(SlimRule {
                host: host.clone().filter(|host| !host.is_empty()),
                path: path.path.unwrap_or_else(|| "/".to_owned()),
                exact: path.path_type == "Exact",
                outright,
                service: service.name,
                port,
            })
        };
        let everything = |backend: IngressBackend| HTTPIngressPath { backend, ..HTTPIngressPath::default() };
        let mut rules: Vec<_> =
            spec.default_backend.and_then(|backend| rule(&None, everything(backend))).into_iter().collect();
        for one in spec.rules.unwrap_or_default() {
            for path in one.http.map(|http| http.paths).unwrap_or_default() {
                rules.extend(rule(&one.host, path));
            }
        }
        let annotated = || meta.annotations?.remove("kubernetes.io/ingress.class");
        Self {
            created: meta.creation_timestamp.map_or(Timestamp::MAX, |time| time.0),
            class: spec.ingress_class_name.or_else(annotated),
            rules: rules.into(),
            resource_version: meta.resource_version.unwrap_or_default(),
        }
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

impl Slim for SlimIngressClass {
    type Object = IngressClass;

    fn of(object: IngressClass) -> Self {
        const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
        let meta = object.metadata;
        let default = meta.annotations.as_ref().and_then(|texts| texts.get(DEFAULT));
        Self {
            controller: object.spec.and_then(|spec| spec.controller).unwrap_or_default(),
            is_default: default.is_some_and(|value| value == "true"),
            resource_version: meta.resource_version.unwrap_or_default(),
        }
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

impl Slim for SlimLease {
    type Object = Lease;

    fn of(object: Lease) -> Self {
        let meta = object.metadata;
        let spec = object.spec.unwrap_or_default();
        Self {
            holder: spec.holder_identity.unwrap_or_default(),
            seconds: count(spec.lease_duration_seconds.or(Some(15))),
            admin: meta.annotations.and_then(|mut texts| texts.remove(super::ADMIN)),
            resource_version: meta.resource_version.unwrap_or_default(),
        }
    }

    fn resource_version(&self) -> &str {
        &self.resource_version
    }
}

/// All of them, without room for more: a vector that grew to hold one has room for four, in each of thousands.
pub(crate) fn exact<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut items: Vec<T> = items.collect();
    items.shrink_to_fit();
    items
}

/// A count that the API gives as a signed number.
pub fn count(number: Option<i32>) -> u32 {
    number.and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Whether the label is there at all, whatever its value.
pub fn is_labelled(labels: &BTreeMap<String, String>) -> bool {
    labels.contains_key(key::ENABLED)
}
