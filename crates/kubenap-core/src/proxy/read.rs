//! An app with its way in, out of the objects around it: from a cluster, or from files alone.

use serde_json::Value;

use super::routes::{self, Rule, backends, rules};
use super::{App, AppService, Proxy, Route, Unfit};
use crate::app::AppId;
use crate::policy::{self, Complaint, Defaults, Policy, Texts};

/// What objects say of an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// The app.
    pub app: App,
    /// The proxy that its Deployment names.
    pub proxy: Proxy,
    /// What is wrong with its label and annotations.
    pub complaints: Vec<Complaint>,
}

/// Finds an app among `objects`: its Deployment, its Services, the routes that lead to these and the classes that say
/// who serves them. What lies in another namespace is none of its own; what names no namespace is.
pub fn read(id: &AppId, objects: &[Value]) -> Result<Found, Unfit> {
    let here = |object: &&Value| {
        object["metadata"]["namespace"].as_str().is_none_or(|namespace| namespace == id.namespace)
    };
    let of_kind =
        |kind: &'static str| objects.iter().filter(here).filter(move |object| object["kind"] == kind);
    let deployment =
        of_kind("Deployment").find(|object| object["metadata"]["name"] == *id.name).ok_or_else(|| {
            let there: Vec<_> =
                of_kind("Deployment").filter_map(|object| object["metadata"]["name"].as_str()).collect();
            let hint = if there.is_empty() {
                "name the file of the Deployment too, beside those of its Services and routes".to_owned()
            } else {
                format!("Deployments that are there: {}", there.join(", "))
            };
            Unfit::new(format!("there is no Deployment {id}"), hint)
        })?;
    let metadata = &deployment["metadata"];
    let reading =
        policy::read(&texts(&metadata["labels"]), &texts(&metadata["annotations"]), &Defaults::default());
    let pod = texts(&deployment["spec"]["template"]["metadata"]["labels"]);
    let mut services: Vec<_> =
        of_kind("Service").filter(|service| serves(service, &reading.policy, &pod)).flat_map(ports).collect();
    if services.is_empty() {
        return Err(Unfit::new(
            format!("no Service leads to {id}"),
            "name the file of a Service whose selector matches the pods, or set `kubenap/service`",
        ));
    }
    let chosen = |object: &Value| {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        reading.policy.ingresses.as_ref().is_none_or(|names| names.iter().any(|one| one == name))
    };
    let own = |name: &str| services.iter().any(|service| service.name == name);
    // Also by a rule of which it is not understood what it matches: the plugins say so.
    let leads_here = |object: &Value| {
        rules(object).iter().any(|rule| own(&rule.service))
            || backends(object)
                .iter()
                .any(|to| own(&to.service) && (to.namespace.is_empty() || to.namespace == id.namespace))
    };
    let known = |object: &&Value| routes::KINDS.iter().any(|kind| object["kind"] == kind.kind);
    let routes = objects.iter().filter(here).filter(known);
    let routes: Vec<_> = routes
        .filter(|object| chosen(object) && !is_ours(object) && leads_here(object))
        .map(|object| Route { object: object.clone(), controller: controller(object, objects) })
        .collect();
    lead_first(&mut services, &routes);
    let Policy { proxy, wake_timeout, .. } = reading.policy;
    let app = App { id: id.clone(), services, routes, wake_timeout, form: None, version: None };
    Ok(Found { app, proxy, complaints: reading.complaints })
}

/// Puts the port first to which the routes lead, and among several the widest rule: one for metrics, or a Service for
/// callers inside, may stand before it.
fn lead_first(services: &mut [AppService], routes: &[Route]) {
    let mut rules: Vec<_> = routes.iter().flat_map(|route| rules(&route.object)).collect();
    rules.sort_by_key(|rule| rule.path.len());
    let main = rules.iter().find_map(|rule| services.iter().position(|service| service.is_meant_by(rule)));
    if let Some(main) = main {
        services[..=main].rotate_right(1);
    }
}

impl AppService {
    /// Whether a rule leads to this port; one that names none leads to each.
    pub(super) fn is_meant_by(&self, rule: &Rule) -> bool {
        let port = &rule.port;
        self.name == rule.service
            && (port.is_empty() || *port == self.port.to_string() || *port == self.port_name)
    }
}

/// What was rendered before is no way in of the app's own.
fn is_ours(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "kubenap"
}

fn serves(service: &Value, policy: &Policy, pod: &Texts) -> bool {
    if let Some(names) = &policy.services {
        return names.iter().any(|name| service["metadata"]["name"] == *name);
    }
    let selector = texts(&service["spec"]["selector"]);
    !selector.is_empty() && selector.iter().all(|(name, value)| pod.get(name) == Some(value))
}

