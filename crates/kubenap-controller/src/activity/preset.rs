//! What each proxy counts, and which of its counters belong to an app. Names are mapped forward only:
//! from an app's Services to the label values they would produce, never by taking a label value apart.

use std::collections::BTreeSet;

use super::mapping::{canary, envoy, logs, ports, subset, traefik};
use super::{Target, TargetService};

/// A metric that is understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Preset {
    /// Traefik's count per service. A series is born at the first request.
    Traefik,
    /// The community's ingress-nginx. A series is born at the first request.
    IngressNginx,
    /// F5's NGINX Ingress Controller with `-enable-latency-metrics`. Its series come and go with the app's pods.
    F5Nginx,
    /// Envoy's count per cluster, as Contour, Envoy Gateway and Istio name them; it shows open requests.
    Envoy,
    /// What an Istio gateway or waypoint counts.
    Istio,
    /// HAProxy's sessions per backend; it shows open ones.
    HaProxy,
    /// Kong with `status_code_metrics`.
    Kong,
    /// Counters that somebody names after namespace and Service.
    Named,
    /// Lines of an access log; a key begins with a word that says what names the app in it.
    Logs,
    /// The app's own `http_requests_total` where it names its handler, so that probes can be left out.
    Own,
    /// What Linkerd's proxy counts in each of the app's pods.
    Linkerd,
    /// The app's own `http_requests_total` with no handler: probes and scrapes cannot be told from visitors,
    /// so it is only used for apps that nothing else covers.
    OwnPlain,
}

/// Divides a counter's key from what tells series of the same key apart. No name in Kubernetes has this sign.
pub(super) const DETAIL: char = '\0';
/// The detail of how many requests are open: above zero is activity, changed or not.
pub(super) const OPEN: &str = "~open";
/// The detail of answers that may come from no pod: they are no use of an app that has none.
pub(super) const UNSURE: &str = "~unsure";

/// At the end of a key that was looked for: any that begins so.
pub(super) const ANY: char = '*';

/// What a proxy or KubeNap answers while an app has no pods; an app may answer the same.
pub(super) const UNSURE_CODES: [&str; 3] = ["307", "502", "503"];

