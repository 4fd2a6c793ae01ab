//! Services, `EndpointSlices` and Ingresses.
use super::{is_dns_label, is_qualified_name, is_subdomain};
use crate::api::errors::Cause;
use crate::store::object;
use serde_json::Value;
use std::net::{Ipv4Addr, Ipv6Addr};

const PORT: &str = "must be between 1 and 65535, inclusive";

pub(super) fn service(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let ports = object::list(&spec["ports"]);
    let is_headless = spec["clusterIP"] == "None";
    let kind = spec["type"].as_str().unwrap_or("");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer" | "ExternalName") {
        let known = "\"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"";
        causes.push(Cause::unsupported("spec.type", &spec["type"], known));
    }
    if kind == "ExternalName" && spec["externalName"].as_str().unwrap_or("").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    if ports.is_empty() && !is_headless && kind != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    let mut names: Vec<&Value> = Vec::new();
    for (place, port) in ports.iter().enumerate() {
        let field = format!("spec.ports[{place}]");
        if port["name"].as_str().unwrap_or("").is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(format!("{field}.name"), ""));
            }
        } else if names.contains(&&port["name"]) {
            causes.push(Cause::duplicate(format!("{field}.name"), port["name"].clone()));
        }
        names.push(&port["name"]);
        if !is_port(&port["port"]) {
            causes.push(Cause::invalid(format!("{field}.port"), port["port"].clone(), PORT));
        }
        protocol(&port["protocol"], format!("{field}.protocol"), causes);
    }
    for (key, value) in object::strings(&spec["selector"]) {
        super::labels("spec.selector", key, value, causes);
    }
    let clashes = |old: &Value| {
        let before = old["spec"]["clusterIP"].as_str().unwrap_or("");
        old["spec"]["type"] != "ExternalName" && kind != "ExternalName" && spec["clusterIP"] != before
    };
    if old.is_some_and(clashes) {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            spec["clusterIP"].clone(),
            "may not change once set",
        ));
    }
}

pub(super) fn slice(new: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let family = new["addressType"].as_str().unwrap_or("");
    if family.is_empty() {
        causes.push(Cause::required("addressType", ""));
    } else if !matches!(family, "IPv4" | "IPv6" | "FQDN") {
        causes.push(Cause::unsupported("addressType", &new["addressType"], "\"FQDN\", \"IPv4\", \"IPv6\""));
    }
    if old.is_some_and(|old| old["addressType"] != new["addressType"]) {
        causes.push(Cause::invalid("addressType", new["addressType"].clone(), "field is immutable"));
    }
    let endpoints = object::list(&new["endpoints"]);
    if endpoints.len() > 1000 {
        causes.push(Cause::too_many("endpoints", 1000));
    }
    for (place, endpoint) in endpoints.iter().enumerate() {
        let addresses = object::list(&endpoint["addresses"]);
        let field = format!("endpoints[{place}].addresses");
        if addresses.is_empty() {
            causes.push(Cause::required(field.clone(), "must contain at least 1 address"));
        } else if addresses.len() > 100 {
            causes.push(Cause::too_many(field.clone(), 100));
        }
        for (place, address) in addresses.iter().enumerate() {
            if !is_address(family, address.as_str().unwrap_or("")) {
                let why = "must be a valid address of the slice's addressType";
                causes.push(Cause::invalid(format!("{field}[{place}]"), address.clone(), why));
            }
        }
    }
    let mut names: Vec<&Value> = Vec::new();
    for (place, port) in object::list(&new["ports"]).iter().enumerate() {
        let field = format!("ports[{place}]");
        let name = port["name"].as_str().unwrap_or("");
        if !name.is_empty() && !is_dns_label(name) {
            causes.push(Cause::invalid(format!("{field}.name"), name, super::DNS_LABEL));
        }
        if names.contains(&&port["name"]) {
            causes.push(Cause::duplicate(format!("{field}.name"), name));
        }
        names.push(&port["name"]);
        protocol(&port["protocol"], format!("{field}.protocol"), causes);
        if let Some(number) = port.get("port").filter(|number| !is_port(number)) {
            causes.push(Cause::invalid(format!("{field}.port"), number.clone(), PORT));
        }
        if let Some(protocol) = port["appProtocol"].as_str().filter(|protocol| !is_qualified_name(protocol)) {
            causes.push(Cause::invalid(format!("{field}.appProtocol"), protocol, super::QUALIFIED));
        }
    }
}

