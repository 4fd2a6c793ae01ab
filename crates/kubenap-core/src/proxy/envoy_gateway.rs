//! Envoy Gateway: KubeNap as the fallback Backend of an HTTPRoute's rule, by address.

use serde_json::{Value, json};

use super::envoy::{self, listener};
use super::head::{Doubt, RequestHead, Target};
use super::objects::{labels, own_name};
use super::{App, Form, Hook, Piece, ProxyPlugin, Rendered, Unfit, Version, WakeAddress};

/// Envoy Gateway.
#[derive(Debug)]
pub(super) struct EnvoyGateway;

const FORMS: &[Form] = &[
    Form {
        name: "fallback",
        about: "an HTTPRoute with a fallback Backend (Envoy Gateway 1.5)",
        route: Some("HTTPRoute"),
    },
    Form { name: "substitution", about: "an HTTPRoute that stays as it is", route: Some("HTTPRoute") },
];

impl ProxyPlugin for EnvoyGateway {
    fn name(&self) -> &'static str {
        "envoy-gateway"
    }

    fn forms(&self) -> &'static [Form] {
        FORMS
    }

    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
        if app.form(FORMS, "fallback")? == "substitution" {
            return Ok(Rendered::substitution(&["Envoy Gateway follows EndpointSlices: nothing to apply."]));
        }
        let least = Version { major: 1, minor: 5 };
        if let Some(version) = app.version.filter(|version| *version < least) {
            return Err(Unfit::new(
                format!("Envoy Gateway {version} cannot retry on another priority, which came with {least}"),
                "leave it to substitution: `--form substitution`, or `kubenap/proxy: any`",
            ));
        }
        fallback(app, wake)
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        envoy::target(head)
    }
}

fn fallback(app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
    const GROUP: &str = "gateway.envoyproxy.io";
    let (name, namespace) = (own_name(app), &app.id.namespace);
    let mut routes = Vec::new();
    let mut targets = Vec::new();
    for route in app.routes.iter().filter(|route| route.kind() == "HTTPRoute") {
        let mut rules = route.object["spec"]["rules"].clone();
        for rule in rules.as_array_mut().into_iter().flatten() {
            let leads_here = |backend: &Value| app.services.iter().any(|own| backend["name"] == *own.name);
            let Some(backends) = rule["backendRefs"].as_array_mut() else { continue };
            if backends.iter().any(leads_here) && !backends.iter().any(|backend| backend["name"] == *name) {
                backends.push(json!({ "group": GROUP, "kind": "Backend", "name": name }));
            }
        }
        let mut spec = route.object["spec"].clone();
        spec["rules"] = rules;
        targets
            .push(json!({ "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": route.name() }));
        routes.push(Piece::Fields(json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": { "name": route.name(), "namespace": namespace },
            "spec": spec,
        })));
    }
    if routes.is_empty() {
        return Err(Unfit::new(format!("no HTTPRoute leads to {}", app.id), "name its file with -f"));
    }
    let made = |kind: &str, spec: Value| {
        Piece::Object(json!({
            "apiVersion": format!("{GROUP}/v1alpha1"),
            "kind": kind,
            "metadata": { "name": name, "namespace": namespace, "labels": labels() },
            "spec": spec,
        }))
    };
    // By address: one by name, beside a Service, makes Envoy refuse the endpoints of this route and of others.
    let endpoint = json!({ "ip": { "address": wake.ip()?, "port": wake.port } });
    let backend = made("Backend", json!({ "fallback": true, "endpoints": [endpoint] }));
    let policy = made(
        "BackendTrafficPolicy",
        json!({
            "targetRefs": targets,
            "routingType": "Service",
            "retry": { "numRetries": 2, "numAttemptsPerPriority": 1, "retryOn": { "triggers": ["connect-failure"] } },
            "timeout": { "http": { "requestTimeout": format!("{}s", app.patience()) } },
        }),
    );
    let mut pieces = vec![backend, policy];
    pieces.extend(routes);
    let notes = [
        "Envoy Gateway must run with extensionApis.enableBackend: true, or the route answers 500 now and then.",
        "A body above the connection's buffer, 32 KiB, cannot be sent a second time and gets 503: raise connection.bufferLimit in a ClientTrafficPolicy.",
    ];
    Ok(Rendered {
        form: "fallback",
        pieces,
        notes: std::iter::once(listener("envoy-gateway")).chain(notes.map(str::to_owned)).collect(),
        hook: Hook::Touches(
            "kube-proxy instead of Envoy spreads its requests over its pods, each body is kept up to 32 KiB for a second try, and the request's timeout is longer than KubeNap's longest hold",
        ),
        by_hand: Some("the rules of an HTTPRoute are one list, which only its owner can write"),
    })
}
