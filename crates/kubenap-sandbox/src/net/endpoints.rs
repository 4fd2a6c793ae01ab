//! Where a Service's port leads: what all of its `EndpointSlices` say together, whoever wrote them.
use crate::life::SERVICE;
use crate::store::{Store, object};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// The addresses behind a port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Endpoints {
    pub(crate) ready: Vec<SocketAddr>,
    /// Told to stop, and still serving: better than nothing.
    pub(crate) leaving: Vec<SocketAddr>,
}

impl Endpoints {
    /// The ready ones, else those that are leaving: as kube-proxy chooses.
    pub(crate) fn usable(&self) -> &[SocketAddr] {
        if self.ready.is_empty() { &self.leaving } else { &self.ready }
    }
}

/// Looks a port up by its name, which is empty for an only port without one.
pub(crate) fn endpoints(store: &Store, namespace: &str, service: &str, port: &str) -> Endpoints {
    let mut found = Endpoints::default();
    for (_, slice) in store.labelled("endpointslices", namespace, SERVICE, service) {
        let numbers = object::list(&slice["ports"]);
        let number = numbers.iter().find(|number| number["name"].as_str().unwrap_or("") == port);
        let Some(number) = number.and_then(|number| u16::try_from(number["port"].as_u64()?).ok()) else {
            continue;
        };
        for endpoint in object::list(&slice["endpoints"]) {
            let conditions = &endpoint["conditions"];
            let is_ready = conditions["ready"] != false;
            let is_serving = conditions["serving"].as_bool().unwrap_or(is_ready);
            let is_leaving = conditions["terminating"] == true;
            for address in object::list(&endpoint["addresses"]).iter().filter_map(Value::as_str) {
                let Ok(address) = address.parse::<IpAddr>() else { continue };
                let address = SocketAddr::new(address, number);
                if is_ready && !is_leaving {
                    found.ready.push(address);
                } else if is_serving && is_leaving {
                    found.leaving.push(address);
                }
            }
        }
    }
    found
}