impl Preset {
    pub(super) const ALL: [Self; 10] = [
        Self::Traefik,
        Self::IngressNginx,
        Self::F5Nginx,
        Self::Envoy,
        Self::Istio,
        Self::HaProxy,
        Self::Kong,
        Self::Own,
        Self::Linkerd,
        Self::OwnPlain,
    ];
    pub(super) const PROXIES: [Self; 7] = [
        Self::Traefik,
        Self::IngressNginx,
        Self::F5Nginx,
        Self::Envoy,
        Self::Istio,
        Self::HaProxy,
        Self::Kong,
    ];
    /// What pods count themselves, in the order in which it is believed.
    pub(super) const OWN: [Self; 3] = [Self::Own, Self::Linkerd, Self::OwnPlain];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Traefik => "traefik",
            Self::IngressNginx => "ingress-nginx",
            Self::F5Nginx => "f5-nginx",
            Self::Envoy => "envoy",
            Self::Istio => "istio",
            Self::HaProxy => "haproxy",
            Self::Kong => "kong",
            Self::Named => "named",
            Self::Logs => "logs",
            Self::Own => "own",
            Self::Linkerd => "linkerd",
            Self::OwnPlain => "own-plain",
        }
    }

    /// The counter.
    pub(super) fn metric(self) -> &'static str {
        match self {
            Self::Traefik => "traefik_service_requests_total",
            Self::IngressNginx => "nginx_ingress_controller_requests",
            Self::F5Nginx => "nginx_ingress_controller_upstream_server_response_latency_ms_count",
            Self::Envoy => "envoy_cluster_upstream_rq_total",
            Self::Istio => "istio_requests_total",
            // Counted when a request begins; HAProxy's count of requests waits for their end.
            Self::HaProxy => "haproxy_backend_sessions_total",
            Self::Kong => "kong_http_requests_total",
            Self::Named | Self::Logs => "",
            Self::Linkerd => "request_total",
            Self::Own | Self::OwnPlain => "http_requests_total",
        }
    }

    /// The gauge of open requests. Envoy's connections are no sign of use: a kept-alive one stays open when idle.
    pub(super) fn open(self) -> Option<&'static str> {
        match self {
            Self::Envoy => Some("envoy_cluster_upstream_rq_active"),
            Self::HaProxy => Some("haproxy_backend_current_sessions"),
            Self::Traefik
            | Self::IngressNginx
            | Self::F5Nginx
            | Self::Istio
            | Self::Kong
            | Self::Named
            | Self::Logs
            | Self::Own
            | Self::Linkerd
            | Self::OwnPlain => None,
        }
    }

    /// A counter of requests at their beginning, where [`Preset::metric`] counts them at their end. Traefik has one for
    /// requests over TLS: as long as more have begun than ended, one is open. Of others it says nothing.
    pub(super) fn begun(self) -> Option<&'static str> {
        (self == Self::Traefik).then_some("traefik_service_requests_tls_total")
    }

    /// A metric that every instance of the proxy shows from its start, requests or not.
    pub(super) fn presence(self) -> &'static str {
        match self {
            Self::Traefik => "traefik_config_last_reload_success",
            Self::IngressNginx => "nginx_ingress_controller_config_last_reload_successful",
            Self::F5Nginx => "nginx_ingress_nginx_http_requests_total",
            Self::Envoy => "envoy_server_live",
            Self::Istio => "istio_build",
            Self::HaProxy => "haproxy_process_start_time_seconds",
            Self::Kong => "kong_datastore_reachable",
            Self::Named | Self::Logs | Self::Own | Self::Linkerd | Self::OwnPlain => self.metric(),
        }
    }

    /// Telegraf's field for [`Preset::presence`].
    pub(super) fn presence_kind(self) -> &'static str {
        match self {
            Self::F5Nginx | Self::Named | Self::Logs | Self::Own | Self::Linkerd | Self::OwnPlain => {
                "counter"
            }
            Self::Traefik | Self::IngressNginx | Self::Envoy | Self::Istio | Self::HaProxy | Self::Kong => {
                "gauge"
            }
        }
    }

    /// Whether a series is born at the first request, so that none means that nothing came since the proxy began. Of
    /// the others a missing series may be a name that is not understood, or counting that is switched off.
    pub(super) fn is_born_at_first_request(self) -> bool {
        matches!(self, Self::Traefik | Self::IngressNginx)
    }

    /// The counter as `PromQL` selects it, without what is `unsure`, or that alone.
    pub(super) fn selector(self, unsure: bool) -> String {
        let mut filters = Vec::new();
        match self {
            Self::Istio => filters.push(r#"reporter=~"source|waypoint""#.to_owned()),
            Self::Own => filters.push(
                r#"namespace!="",pod!="",handler!="",handler!~"/(metrics|healthz|readyz|livez|ping)""#
                    .to_owned(),
            ),
            Self::Linkerd => {
                filters.push(r#"direction="inbound",namespace!="",pod!="",route_name!="probe""#.to_owned());
            }
            Self::OwnPlain => filters.push(r#"namespace!="",pod!="",handler="""#.to_owned()),
            Self::Traefik
            | Self::IngressNginx
            | Self::F5Nginx
            | Self::Envoy
            | Self::HaProxy
            | Self::Kong
            | Self::Named
            | Self::Logs => {}
        }
        if let Some(code) = self.code() {
            let sign = if unsure { "=~" } else { "!~" };
            filters.push(format!(r#"{code}{sign}"{}""#, UNSURE_CODES.join("|")));
        }
        if filters.is_empty() {
            return self.metric().to_owned();
        }
        format!("{}{{{}}}", self.metric(), filters.join(","))
    }

    /// The label that names the answer's status.
    pub(super) fn code(self) -> Option<&'static str> {
        match self {
            Self::Traefik | Self::F5Nginx | Self::Kong => Some("code"),
            Self::IngressNginx => Some("status"),
            Self::Istio => Some("response_code"),
            Self::Envoy
            | Self::HaProxy
            | Self::Named
            | Self::Logs
            | Self::Own
            | Self::Linkerd
            | Self::OwnPlain => None,
        }
    }

    /// The labels that name an app. A target label of the scrape wins over a metric's label of the same name,
    /// which Prometheus then calls `exported_…`.
    pub(super) fn labels(self) -> &'static str {
        match self {
            Self::Traefik | Self::Kong => "exported_service, service",
            Self::IngressNginx => "exported_namespace, exported_service, namespace, service, canary",
            Self::F5Nginx => "exported_service, service, resource_namespace, server",
            Self::Envoy => "envoy_cluster_name, cluster_name",
            Self::Istio => "destination_service",
            Self::HaProxy => "proxy",
            Self::Named | Self::Logs => "namespace, service",
            Self::Own | Self::Linkerd | Self::OwnPlain => "namespace, pod",
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
            Self::Traefik | Self::Kong => keys.push(own_or("service", "exported_service").to_owned()),
            Self::IngressNginx => {
                let namespace = own_or("namespace", "exported_namespace");
                let service = own_or("service", "exported_service");
                keys.push(format!("{namespace}/{service}"));
                if !label("canary").is_empty() {
                    keys.push(canary(label("canary")));
                }
            }
            Self::F5Nginx => {
                let service = own_or("service", "exported_service");
                // The series of a pod goes with it; summed up, the others' would seem to have changed.
                keys.push(format!("{}/{service}{DETAIL}{}", label("resource_namespace"), label("server")));
            }
            Self::Envoy => {
                let cluster = own_or("envoy_cluster_name", "cluster_name");
                keys.push(match subset(cluster) {
                    Some((whole, subset)) => format!("{whole}{DETAIL}{subset}"),
                    None => cluster.to_owned(),
                });
            }
            Self::Istio => keys.push(label("destination_service").to_owned()),
            Self::HaProxy => keys.push(label("proxy").to_owned()),
            Self::Logs => {}
            Self::Named => keys.push(format!("{}/{}", label("namespace"), label("service"))),
            Self::Own | Self::Linkerd | Self::OwnPlain => {
                keys.push(format!("{}/{}", label("namespace"), label("pod")));
            }
        }
        keys
    }

    /// The same with what is open, or may come from no pod, told apart.
    pub(super) fn keys_of<'a>(self, detail: Option<&str>, label: impl Fn(&str) -> &'a str) -> Vec<String> {
        let keys = self.keys(label).into_iter();
        let Some(detail) = detail else { return keys.collect() };
        keys.map(|key| {
            let divide = if key.contains(DETAIL) { "" } else { "\0" };
            format!("{key}{divide}{detail}")
        })
        .collect()
    }

    /// Whether the answer's status is one that a proxy gives for an app without pods.
    pub(super) fn is_unsure<'a>(self, label: impl Fn(&str) -> &'a str) -> bool {
        self.code().is_some_and(|code| UNSURE_CODES.contains(&label(code)))
    }

    /// Whether this proxy serves Ingresses whose class names this controller.
    pub(super) fn serves(self, controller: &str) -> bool {
        match self {
            Self::Traefik => controller == "traefik.io/ingress-controller",
            Self::IngressNginx => controller == "k8s.io/ingress-nginx",
            Self::F5Nginx => controller == "nginx.org/ingress-controller",
            Self::Envoy => {
                controller.starts_with("projectcontour.io/") || controller.starts_with("istio.io/")
            }
            Self::Istio => controller.starts_with("istio.io/"),
            Self::HaProxy => controller.starts_with("haproxy.org/"),
            Self::Kong => controller.starts_with("ingress-controllers.konghq.com/"),
            // Whoever names counters after namespace and Service says that these are all.
            Self::Named | Self::Logs => true,
            Self::Own | Self::Linkerd | Self::OwnPlain => false,
        }
    }

    /// The keys that the app's Services can have in this proxy.
    pub(super) fn expected(self, target: &Target) -> BTreeSet<String> {
        target.services.iter().flat_map(|service| self.expected_of(service)).collect()
    }

    /// The keys that one Service can have in this proxy.
    pub(super) fn expected_of(self, service: &TargetService) -> BTreeSet<String> {
        let mut keys = BTreeSet::new();
        let (namespace, name) = (&service.namespace, &service.name);
        match self {
            Self::Traefik => traefik(service, &mut keys),
            Self::IngressNginx => {
                keys.insert(format!("{namespace}/{name}"));
                for port in &service.ingress_ports {
                    keys.insert(canary(&format!("{namespace}-{name}-{port}")));
                }
            }
            Self::F5Nginx | Self::Named => {
                keys.insert(format!("{namespace}/{name}"));
            }
            Self::Logs => logs(service, &mut keys),
            Self::Envoy => envoy(service, &mut keys),
            Self::Istio => {
                keys.insert(format!("{name}.{namespace}.svc.cluster.local"));
            }
            Self::HaProxy => {
                for port in ports(service) {
                    keys.insert(format!("{namespace}_svc_{name}_{port}"));
                }
            }
            Self::Kong => {
                for port in ports(service) {
                    let kind = if port.parse::<u16>().is_ok() { "pnum" } else { "pname" };
                    keys.insert(format!("{namespace}.{name}.{port}"));
                    keys.insert(format!("{namespace}.{name}.{kind}-{port}"));
                }
            }
            Self::Own | Self::Linkerd | Self::OwnPlain => {}
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
}
