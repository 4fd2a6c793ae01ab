//! Traefik: the objects that lead a host to an app, in each of the four forms that it reads.

use serde_json::{Value, json};

use super::way::Site;

/// The path of the test app's gRPC service.
const GRPC: &str = "/echo.Echo";

/// An Ingress. HTTP/2 to the app is said on a Service, so gRPC has one of its own.
pub(super) fn ingress(site: &Site) -> Vec<Value> {
    let Site { app, host, .. } = site;
    let grpc = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": format!("{app}-grpc"),
            "annotations": {"traefik.ingress.kubernetes.io/service.serversscheme": "h2c"},
        },
        "spec": {"selector": {"group": app}, "ports": [{"name": "alt", "port": 8090, "targetPort": "alt"}]},
    });
    let paths = [ingress_path(GRPC, &format!("{app}-grpc"), 8090), ingress_path("/", app, 80)];
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": app},
        "spec": {"ingressClassName": "traefik", "rules": [{"host": host, "http": {"paths": paths}}]},
    });
    vec![grpc, ingress]
}

/// An `IngressRoute`.
pub(super) fn ingress_route(site: &Site) -> Vec<Value> {
    let Site { app, host, .. } = site;
    let transport = json!({
        "apiVersion": "traefik.io/v1alpha1", "kind": "ServersTransport",
        "metadata": {"name": app},
        "spec": {"forwardingTimeouts": {"responseHeaderTimeout": format!("{}s", site.timeout.as_secs())}},
    });
    let route = json!({
        "apiVersion": "traefik.io/v1alpha1", "kind": "IngressRoute",
        "metadata": {"name": app},
        "spec": {"entryPoints": ["web"], "routes": [
            {"kind": "Rule", "match": format!("Host(`{host}`) && PathPrefix(`{GRPC}`)"),
             "services": [{"name": app, "port": 8090, "scheme": "h2c"}]},
            {"kind": "Rule", "match": format!("Host(`{host}`)"),
             "services": [{"name": app, "port": 80, "serversTransport": app}]},
        ]},
    });
    vec![transport, route]
}

/// An Ingress of the class `nginx`, with that controller's annotations.
pub(super) fn nginx_annotations(site: &Site) -> Vec<Value> {
    let Site { app, host, .. } = site;
    let ingress = |name: &str, annotations: Value, path: Value| {
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": {"name": name, "annotations": annotations},
            "spec": {"ingressClassName": "nginx", "rules": [{"host": host, "http": {"paths": [path]}}]},
        })
    };
    let timeout = site.timeout.as_secs().to_string();
    vec![
        ingress(
            app,
            json!({"nginx.ingress.kubernetes.io/proxy-read-timeout": timeout}),
            ingress_path("/", app, 80),
        ),
        ingress(
            &format!("{app}-grpc"),
            json!({"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}),
            ingress_path(GRPC, app, 8090),
        ),
    ]
}

/// An `HTTPRoute`. HTTP/2 to the app is what the Service's port says (`appProtocol`).
pub(super) fn http_route(site: &Site) -> Vec<Value> {
    let Site { app, host, .. } = site;
    let rule = |path: &str, port: u16| {
        json!({
            "matches": [{"path": {"type": "PathPrefix", "value": path}}],
            "backendRefs": [{"name": app, "port": port}],
        })
    };
    vec![json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": app},
        "spec": {
            "parentRefs": [{"name": "traefik", "namespace": "traefik"}],
            "hostnames": [host],
            "rules": [rule(GRPC, 8090), rule("/", 80)],
        },
    })]
}

/// An Ingress for HTTP/1 alone.
pub(super) fn http_ingress(site: &Site) -> Vec<Value> {
    vec![http(site, "traefik")]
}

/// The same, of the class `nginx`.
pub(super) fn http_nginx_ingress(site: &Site) -> Vec<Value> {
    vec![http(site, "nginx")]
}

fn http(site: &Site, class: &str) -> Value {
    let path = ingress_path("/", &site.app, 80);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": site.app},
        "spec": {"ingressClassName": class, "rules": [{"host": site.host, "http": {"paths": [path]}}]},
    })
}

fn ingress_path(path: &str, service: &str, port: u16) -> Value {
    let backend = json!({"service": {"name": service, "port": {"number": port}}});
    json!({"path": path, "pathType": "Prefix", "backend": backend})
}
