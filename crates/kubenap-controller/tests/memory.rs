//! What an app costs in memory, counted by the allocator: the stores' slim forms, and what decoding them takes meanwhile.
#![expect(clippy::unwrap_used, reason = "a page that cannot be read has failed")]

use std::sync::Arc;

use kube::api::ObjectList;
use kubenap_controller::cluster::slices::SlimSlice;
use kubenap_controller::cluster::slim::{Slim, SlimDeployment, SlimIngress, SlimPod, SlimService};
use kubenap_controller::cluster::space::Space;
use kubenap_controller::cluster::thin::Thin;
use peak_alloc::PeakAlloc;
use serde_json::{Map, Value, json};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// What a watch asks for at a time.
const PAGE: usize = 100;
const PAGES: usize = 20;

/// One test, for the allocator counts what the whole process does.
#[test]
fn an_app_costs_little_to_keep_and_a_page_little_more_than_what_is_kept_of_it() {
    let kinds = [
        ("Deployment", cost::<SlimDeployment>(&deployment)),
        ("Pod", cost::<SlimPod>(&pod)),
        ("Service", cost::<SlimService>(&service)),
        ("EndpointSlice", cost::<SlimSlice>(&slice)),
        ("Ingress", cost::<SlimIngress>(&ingress)),
    ];
    for (kind, Cost { kept, meanwhile }) in &kinds {
        println!("{kind}: {kept} bytes kept of each; {meanwhile} more while a page of {PAGE} is decoded");
    }
    let kept: usize = kinds.iter().map(|(_, cost)| cost.kept).sum();
    assert!(kept <= KEPT, "{kept} bytes are kept of an app, more than {KEPT}");
    for (kind, cost) in kinds {
        assert!(cost.meanwhile <= MEANWHILE, "a page of {kind}s takes {} bytes to decode", cost.meanwhile);
    }
}

/// In bytes, of all objects of one app.
const KEPT: usize = 2_400;
/// In bytes, beside the page's text.
const MEANWHILE: usize = 160_000;

/// In bytes.
struct Cost {
    /// Of one object.
    kept: usize,
    /// The most that a page took beside its text.
    meanwhile: usize,
}

fn cost<T: Slim>(object: &dyn Fn(usize) -> Value) -> Cost {
    let pages: Vec<String> = (0..PAGES)
        .map(|page| {
            let items: Vec<_> = (page * PAGE..(page + 1) * PAGE).map(object).collect();
            json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items})
                .to_string()
        })
        .collect();
    let before = ALLOCATOR.current_usage();
    let mut space: Space<T> = Space::default();
    let mut meanwhile = 0;
    for page in &pages {
        let before = ALLOCATOR.current_usage();
        ALLOCATOR.reset_peak_usage();
        let list: ObjectList<Thin<T>> = serde_json::from_str(page).unwrap();
        meanwhile = meanwhile.max(ALLOCATOR.peak_usage() - before);
        for ((_, name), slim) in list.items.into_iter().map(Thin::into_parts) {
            space.insert(&name, slim);
        }
    }
    assert_eq!(space.len(), PAGE * PAGES);
    let space = Arc::new(space);
    Cost { kept: (ALLOCATOR.current_usage() - before) / space.len(), meanwhile }
}

fn meta(kind: &str, nth: usize, labels: &Value) -> Value {
    // As the API server keeps them: a map for every field that somebody has set.
    let fields: Map<String, Value> = (0..40)
        .map(|field| (format!("f:field{field}"), json!({".": {}, "f:name": {}, "f:value": {"f:deep": {}}})))
        .collect();
    json!({
        "namespace": "shop", "name": format!("app-{nth:05}-{kind}"), "resourceVersion": format!("{}", 100_000 + nth),
        "uid": format!("00000000-0000-4000-8000-{nth:012}"), "creationTimestamp": "2026-11-22T10:00:00Z", "labels": labels,
        "managedFields": [{"manager": "somebody", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": fields}}],
    })
}

fn template(nth: usize) -> Value {
    let variables: Vec<_> =
        (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": format!("{n} of {nth}")})).collect();
    json!({
        "metadata": {"labels": {"app.kubernetes.io/name": format!("app-{nth:05}")}},
        "spec": {"nodeName": "node", "containers": [{
            "name": "app", "image": "registry.example/team/app:1.2.3", "env": variables,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
            "ports": [{"name": "http", "containerPort": 8080}],
            "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        }]},
    })
}

fn deployment(nth: usize) -> Value {
    let name = format!("app-{nth:05}");
    json!({
        "metadata": meta("deployment", nth, &json!({"kubenap/enabled": "true", "app.kubernetes.io/name": name})),
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app.kubernetes.io/name": name}}, "template": template(nth)},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
    })
}

fn pod(nth: usize) -> Value {
    let labels =
        json!({"app.kubernetes.io/name": format!("app-{nth:05}"), "pod-template-hash": "5d8f7c9b6d"});
    json!({
        "metadata": meta("pod", nth, &labels), "spec": template(nth)["spec"],
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn service(nth: usize) -> Value {
    json!({
        "metadata": meta("service", nth, &json!({})),
        "spec": {"selector": {"app.kubernetes.io/name": format!("app-{nth:05}")}, "clusterIP": "10.96.0.1",
            "clusterIPs": ["10.96.0.1"], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    })
}

fn slice(nth: usize) -> Value {
    json!({
        "metadata": meta("slice", nth, &json!({"kubernetes.io/service-name": format!("app-{nth:05}")})),
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "uid": format!("00000000-0000-4000-8000-{nth:012}")}}],
    })
}

fn ingress(nth: usize) -> Value {
    let backend = json!({"service": {"name": format!("app-{nth:05}"), "port": {"name": "http"}}});
    json!({
        "metadata": meta("ingress", nth, &json!({})),
        "spec": {"ingressClassName": "nobody", "rules": [{"host": format!("app-{nth:05}.example"),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]},
    })
}
