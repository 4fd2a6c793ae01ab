//! Envoy: its static configuration for some sites, as a person would write it.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::way::{Listen, Site, Told};

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
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
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

/// The rendered text as it is, but for the port.
#[expect(clippy::unnecessary_wraps, reason = "one kind of function for every way in")]
pub(super) fn rendered(listen: &Listen, told: &Told) -> Result<String> {
    let bound = format!("address: {}, port_value: {}", listen.http.ip(), listen.http.port());
    Ok(told.text.replace("address: 0.0.0.0, port_value: 80 ", &format!("{bound} ")))
}

/// A plain Envoy with what the rendered `EnvoyFilter` puts into Istio's ingress gateway, and with the names that Istio
/// gives to clusters.
pub(super) fn envoy_filter(listen: &Listen, told: &Told) -> Result<String> {
    let patches = told.pieces.iter().find_map(|piece| piece["object"]["spec"]["configPatches"].as_array());
    let patches = patches.context("kubenap render gives no EnvoyFilter")?;
    let of = |kind: &str| {
        let found =
            patches.iter().find(|patch| patch["applyTo"] == kind).map(|patch| &patch["patch"]["value"]);
        found.with_context(|| format!("the EnvoyFilter has no patch for {kind}"))
    };
    let (manager, filter, routes) = (of("NETWORK_FILTER")?, of("HTTP_FILTER")?, of("ROUTE_CONFIGURATION")?);
    let mut config: Value = serde_json::from_str(&plain(listen, std::slice::from_ref(&told.site))?)?;
    let resources = &mut config["static_resources"];
    let own = &mut resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
    own["local_reply_config"] = manager["typed_config"]["local_reply_config"].clone();
    own["route_config"]["response_headers_to_remove"] = routes["response_headers_to_remove"].clone();
    own["http_filters"].as_array_mut().context("no filters")?.insert(0, filter.clone());
    let script =
        filter["typed_config"]["default_source_code"]["inline_string"].as_str().context("no script")?;
    let name = script
        .split('"')
        .find(|word| word.starts_with("outbound|"))
        .context("the script names no cluster")?;
    let (ip, port) = (told.wake.ip().to_string(), told.wake.port());
    resources["clusters"].as_array_mut().context("no clusters")?.push(cluster(name, &ip, port));
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
    let ip = site.cluster_ip.to_string();
    let mut grpc = cluster(&format!("{}-grpc", site.app), &ip, 8090);
    grpc["typed_extension_protocol_options"]["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"] =
        json!({"@type": HTTP_OPTIONS, "explicit_http_config": {"http2_protocol_options": {}}});
    [cluster(&site.app, &ip, 80), grpc]
}

fn cluster(name: &str, ip: &str, port: u16) -> Value {
    let endpoint = json!({"endpoint": {"address": address(ip, port)}});
    json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    })
}

fn address(ip: &str, port: u16) -> Value {
    json!({"socket_address": {"address": ip, "port_value": port}})
}
