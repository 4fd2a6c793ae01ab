//! What each proxy counts, and which of its counters belong to an app. Names are mapped forward only:
//! from an app's Services to the label values they would produce, never by taking a label value apart.

use std::collections::BTreeSet;

use super::{Target, TargetService};

/// A metric that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Preset {
    /// Traefik's count per service. A series is born at the first request.
    Traefik,
    /// The community's ingress-nginx. A series is born at the first request.
    IngressNginx,
    /// The app's own `http_requests_total` where it names its handler, so that probes can be left out.
    Own,
    /// The app's own `http_requests_total` with no handler: probes and scrapes cannot be told from visitors,
    /// so it is only used for apps that nothing else covers.
    OwnPlain,
}

impl Preset {
    pub(super) const ALL: [Self; 4] = [Self::Traefik, Self::IngressNginx, Self::Own, Self::OwnPlain];
    pub(super) const PROXIES: [Self; 2] = [Self::Traefik, Self::IngressNginx];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Traefik => "traefik",
            Self::IngressNginx => "ingress-nginx",
            Self::Own => "own",
            Self::OwnPlain => "own-plain",
        }
    }

    /// The counter.
    pub(super) fn metric(self) -> &'static str {
        match self {
            Self::Traefik => "traefik_service_requests_total",
            Self::IngressNginx => "nginx_ingress_controller_requests",
            Self::Own | Self::OwnPlain => "http_requests_total",
        }
    }

    /// A metric that every instance of the proxy shows from its start, requests or not.
    pub(super) fn presence(self) -> &'static str {
        match self {
            Self::Traefik => "traefik_config_last_reload_success",
            Self::IngressNginx => "nginx_ingress_controller_config_last_reload_successful",
            Self::Own | Self::OwnPlain => self.metric(),
        }
    }

    /// The counter as `PromQL` selects it.
    pub(super) fn selector(self) -> String {
        let filter = match self {
            Self::Traefik | Self::IngressNginx => "",
            Self::Own => {
                r#"{namespace!="",pod!="",handler!="",handler!~"/(metrics|healthz|readyz|livez|ping)"}"#
            }
            Self::OwnPlain => r#"{namespace!="",pod!="",handler=""}"#,
        };
        format!("{}{filter}", self.metric())
    }

    /// The labels that name an app. A target label of the scrape wins over a metric's label of the same name,
    /// which Prometheus then calls `exported_…`.
    pub(super) fn labels(self) -> &'static str {
        match self {
            Self::Traefik => "exported_service, service",
            Self::IngressNginx => "exported_namespace, exported_service, namespace, service, canary",
            Self::Own | Self::OwnPlain => "namespace, pod",
        }
    }

    /// What a series with these labels counts for: no key, one, or two (an app and its canary).
    pub(super) fn keys<'a>(self, label: impl Fn(&str) -> &'a str) -> Vec<String> {
        let own_or = |name: &str, exported: &str| match label(exported) {
            "" => label(name),
            value => value,
        };
        let mut keys = Vec::new();
        match self {
            Self::Traefik => keys.push(own_or("service", "exported_service").to_owned()),
            Self::IngressNginx => {
                let namespace = own_or("namespace", "exported_namespace");
                let service = own_or("service", "exported_service");
                keys.push(format!("{namespace}/{service}"));
                if !label("canary").is_empty() {
                    keys.push(canary(label("canary")));
                }
            }
            Self::Own | Self::OwnPlain => keys.push(format!("{}/{}", label("namespace"), label("pod"))),
        }
        keys
    }

    /// The keys that the app's Services can have in this proxy.
    pub(super) fn expected(self, target: &Target) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        for service in &target.services {
            match self {
                Self::Traefik => traefik(service, &mut keys),
                Self::IngressNginx => {
                    keys.insert(format!("{}/{}", service.namespace, service.name));
                    for port in &service.ingress_ports {
                        keys.insert(canary(&format!("{}-{}-{port}", service.namespace, service.name)));
                    }
                }
                Self::Own | Self::OwnPlain => {}
            }
        }
        keys
    }
}

