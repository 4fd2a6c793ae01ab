//! A proxy's own error path: what `kubenap render` says of an app, and an app whose sleep its proxy sees.

use std::net::{IpAddr, SocketAddr};

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
    // The proxy's own Service is another one, see `direct`.
    let own = space.cluster_address(&site.app, 80).await?.ip().to_string();
    let text = text.replace(&own, &site.cluster_ip.to_string());
    Ok(Told { site: site.clone(), text, pieces, own, wake })
}

/// The rendered pieces as objects to apply: as they are, but for the proxy's own Service, see `direct`.
pub(super) fn objects(told: &Told) -> Vec<Value> {
    let (app, direct) = (&*told.site.app, told.site.direct());
    let aimed = |piece: &Value| {
        if let Some(fields) = piece["fields"].as_object() {
            let mut fields = Value::Object(fields.clone());
            fields["metadata"]["name"] = direct.clone().into();
            return fields;
        }
        let mut object = piece["object"].clone();
        if let Some(spec) = object.get_mut("spec") {
            aim(spec, app, &direct);
        }
        object
    };
    told.pieces.iter().map(aimed).collect()
}

/// Every reference to one Service becomes one to another.
fn aim(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::Object(map) => {
            if map.contains_key("nativeLB") && map.get("name").is_some_and(|name| name == from) {
                map.insert("name".to_owned(), to.into());
            }
            map.values_mut().for_each(|value| aim(value, from, to));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| aim(value, from, to)),
        _ => {}
    }
}

/// A second Service of an app, in which `KubeNap` puts nothing, since the app does not name it: while the app sleeps, who
/// comes by it finds nobody, as everybody does where `KubeNap` may not write EndpointSlices. An Ingress that no proxy
/// serves says that the host is the app's. Its cluster address.
pub(super) async fn direct(space: &Space, app: &str, host: &str, mut service: Value) -> Result<IpAddr> {
    let post = PostParams::default();
    let name = format!("{app}-direct");
    service = json!({"metadata": {"name": name}, "spec": service});
    let made = space.api::<Service>().create(&post, &serde_json::from_value(service)?).await;
    let address =
        made.with_context(|| format!("create Service {name}"))?.spec.and_then(|spec| spec.cluster_ip);
    let backend = json!({"service": {"name": app, "port": {"number": 80}}});
    let paths = json!([{"path": "/", "pathType": "Prefix", "backend": backend}]);
    let ingress = json!({
        "metadata": {"name": app},
        "spec": {"ingressClassName": "nobody", "rules": [{"host": host, "http": {"paths": paths}}]},
    });
    let made = space.api::<Ingress>().create(&post, &serde_json::from_value(ingress)?).await;
    made.with_context(|| format!("create Ingress {app}"))?;
    address.context("the Service has no address")?.parse().context("its cluster address")
}

/// Where a proxy of this kind asks `KubeNap`: a Service that leads to its own listener.
async fn wake(space: &Space, program: Program) -> Result<SocketAddr> {
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

fn wake_service(program: Program) -> String {
    format!("proxies-{}", program.name())
}
