//! Envoy Gateway: an `HTTPRoute` that leads a host to an app.

use serde_json::{Value, json};

use super::way::Site;

/// With gRPC. HTTP/2 to the app is what the Service's port says (`appProtocol`).
pub(super) fn http_route(site: &Site) -> Vec<Value> {
    vec![route(site, &[("/echo.Echo", 8090), ("/", 80)])]
}

/// For HTTP/1 alone.
pub(super) fn http1_route(site: &Site) -> Vec<Value> {
    vec![route(site, &[("/", 80)])]
}

fn route(site: &Site, paths: &[(&str, u16)]) -> Value {
    let Site { app, host, timeout, .. } = site;
    let rule = |(path, port): &(&str, u16)| {
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": app, "port": port}],
            "timeouts": {"request": format!("{}s", timeout.as_secs())},
        })
    };
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": app},
        "spec": {
            "parentRefs": [{"name": "envoy", "namespace": "envoy-gateway-system"}],
            "hostnames": [host],
            "rules": paths.iter().map(rule).collect::<Vec<_>>(),
        },
    })
}