/// Whether a pod of this name belongs to the Deployment: its name, a `ReplicaSet`'s hash, and a tail of five.
/// Kubernetes cuts what comes before the tail to 58 letters.
pub(super) fn is_pod_of(pod: &str, deployment: &str) -> bool {
    if let Some(rest) = pod.strip_prefix(deployment).and_then(|rest| rest.strip_prefix('-')) {
        let parts: Vec<_> = rest.split('-').collect();
        let [hash, tail] = parts[..] else { return pod.len() == 63 };
        return !hash.is_empty() && hash.len() <= 10 && tail.len() == 5;
    }
    pod.len() == 63
        && pod
            .get(..58)
            .is_some_and(|cut| deployment.starts_with(cut) || cut.strip_suffix('-') == Some(deployment))
}

fn canary(upstream: &str) -> String {
    // Kubernetes names have no blank, so this is nobody's "namespace/service".
    format!("canary {upstream}")
}

fn traefik(service: &TargetService, keys: &mut BTreeSet<String>) {
    let (namespace, name) = (&service.namespace, &service.name);
    for port in &service.ingress_ports {
        let mut key = |text: String, provider: &str| {
            keys.insert(format!("{}@{provider}", normal(&text)));
            keys.insert(format!("{text}@{provider}"));
        };
        key(format!("{namespace}-{name}-{port}"), "kubernetes");
        for (of, ingress) in &service.ingresses {
            key(format!("{of}-{ingress}-{name}-{port}"), "kubernetesingressnginx");
        }
    }
    // An IngressRoute with several services names them like this; it can only add activity.
    let named = service.ports.iter().filter_map(|port| port.name.clone());
    let numbers = service.ports.iter().map(|port| port.number.to_string());
    for port in named.chain(numbers).chain(service.ingress_ports.iter().cloned()) {
        keys.insert(format!("{namespace}-{name}-{port}@kubernetescrd"));
    }
}

/// Traefik joins what is between signs that are neither letters nor digits by single dashes.
fn normal(text: &str) -> String {
    let parts: Vec<_> =
        text.split(|sign: char| !sign.is_alphanumeric()).filter(|part| !part.is_empty()).collect();
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_are_told_by_the_form_of_their_names() {
        assert!(is_pod_of("web-6d7fdd8798-mg4f4", "web"));
        assert!(!is_pod_of("web-api-6d7fdd8798-mg4f4", "web"));
        assert!(is_pod_of("web-api-6d7fdd8798-mg4f4", "web-api"));
        assert!(!is_pod_of("web-0", "web"));
        assert!(!is_pod_of("webx-6d7fdd8798-mg4f4", "web"));
        let long = "a".repeat(60);
        assert!(is_pod_of(&format!("{}mg4f4", &long[..58]), &long));
    }

    #[test]
    fn an_exported_label_wins_over_the_scrape_s_own() {
        let label = |name: &str| match name {
            "namespace" | "service" => "ingress",
            "exported_namespace" => "shop",
            "exported_service" => "web",
            "canary" => "shop-web2-80",
            _ => "",
        };
        assert_eq!(Preset::IngressNginx.keys(label), ["shop/web", "canary shop-web2-80"]);
        assert_eq!(Preset::Traefik.keys(label), ["web"]);
    }

    #[test]
    fn traefik_s_names_are_built_from_the_ingress_s_own_words() {
        let service = TargetService {
            namespace: "a-b".to_owned(),
            name: "c--d".to_owned(),
            ingress_ports: BTreeSet::from(["http".to_owned()]),
            ingresses: vec![("a-b".to_owned(), "my.ing".to_owned())],
            ..TargetService::default()
        };
        let app = kubenap_core::app::AppId::new("a-b", "c");
        let keys = Preset::Traefik.expected(&Target { app, services: vec![service], pods: None });
        assert!(keys.contains("a-b-c-d-http@kubernetes"));
        assert!(keys.contains("a-b-my-ing-c-d-http@kubernetesingressnginx"));
    }
}
