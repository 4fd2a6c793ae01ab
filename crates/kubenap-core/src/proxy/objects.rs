//! What several proxies need alike: a Service beside the app that leads to KubeNap, and names for what is made for an app.

use serde_json::{Value, json};

use super::{App, Piece, Unfit, WakeAddress};
use crate::app::key;

/// The port of the Service beside the app.
pub(super) const PORT: u16 = 80;

/// The name of what is made for an app in its own namespace.
pub(super) fn own_name(app: &App) -> String {
    short(&format!("kubenap-{}", app.id.name))
}

/// The name of what is made for an app in a namespace that others share.
pub(super) fn shared_name(app: &App) -> String {
    short(&format!("kubenap-{}-{}", app.id.namespace, app.id.name))
}

/// The labels of what is made for an app.
pub(super) fn labels() -> Value {
    json!({ "app.kubernetes.io/managed-by": "kubenap" })
}

/// A Service of the app's own namespace that leads to KubeNap, for proxies that take no other: it has no selector but
/// KubeNap's cluster address, so that it never lacks an endpoint, not even while KubeNap's pods are replaced.
pub(super) fn service_beside(app: &App, wake: &WakeAddress) -> Result<[Piece; 2], Unfit> {
    let (name, ip) = (own_name(app), wake.ip()?);
    let mut of_slice = labels();
    of_slice[key::SERVICE_NAME] = json!(name);
    of_slice[key::MANAGED_BY] = json!(key::PROXY_MANAGER);
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": name, "namespace": app.id.namespace, "labels": labels() },
        "spec": { "ports": [{ "name": "http", "port": PORT, "targetPort": wake.port }] },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": name, "namespace": app.id.namespace, "labels": of_slice },
        "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "ports": [{ "name": "http", "port": wake.port, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [ip], "conditions": { "ready": true } }],
    });
    Ok([Piece::Object(service), Piece::Object(slice)])
}

/// Some annotations of an object that somebody else owns.
pub(super) fn annotations(api_version: &str, kind: &str, app: &App, name: &str, texts: &Value) -> Piece {
    Piece::Fields(json!({
        "apiVersion": api_version,
        "kind": kind,
        "metadata": { "name": name, "namespace": app.id.namespace, "annotations": texts },
    }))
}

/// A name that every kind of object may have: a DNS label. What is too long, or has a dot, ends in a number of its own.
fn short(name: &str) -> String {
    const LONGEST: usize = 63;
    if name.len() <= LONGEST && !name.contains('.') {
        return name.to_owned();
    }
    // FNV-1a: the same on every machine and in every version.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let head: String = name.chars().map(|sign| if sign == '.' { '-' } else { sign }).take(46).collect();
    format!("{head}-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_becomes_a_label_that_is_still_its_own() {
        assert_eq!(short("kubenap-web"), "kubenap-web");
        let (one, other) = (short(&"a".repeat(100)), short(&"a".repeat(101)));
        assert_eq!((one.len(), other.len()), (63, 63));
        assert_ne!(one, other);
        assert!(!short("kubenap-web.v1").contains('.'));
        assert_ne!(short("kubenap-web.v1"), short("kubenap-web-v1"));
    }
}
