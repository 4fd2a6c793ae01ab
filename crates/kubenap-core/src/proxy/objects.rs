//! What several proxies need alike: a Service beside the app that leads to KubeNap, and names for what is made for an app.

use serde_json::{Value, json};

use super::{App, Piece, Unfit, WakeAddress};
use crate::app::key;
use crate::seen::MADE;

/// The port of the Service beside the app.
pub(super) const PORT: u16 = 80;

/// The name of what is made for an app in its own namespace.
pub(super) fn own_name(app: &App) -> String {
    named(&app.id.name, app)
}

/// The name of what is made for an app in a namespace that others share.
pub(super) fn shared_name(app: &App) -> String {
    named(&format!("{}-{}", app.id.namespace, app.id.name), app)
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

/// A name that every kind of object may have, a DNS label, and that no other app's has: `a-b/c` and `a/b-c` are not told
/// apart by what people read of it.
fn named(words: &str, app: &App) -> String {
    const LONGEST: usize = 63;
    let end = app.id.digest();
    let plain = words.chars().map(|sign| if sign == '.' { '-' } else { sign });
    let head: String = MADE.chars().chain(plain).take(LONGEST - end.len() - 1).collect();
    format!("{head}-{end}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::app::AppId;

    fn app(namespace: &str, name: &str) -> App {
        App {
            id: AppId::new(namespace, name),
            services: Vec::new(),
            routes: Vec::new(),
            wake_timeout: Duration::ZERO,
            form: None,
            version: None,
        }
    }

    #[test]
    fn no_two_apps_have_the_same_name_for_what_is_made_for_them() {
        let (long, longer) = ("a".repeat(100), "a".repeat(101));
        let ids = [("a-b", "c"), ("a", "b-c"), ("a", "b.c"), ("a", &*long), ("a", &*longer), ("b", &*long)];
        let apps = ids.map(|(namespace, name)| app(namespace, name));
        let mut names: Vec<_> = apps.iter().flat_map(|app| [own_name(app), shared_name(app)]).collect();
        for name in &names {
            assert!(name.starts_with("kubenap-") && name.len() <= 63 && !name.contains('.'), "{name}");
        }
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 2 * ids.len(), "{names:?}");
    }
}
