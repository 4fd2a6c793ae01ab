//! Envoy: its static configuration for some sites, as a person would write it.

use anyhow::Result;
use serde_json::{Value, json};

use super::way::{Listen, Site};

const CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
const HTTP_OPTIONS: &str = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

/// Nothing of `KubeNap`'s: each host leads to its Service's cluster address.
pub(super) fn plain(listen: &Listen, sites: &[Site]) -> Result<String> {
    let manager = json!({
        "@type": CONNECTION_MANAGER,
        "stat_prefix": "web",
        "use_remote_address": true,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": sites.iter().map(virtual_host).collect::<Vec<_>>()},
        "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    });
    let filter =
        json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    let config = json!({"static_resources": {
        "listeners": [{
            "name": "web",
            "address": address(&listen.http.ip().to_string(), listen.http.port()),
            "filter_chains": [{"filters": [filter]}],
        }],
        "clusters": sites.iter().flat_map(clusters).collect::<Vec<_>>(),
    }});
    Ok(serde_json::to_string_pretty(&config)?)
}

fn virtual_host(site: &Site) -> Value {
    let Site { app, host, timeout, .. } = site;
    let timeout = format!("{}s", timeout.as_secs());
    json!({
        "name": app,
        "domains": [host, format!("{host}:*")],
        "routes": [
            {"match": {"prefix": "/echo.Echo/"}, "route": {"cluster": format!("{app}-grpc"), "timeout": "75s"}},
            {"match": {"prefix": "/"}, "route": {"cluster": app, "timeout": timeout}},
        ],
    })
}

fn clusters(site: &Site) -> [Value; 2] {
    let cluster_ip = site.cluster_ip.to_string();
    let cluster = |name: &str, port: u16| {
        let endpoint = json!({"endpoint": {"address": address(&cluster_ip, port)}});
        json!({
            "name": name,
            "type": "STATIC",
            "connect_timeout": "2s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        })
    };
    let mut grpc = cluster(&format!("{}-grpc", site.app), 8090);
    grpc["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"] =
        json!({"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}});
    [cluster(&site.app, 80), grpc]
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}