fn ports(service: &Value) -> impl Iterator<Item = AppService> {
    let spec = &service["spec"];
    let name = service["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let ip = spec["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
    // No proxy of HTTP leads to any other.
    let is_tcp = |port: &&Value| port["protocol"].as_str().is_none_or(|protocol| protocol == "TCP");
    spec["ports"].as_array().into_iter().flatten().filter(is_tcp).filter_map(move |port| {
        Some(AppService {
            name: name.clone(),
            port: port["port"].as_u64().and_then(|port| u16::try_from(port).ok())?,
            port_name: port["name"].as_str().unwrap_or_default().to_owned(),
            ip,
        })
    })
}

/// The controller that the class of an Ingress names; the only default class where it names none.
fn controller(object: &Value, objects: &[Value]) -> Option<String> {
    const DEFAULT: &str = "ingressclass.kubernetes.io/is-default-class";
    let of = |class: &Value| class["spec"]["controller"].as_str().map(str::to_owned);
    let mut classes = objects.iter().filter(|object| object["kind"] == "IngressClass");
    let named = object["spec"]["ingressClassName"].as_str();
    let named = named.or(object["metadata"]["annotations"]["kubernetes.io/ingress.class"].as_str());
    if let Some(name) = named {
        return of(classes.find(|class| class["metadata"]["name"] == name)?);
    }
    let mut defaults = classes.filter(|class| class["metadata"]["annotations"][DEFAULT] == "true");
    let only = defaults.next()?;
    of(only).filter(|_| defaults.next().is_none())
}

fn texts(map: &Value) -> Texts {
    let pairs = map.as_object().into_iter().flatten();
    pairs.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(annotations: &Value) -> Value {
        json!({ "kind": "Deployment", "metadata": { "name": "web", "namespace": "shop", "annotations": annotations },
            "spec": { "template": { "metadata": { "labels": { "app": "web", "tier": "front" } } } } })
    }

    fn service(name: &str, namespace: &str, selector: &Value) -> Value {
        json!({ "kind": "Service", "metadata": { "name": name, "namespace": namespace },
            "spec": { "selector": selector, "clusterIP": "10.0.0.1", "ports": [{ "name": "http", "port": 80 }] } })
    }

    fn ingress(name: &str, service: &str) -> Value {
        let backend = json!({ "service": { "name": service, "port": { "number": 80 } } });
        json!({ "kind": "Ingress", "metadata": { "name": name, "namespace": "shop" },
            "spec": { "ingressClassName": "nginx", "rules": [{ "host": format!("{name}.example"),
                "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } }] } })
    }

    fn names(found: &Found) -> (Vec<&str>, Vec<&str>) {
        let services = found.app.services.iter().map(|service| service.name.as_str()).collect();
        (services, found.app.routes.iter().map(Route::name).collect())
    }

    fn all(annotations: &Value) -> Vec<Value> {
        vec![
            deployment(annotations),
            service("web", "shop", &json!({ "app": "web" })),
            service("web", "other", &json!({ "app": "web" })),
            service("db", "shop", &json!({ "app": "db" })),
            ingress("web", "web"),
            ingress("second", "web"),
            ingress("db", "db"),
            json!({ "kind": "IngressClass", "metadata": { "name": "nginx" }, "spec": { "controller": "nginx.org/ingress-controller" } }),
        ]
    }

    #[test]
    fn an_app_is_found_with_its_services_and_the_routes_to_them() {
        let id = AppId::new("shop", "web");
        let found = read(&id, &all(&json!({}))).unwrap();
        assert_eq!(names(&found), (vec!["web"], vec!["web", "second"]));
        assert_eq!(found.app.routes[0].controller.as_deref(), Some("nginx.org/ingress-controller"));
        assert_eq!(found.app.hosts(), ["second.example", "web.example"]);
        assert_eq!(found.proxy, Proxy::default());
    }

    #[test]
    fn its_annotations_choose_services_routes_and_the_proxy() {
        let id = AppId::new("shop", "web");
        let chosen = json!({ "kubenap/service": "db", "kubenap/ingress": "db", "kubenap/proxy": "nginx", "kubenap/wakeTimeout": "5m" });
        let found = read(&id, &all(&chosen)).unwrap();
        assert_eq!(names(&found), (vec!["db"], vec!["db"]));
        assert_eq!(found.proxy.to_string(), "nginx");
        assert_eq!(found.app.wake_timeout.as_secs(), 300);
    }

    #[test]
    fn what_is_missing_is_named_with_a_hint() {
        let id = AppId::new("shop", "wbe");
        assert_eq!(
            read(&id, &all(&json!({}))).unwrap_err().to_string(),
            "there is no Deployment shop/wbe\nhint: Deployments that are there: web"
        );
        let alone = read(&AppId::new("shop", "web"), &[deployment(&json!({}))]).unwrap_err().to_string();
        assert!(alone.starts_with("no Service leads to shop/web\nhint: "), "{alone}");
    }
}
