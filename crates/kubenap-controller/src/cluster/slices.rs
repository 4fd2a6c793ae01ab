//! EndpointSlices: KubeNap's own read into the core's form and back, everybody else's into endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::ResourceExt as _;
use kubenap_core::app::key;
use kubenap_core::seen::{EndpointSeen, Family, ServicePort, Slice, Stamp};

use super::slim::{Slim, exact};
use super::space::Tag;

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq)]
pub enum SlimSlice {
    /// One that KubeNap wrote.
    Ours(Slice),
    /// Anybody else's.
    Theirs {
        /// The Service it is of.
        service: String,
        /// Its endpoints, one for each address and port.
        endpoints: Vec<EndpointSeen>,
        /// Its version.
        resource_version: String,
    },
}

impl SlimSlice {
    /// The Service that the slice is of.
    pub fn service(&self) -> &str {
        match self {
            Self::Ours(slice) => &slice.service,
            Self::Theirs { service, .. } => service,
        }
    }
}

impl Slim for SlimSlice {
    type Object = EndpointSlice;

    fn of(object: EndpointSlice) -> Self {
        let label = |name: &str| object.labels().get(name).cloned();
        let service = label(key::SERVICE_NAME).unwrap_or_default();
        if label(key::MANAGED_BY).as_deref() == Some(key::MANAGER) {
            return Self::Ours(ours(service, &object));
        }
        let resource_version = object.resource_version().unwrap_or_default();
        let ports = object.ports.unwrap_or_default();
        let mut endpoints = Vec::new();
        for endpoint in object.endpoints {
            let conditions = endpoint.conditions.unwrap_or_default();
            let ready = conditions.ready.unwrap_or(true) && !conditions.terminating.unwrap_or(false);
            let pod = endpoint.target_ref.and_then(|ObjectReference { uid, .. }| uid).unwrap_or_default();
            let Some(address) = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok())
            else {
                continue;
            };
            for port in &ports {
                let Some(number) = port.port.and_then(|number| u16::try_from(number).ok()) else { continue };
                endpoints.push(EndpointSeen {
                    service: service.clone(),
                    port: port.name.clone().unwrap_or_default(),
                    address: SocketAddr::new(address, number),
                    pod: pod.clone(),
                    ready,
                });
            }
        }
        Self::Theirs { service, endpoints: exact(endpoints.into_iter()), resource_version }
    }

    fn tags(&self) -> impl Iterator<Item = Tag> {
        let apps = match self {
            Self::Ours(slice) => Some(&slice.apps),
            Self::Theirs { .. } => None,
        };
        let apps = apps.into_iter().flat_map(BTreeMap::keys).map(|name| Tag::app(name));
        std::iter::once(Tag::service(self.service())).chain(apps)
    }

    fn resource_version(&self) -> &str {
        match self {
            Self::Ours(slice) => &slice.resource_version,
            Self::Theirs { resource_version, .. } => resource_version,
        }
    }
}

fn ours(service: String, object: &EndpointSlice) -> Slice {
    let text = |name: &str| object.annotations().get(name).cloned().unwrap_or_default();
    let leaving = object.endpoints.iter().any(|endpoint| {
        endpoint
            .conditions
            .as_ref()
            .is_some_and(|one| one.terminating == Some(true) || one.ready == Some(false))
    });
    let addresses = object.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let mut ports: Vec<_> = object
        .ports
        .iter()
        .flatten()
        .filter_map(|port| {
            let number = port.port.and_then(|number| u16::try_from(number).ok())?;
            let name = port.name.clone().unwrap_or_default();
            Some(ServicePort { name, number, app_protocol: port.app_protocol.clone() })
        })
        .collect();
    ports.sort();
    Slice {
        name: object.name_any(),
        service,
        member: text(key::SLICE_MEMBER),
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
        family: if object.address_type == "IPv6" { Family::V6 } else { Family::V4 },
        addresses: addresses.filter_map(|text| text.parse().ok()).collect(),
        ports,
        apps: stamps(&text(key::SLICE_APPS)),
        leaving,
    }
}

/// The API's form of one of KubeNap's slices.
pub fn object_of(namespace: &str, slice: &Slice, owner: &str) -> EndpointSlice {
    let labels = BTreeMap::from([
        (key::SERVICE_NAME.to_owned(), slice.service.clone()),
        (key::MANAGED_BY.to_owned(), key::MANAGER.to_owned()),
    ]);
    let annotations = BTreeMap::from([
        (key::SLICE_MEMBER.to_owned(), slice.member.clone()),
        (key::SLICE_APPS.to_owned(), stamps_text(&slice.apps)),
    ]);
    // Garbage collection follows the Service; `blockOwnerDeletion` would need a right that KubeNap does not have.
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Service".to_owned(),
        name: slice.service.clone(),
        uid: owner.to_owned(),
        ..OwnerReference::default()
    };
    let conditions = EndpointConditions {
        ready: Some(!slice.leaving),
        serving: Some(true),
        terminating: Some(slice.leaving),
    };
    let endpoint = |address: &IpAddr| Endpoint {
        addresses: vec![address.to_string()],
        conditions: Some(conditions.clone()),
        ..Endpoint::default()
    };
    let port = |port: &ServicePort| EndpointPort {
        name: Some(port.name.clone()),
        port: Some(i32::from(port.number)),
        protocol: Some("TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
    };
    EndpointSlice {
        address_type: match slice.family {
            Family::V4 => "IPv4".to_owned(),
            Family::V6 => "IPv6".to_owned(),
        },
        endpoints: slice.addresses.iter().map(endpoint).collect(),
        metadata: ObjectMeta {
            name: Some(slice.name.clone()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels),
            annotations: Some(annotations),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        ports: Some(slice.ports.iter().map(port).collect()),
    }
}

/// Reads `web=3/2,api=5/1`: name, epoch, count. What is not understood is left out.
fn stamps(text: &str) -> BTreeMap<String, Stamp> {
    let stamp = |item: &str| {
        let (name, rest) = item.split_once('=')?;
        let (epoch, restore) = rest.split_once('/')?;
        Some((name.to_owned(), Stamp { epoch: epoch.parse().ok()?, restore: restore.parse().ok()? }))
    };
    text.split(',').filter_map(stamp).collect()
}

fn stamps_text(apps: &BTreeMap<String, Stamp>) -> String {
    let item = |(name, stamp): (&String, &Stamp)| format!("{name}={}/{}", stamp.epoch, stamp.restore);
    apps.iter().map(item).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_ours_is_read_as_it_was_written() {
        let slice = Slice {
            name: "kubenap-web-1-v4".into(),
            service: "web".into(),
            member: "m1".into(),
            uid: String::new(),
            resource_version: String::new(),
            family: Family::V4,
            addresses: ["10.0.0.1".parse().unwrap()].into(),
            ports: vec![ServicePort { name: "http".into(), number: 16000, app_protocol: Some("h2c".into()) }],
            apps: [("web".to_owned(), Stamp { epoch: 3, restore: 2 })].into(),
            leaving: false,
        };
        assert_eq!(SlimSlice::of(object_of("shop", &slice, "u")), SlimSlice::Ours(slice));
    }
}
