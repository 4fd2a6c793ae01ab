//! Istio: an EnvoyFilter on the ingress gateway, with the same script as for plain Envoy.

use serde_json::{Value, json};

use super::envoy::{self, MARK, listener, marks, script};
use super::head::{Doubt, RequestHead, Target};
use super::objects::labels;
use super::{App, Form, Hook, Piece, ProxyPlugin, Rendered, Unfit, WakeAddress};

/// Istio.
#[derive(Debug)]
pub(super) struct Istio;

const FORMS: &[Form] = &[Form {
    name: "envoyfilter",
    about: "an EnvoyFilter on the ingress gateway, for all apps behind it",
    route: Some("VirtualService"),
}];

impl ProxyPlugin for Istio {
    fn name(&self) -> &'static str {
        "istio"
    }

    fn forms(&self) -> &'static [Form] {
        FORMS
    }

    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
        let form = app.form(FORMS, "envoyfilter")?;
        app.service()?;
        let notes = [
            "One filter serves all apps behind the gateway: apply it once. Give its workloadSelector your gateway's labels, and its namespace.",
            "PeerAuthentication: KubeNap's pods need no sidecar. Where they have one, mTLS must be PERMISSIVE on the port of --proxy-listen for callers without; where they have none, no DestinationRule may ask for ISTIO_MUTUAL to KubeNap's host.",
            "AuthorizationPolicy: where the mesh denies by default, KubeNap's pods must allow the gateway's identity, such as principal cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account, on that port. A policy for the app's own pods does not hold for what KubeNap answers.",
            "With PILOT_FILTER_GATEWAY_CLUSTER_CONFIG the gateway knows only what a VirtualService names: name KubeNap's Service in one.",
        ];
        Ok(Rendered {
            form,
            pieces: vec![Piece::Object(filter(app, wake))],
            notes: std::iter::once(listener("istio")).chain(notes.map(str::to_owned)).collect(),
            hook: Hook::Touches(
                "a line of Lua looks for a header in each response of the gateway, and changes nothing of an app's",
            ),
            by_hand: Some("one EnvoyFilter of the gateway serves all apps"),
        })
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        envoy::target(head)
    }
}

fn filter(app: &App, wake: &WakeAddress) -> Value {
    const MANAGER: &str = "envoy.filters.network.http_connection_manager";
    let cluster = format!("outbound|{}||{}.cluster.local", wake.port, wake.host());
    let add = |(key, value): (String, String)| json!({ "header": { "key": key, "value": value }, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" });
    let mapper = json!({
        "filter": { "response_flag_filter": { "flags": ["UH", "UF"] } },
        "headers_to_add": marks().into_iter().map(add).collect::<Vec<_>>(),
    });
    json!({
        "apiVersion": "networking.istio.io/v1alpha3",
        "kind": "EnvoyFilter",
        "metadata": { "name": "kubenap", "namespace": "istio-system", "labels": labels() },
        "spec": {
            "workloadSelector": { "labels": { "istio": "ingressgateway" } },
            "configPatches": [
                {
                    "applyTo": "NETWORK_FILTER",
                    "match": { "context": "GATEWAY", "listener": { "filterChain": { "filter": { "name": MANAGER } } } },
                    "patch": { "operation": "MERGE", "value": { "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                        "local_reply_config": { "mappers": [mapper] },
                    } } },
                },
                {
                    "applyTo": "ROUTE_CONFIGURATION",
                    "match": { "context": "GATEWAY" },
                    "patch": { "operation": "MERGE", "value": { "response_headers_to_remove": [MARK] } },
                },
                {
                    "applyTo": "HTTP_FILTER",
                    "match": { "context": "GATEWAY", "listener": { "filterChain": { "filter": {
                        "name": MANAGER, "subFilter": { "name": "envoy.filters.http.router" },
                    } } } },
                    "patch": { "operation": "INSERT_BEFORE", "value": {
                        "name": "kubenap.lua",
                        "typed_config": {
                            "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
                            "default_source_code": { "inline_string": script(&cluster, app.patience()) },
                        },
                    } },
                },
            ],
        },
    })
}
