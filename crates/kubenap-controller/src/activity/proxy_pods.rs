//! Finds the pods of known proxies, and where each of them shows its metrics.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};

use super::ingress::Instance;
use super::preset::Preset;
use super::{Endpoint, SourceError};

/// Which labels tell of which proxy, one list for each row.
const LABELS: [(&str, &[(&str, Preset)]); 3] = [
    (
        "app.kubernetes.io/name",
        &[
            ("traefik", Preset::Traefik),
            ("ingress-nginx", Preset::IngressNginx),
            ("nginx-ingress", Preset::F5Nginx),
            ("envoy", Preset::Envoy),
            ("kubernetes-ingress", Preset::HaProxy),
            ("kong", Preset::Kong),
        ],
    ),
    ("app", &[("traefik", Preset::Traefik), ("envoy", Preset::Envoy)]),
    ("istio", &[("ingressgateway", Preset::Istio)]),
];

/// Of Envoy only clusters that were used, and their requests: all that it has takes it seconds and 270 MB.
const ENVOY_FILTER: &str =
    "usedonly&filter=%28upstream_rq_%28total%7Cactive%29%7Cserver%5C.%28live%7Cuptime%29%29%24";

/// Of Istio's gateway the same, and what its own filter counts: with a wide `proxyStatsMatcher` all that it has is as much.
/// Istio's agent, whose port merges this with what it has itself, passes it on, or in older releases shows everything.
const ISTIO_FILTER: &str = "usedonly&filter=istio_%28requests_total%7Cbuild%29%7C%28upstream_rq_%28total%7Cactive%29%7Cserver%5C.%28live%7Cuptime%29%29%24";

/// For each list; kube's own client has none.
const DEADLINE: Duration = Duration::from_secs(10);

const PAGE: u32 = 500;

/// Every pod of a known proxy that runs: those that are ready must answer, those that are ending may.
pub(super) async fn proxy_pods(client: &Client) -> Result<Vec<Instance>, SourceError> {
    let mut instances: Vec<Instance> = Vec::new();
    let pods: Api<Pod> = Api::all(client.clone());
    for (label, values) in LABELS {
        let names: Vec<_> = values.iter().map(|(value, _)| *value).collect();
        for pod in list(&pods, &format!("{label} in ({})", names.join(","))).await? {
            let own = pod.labels().get(label).map(String::as_str);
            let preset = values.iter().find(|(value, _)| own == Some(*value)).map(|(_, preset)| *preset);
            let Some(instance) = preset.and_then(|preset| instance(&pod, preset)) else { continue };
            if instances.iter().all(|known| known.name != instance.name) {
                instances.push(instance);
            }
        }
    }
    Ok(instances)
}

/// Every pod with these labels, in pages.
pub(super) async fn list(pods: &Api<Pod>, labels: &str) -> Result<Vec<Pod>, SourceError> {
    let mut found = Vec::new();
    let mut params = ListParams::default().labels(labels).limit(PAGE);
    loop {
        let page = tokio::time::timeout(DEADLINE, pods.list(&params))
            .await
            .map_err(|_| SourceError::Pods { cause: format!("no answer within {}s", DEADLINE.as_secs()) })?
            .map_err(|error| SourceError::Pods { cause: error.to_string() })?;
        found.extend(page.items);
        match page.metadata.continue_ {
            Some(next) if !next.is_empty() => params = params.continue_token(&next),
            _ => return Ok(found),
        }
    }
}

fn instance(pod: &Pod, preset: Preset) -> Option<Instance> {
    let status = pod.status.as_ref()?;
    let address = status.pod_ip.as_deref().filter(|address| !address.is_empty())?;
    let ends = pod.metadata.deletion_timestamp.is_some();
    let ready = status
        .conditions
        .iter()
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let over = matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"));
    if over || !(ready || ends) {
        return None;
    }
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let annotation = |name: &str| pod.annotations().get(name).map(String::as_str);
    let scheme = if annotation("prometheus.io/scheme") == Some("https") { "https" } else { "http" };
    let path =
        annotation("prometheus.io/path").filter(|path| path.starts_with('/')).unwrap_or(usual_path(preset));
    let port = annotation("prometheus.io/port").and_then(|port| port.parse().ok());
    let port: u16 = port.or_else(|| named_port(pod)).unwrap_or_else(|| usual_port(pod, preset));
    let query = match preset {
        // Whoever names a path with a query has said what is shown.
        _ if path.contains('?') => String::new(),
        Preset::Envoy => format!("?{ENVOY_FILTER}"),
        Preset::Istio => format!("?{ISTIO_FILTER}"),
        _ => String::new(),
    };
    // The uid, because a StatefulSet's next pod has the same name.
    let name = format!(
        "{}/{} {}",
        pod.namespace().unwrap_or_default(),
        pod.name_any(),
        pod.uid().unwrap_or_default()
    );
    Some(Instance {
        name: Arc::from(name),
        endpoint: Endpoint::parse(&format!("{scheme}://{host}:{port}{path}{query}")).ok()?,
        preset: Some(preset),
        must_answer: ready && !ends,
    })
}

fn ports(pod: &Pod) -> impl Iterator<Item = (Option<&str>, u16)> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| Some((port.name.as_deref(), u16::try_from(port.container_port).ok()?)))
}

fn named_port(pod: &Pod) -> Option<u16> {
    ["metrics", "traefik"]
        .into_iter()
        .find_map(|name| ports(pod).find(|(named, _)| *named == Some(name)).map(|(_, number)| number))
}

/// Where the charts put it.
fn usual_port(pod: &Pod, preset: Preset) -> u16 {
    let has = |port: u16| ports(pod).any(|(_, number)| number == port);
    match preset {
        Preset::IngressNginx => 10254,
        Preset::F5Nginx => 9113,
        Preset::Kong => 8100,
        Preset::HaProxy => 1024,
        Preset::Istio => 15090,
        // Contour's Envoy has it at 8002, Envoy Gateway's at 19001.
        Preset::Envoy if has(8002) => 8002,
        Preset::Envoy => 19001,
        _ if has(8080) => 8080,
        _ => 9100,
    }
}

fn usual_path(preset: Preset) -> &'static str {
    match preset {
        Preset::Envoy | Preset::Istio => "/stats/prometheus",
        _ => "/metrics",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which metrics of it are asked for.
    fn filter(preset: Preset, annotations: &serde_json::Value) -> Option<String> {
        let pod = serde_json::json!({
            "metadata": {"namespace": "istio-system", "name": "gateway", "annotations": annotations},
            "status": {
                "podIP": "10.0.0.7", "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            },
        });
        let pod: Pod = serde_json::from_value(pod).unwrap();
        instance(&pod, preset).unwrap().endpoint.take("filter")
    }

    #[test]
    fn a_mesh_s_gateway_is_not_asked_for_all_that_its_envoy_has() {
        let nothing = serde_json::json!({});
        let agent =
            serde_json::json!({"prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus"});
        for annotations in [&nothing, &agent] {
            assert_eq!(
                filter(Preset::Istio, annotations).as_deref(),
                Some(r"istio_(requests_total|build)|(upstream_rq_(total|active)|server\.(live|uptime))$")
            );
        }
        assert!(filter(Preset::Envoy, &nothing).is_some());
        let named = serde_json::json!({"prometheus.io/path": "/stats/prometheus?usedonly"});
        assert_eq!(filter(Preset::Istio, &named), None);
        assert_eq!(filter(Preset::Traefik, &nothing), None);
    }
}