pub(super) fn ingress(new: &Value, causes: &mut Vec<Cause>) {
    let spec = &new["spec"];
    let rules = object::list(&spec["rules"]);
    if rules.is_empty() && !spec["defaultBackend"].is_object() {
        let why = "either `defaultBackend` or `rules` must be specified";
        causes.push(Cause::invalid("spec", spec.clone(), why));
    }
    if spec["defaultBackend"].is_object() {
        backend(&spec["defaultBackend"], "spec.defaultBackend", causes);
    }
    for (place, rule) in rules.iter().enumerate() {
        let field = format!("spec.rules[{place}]");
        let host = rule["host"].as_str().unwrap_or("");
        if !host.is_empty() && !is_subdomain(host.strip_prefix("*.").unwrap_or(host)) {
            causes.push(Cause::invalid(format!("{field}.host"), host, super::SUBDOMAIN));
        }
        if !rule["http"].is_object() {
            continue;
        }
        let paths = object::list(&rule["http"]["paths"]);
        if paths.is_empty() {
            causes.push(Cause::required(format!("{field}.http.paths"), ""));
        }
        for (place, path) in paths.iter().enumerate() {
            let field = format!("{field}.http.paths[{place}]");
            let text = path["path"].as_str().unwrap_or("");
            match path["pathType"].as_str() {
                Some("Prefix" | "Exact") if !text.starts_with('/') => {
                    causes.push(Cause::invalid(format!("{field}.path"), text, "must be an absolute path"));
                }
                Some("Prefix" | "Exact" | "ImplementationSpecific") => {}
                Some("") | None => {
                    causes.push(Cause::required(format!("{field}.pathType"), "pathType must be specified"));
                }
                Some(_) => {
                    let known = "\"Exact\", \"ImplementationSpecific\", \"Prefix\"";
                    causes.push(Cause::unsupported(format!("{field}.pathType"), &path["pathType"], known));
                }
            }
            backend(&path["backend"], &format!("{field}.backend"), causes);
        }
    }
}

fn backend(backend: &Value, field: &str, causes: &mut Vec<Cause>) {
    if backend["resource"].is_object() {
        return;
    }
    let service = &backend["service"];
    if service["name"].as_str().unwrap_or("").is_empty() {
        causes.push(Cause::required(format!("{field}.service.name"), ""));
    }
    let port = &service["port"];
    if port["name"].as_str().unwrap_or("").is_empty() && !is_port(&port["number"]) {
        causes.push(Cause::required(format!("{field}.service.port"), "port name or number is required"));
    }
}

fn is_port(number: &Value) -> bool {
    number.as_i64().is_some_and(|number| (1..=65535).contains(&number))
}

fn protocol(protocol: &Value, field: String, causes: &mut Vec<Cause>) {
    if !matches!(protocol.as_str(), Some("TCP" | "UDP" | "SCTP")) {
        causes.push(Cause::unsupported(field, protocol, "\"SCTP\", \"TCP\", \"UDP\""));
    }
}

fn is_address(family: &str, address: &str) -> bool {
    match family {
        "IPv4" => address
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| !address.is_unspecified() && !address.is_link_local()),
        "IPv6" => address.parse::<Ipv6Addr>().is_ok_and(|address| !address.is_unspecified()),
        "FQDN" => is_subdomain(address),
        _ => true,
    }
}
