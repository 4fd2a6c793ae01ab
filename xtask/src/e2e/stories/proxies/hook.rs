//! A proxy's own error path: what `kubenap render` says of an app, and where the proxy asks `KubeNap`.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::way::{Program, Site, Told};
use crate::e2e::members::{HOME, RELEASE};
use crate::e2e::world::Space;

/// Asks `kubenap render` what this proxy must be told of this app, from the cluster.
pub(super) async fn ask(
    space: &Space,
    program: Program,
    proxy: &str,
    form: &str,
    site: &Site,
) -> Result<Told> {
    let wake = wake(space, program).await?;
    let id = space.id(&site.app);
    let service = format!("{HOME}/{}:80", wake_service(program));
    let line = ["render", &id, "--proxy", proxy, "--form", form, "-o", "json", "--wake-service", &service];
    let ran = space.world.kubenap(&line, std::time::Duration::from_secs(30)).await?;
    ensure!(ran.code == 0, "kubenap {}: exit {}: {}", line.join(" "), ran.code, ran.stderr.trim());
    let said: Value = serde_json::from_str(&ran.stdout).context("read what kubenap render printed")?;
    let pieces = said["pieces"].as_array().context("kubenap render printed no pieces")?;
    let text: String = pieces.iter().filter_map(|piece| piece["text"].as_str()).collect();
    let pieces = pieces.iter().filter(|piece| piece["text"].is_null()).cloned().collect();
    Ok(Told { site: site.clone(), text, pieces, wake })
}

/// The rendered pieces as objects to apply.
pub(super) fn objects(told: &Told) -> Vec<Value> {
    let object = |piece: &Value| piece.get("fields").or(piece.get("object")).cloned();
    told.pieces.iter().filter_map(object).collect()
}

/// An Ingress that no proxy serves says that the host is the app's, for a proxy whose own configuration `KubeNap` cannot
/// read.
pub(super) async fn register(space: &Space, app: &str, host: &str) -> Result<()> {
    let backend = json!({"service": {"name": app, "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let ingress = json!({
        "metadata": {"name": app},
        "spec": {"ingressClassName": "nobody", "rules": [{"host": host, "http": {"paths": paths}}]},
    });
    let made = space.api::<Ingress>().create(&PostParams::default(), &serde_json::from_value(ingress)?).await;
    made.map(drop).with_context(|| format!("create Ingress {app}"))
}

/// Where a proxy of this kind asks `KubeNap`: a Service that leads to its own listener.
pub(super) async fn wake(space: &Space, program: Program) -> Result<SocketAddr> {
    let name = wake_service(program);
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "selector": {"app.kubernetes.io/name": "kubenap", "app.kubernetes.io/instance": RELEASE},
            "ports": [{"name": "http", "port": 80, "targetPort": program.listener().1}],
        },
    });
    let services = Api::<Service>::namespaced(space.world.client.clone(), HOME);
    let params = PatchParams::apply("proxies").force();
    let made = services.patch(&name, &params, &Patch::Apply(service)).await;
    let spec = made.with_context(|| format!("apply Service {name}"))?.spec;
    let address = spec.and_then(|spec| spec.cluster_ip).context("KubeNap's Service has no address")?;
    Ok(SocketAddr::new(address.parse().context("KubeNap's address")?, 80))
}

pub(super) fn wake_service(program: Program) -> String {
    format!("proxies-{}", program.name())
}
