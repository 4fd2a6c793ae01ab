//! What several proxies need alike: a Service beside the app that leads to KubeNap, and names for what is made for an app.

use serde_json::{Value, json};

use super::{App, Piece, Unfit, WakeAddress};
use crate::app::{digest, key};
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

/// Why the controller must not annotate an Ingress of the app, where it leads to other Services too, and what somebody should
/// know of that.
pub(super) fn shared(app: &App) -> Option<(&'static str, String)> {
    let ingress = app.routes.iter().find(|route| route.kind() == "Ingress" && app.shares(route))?;
    let note = format!(
        "The Ingress {} leads to other Services too, and its annotations hold for all of them: give the app an Ingress of its own, or a failure of theirs is taken for its sleep.",
        ingress.name()
    );
    Some(("the Ingress leads to other Services too", note))
}

/// The name of what stands for another object of this app's: both names, the other one cut where the whole is longer than
/// any object's name.
pub(super) fn beside(app: &App, other: &str) -> String {
    const LONGEST: usize = 253;
    let (own, end) = (own_name(app), digest(other));
    if own.len() + 1 + other.len() <= LONGEST {
        return format!("{own}-{other}");
    }
    let head: String = other.chars().take(LONGEST - own.len() - end.len() - 2).collect();
    format!("{own}-{}-{end}", head.trim_end_matches(['.', '-']))
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
    fn the_name_of_another_object_is_kept_whole_or_cut_to_one_that_no_other_has() {
        let app = app("shop", "web");
        assert_eq!(beside(&app, "web.example"), format!("{}-web.example", own_name(&app)));
        let long = |end: char| format!("{}{end}", "a.b-".repeat(63));
        let (one, other) = (beside(&app, &long('x')), beside(&app, &long('y')));
        assert_ne!(one, other);
        for name in [one, other] {
            assert!(name.len() <= 253 && name.split('.').all(|part| !part.ends_with('-')), "{name}");
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
