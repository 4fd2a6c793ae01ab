//! What a pod template says of readiness, as far as somebody outside of the pod can ask for it: over HTTP or TCP.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::cluster::labels::Alike;

/// Everything that the kubelet would ask before it calls a pod ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// All of these must succeed.
    pub probes: Box<[ProbeSpec]>,
}

/// The named TCP ports of a pod's containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamedPorts(Box<[(Box<str>, u16)]>);

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeSpec {
    /// The container's port.
    pub port: u16,
    /// An HTTP GET; none: a connection is enough.
    pub http: Option<HttpGet>,
    /// Nothing is asked before the pod was there for this long.
    pub initial_delay: Duration,
    /// The pause between two asks of which more than one in a row must succeed.
    pub period: Duration,
    /// How many in a row must succeed.
    pub successes: u32,
    /// How long one may take.
    pub timeout: Duration,
}

/// What an HTTP probe sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpGet {
    /// Path and query.
    pub path: Box<str>,
    /// Its headers.
    pub headers: Box<[(HeaderName, HeaderValue)]>,
}

/// A Service port's `targetPort`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPort {
    /// A number.
    Number(u16),
    /// The name of a container's port.
    Name(Box<str>),
}

/// Thousands of templates declare one and the same.
static ALIKE: Alike<Readiness> = Alike::new();

/// No answer of a probe is waited for longer, whatever it says.
const LONGEST: Duration = Duration::from_secs(5);

impl Readiness {
    /// Reads a pod template. None: only the kubelet can tell, because some container has no probe, or one that runs
    /// a program, speaks gRPC or TLS, or goes elsewhere than to the pod. Doubt leaves it to the kubelet.
    pub fn of(spec: &PodSpec) -> Option<Self> {
        if spec.readiness_gates.as_ref().is_some_and(|gates| !gates.is_empty())
            || spec.host_network == Some(true)
        {
            return None;
        }
        let mut probes = Vec::new();
        for container in running(spec) {
            // Until such a hook is done the kubelet asks nothing.
            if container.lifecycle.as_ref().is_some_and(|hooks| hooks.post_start.is_some()) {
                return None;
            }
            probes.push(probe(container, container.readiness_probe.as_ref()?)?);
            if let Some(startup) = &container.startup_probe {
                probes.push(probe(container, startup)?);
            }
        }
        Some(Self { probes: probes.into() })
    }

    /// The same, shared with whatever template declares it too.
    pub fn shared(self) -> Arc<Self> {
        ALIKE.share(self)
    }
}

impl NamedPorts {
    /// Reads a pod template.
    pub fn of(spec: &PodSpec) -> Self {
        let ports = running(spec).flat_map(tcp);
        Self(ports.filter_map(|port| Some((port.name.as_deref()?.into(), number(port)?))).collect())
    }

    /// The pod's port behind a Service port. None: no container has a port of that name.
    pub fn port(&self, target: &TargetPort) -> Option<u16> {
        match target {
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(wanted) => {
                self.0.iter().find(|(name, _)| name == wanted).map(|(_, number)| *number)
            }
        }
    }
}

impl TargetPort {
    /// From the API's form; without one it is the Service port's own number.
    pub fn of(target: Option<IntOrString>, own: u16) -> Self {
        match target {
            // Zero and an empty name stand for "not given".
            None | Some(IntOrString::Int(0)) => Self::Number(own),
            Some(IntOrString::Int(number)) => Self::Number(u16::try_from(number).unwrap_or(own)),
            Some(IntOrString::String(name)) if name.is_empty() => Self::Number(own),
            Some(IntOrString::String(name)) => match name.parse() {
                Ok(number) => Self::Number(number),
                Err(_) => Self::Name(name.into()),
            },
        }
    }
}

fn probe(container: &Container, probe: &Probe) -> Option<ProbeSpec> {
    let (target, http) = match (&probe.http_get, &probe.tcp_socket) {
        (Some(get), None) => {
            let plain = get.scheme.as_deref().is_none_or(|scheme| scheme == "HTTP");
            if !plain || get.host.as_ref().is_some_and(|host| !host.is_empty()) {
                return None;
            }
            let path = get.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
            let path = if path.starts_with('/') { path.into() } else { format!("/{path}").into() };
            let headers =
                get.http_headers.iter().flatten().map(|header| {
                    Some((header.name.parse().ok()?, HeaderValue::from_str(&header.value).ok()?))
                });
            (&get.port, Some(HttpGet { path, headers: headers.collect::<Option<_>>()? }))
        }
        (None, Some(socket)) if socket.host.as_ref().is_none_or(String::is_empty) => (&socket.port, None),
        _ => return None,
    };
    let port = match target {
        IntOrString::Int(number) => u16::try_from(*number).ok()?,
        IntOrString::String(name) => tcp(container)
            .find(|port| port.name.as_ref() == Some(name))
            .and_then(number)
            .or_else(|| name.parse().ok())?,
    };
    let seconds = |given: Option<i32>, otherwise: u64| {
        Duration::from_secs(given.and_then(|given| u64::try_from(given).ok()).unwrap_or(otherwise))
    };
    Some(ProbeSpec {
        port,
        http,
        initial_delay: seconds(probe.initial_delay_seconds, 0),
        period: seconds(probe.period_seconds, 10).max(Duration::from_secs(1)),
        successes: probe.success_threshold.and_then(|count| u32::try_from(count).ok()).unwrap_or(1).max(1),
        timeout: seconds(probe.timeout_seconds, 1).clamp(Duration::from_secs(1), LONGEST),
    })
}

/// The containers that run as long as the pod does.
fn running(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    let sidecars = spec.init_containers.iter().flatten();
    let sidecars = sidecars.filter(|one| one.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().chain(sidecars)
}

fn tcp(container: &Container) -> impl Iterator<Item = &ContainerPort> {
    let ports = container.ports.iter().flatten();
    ports.filter(|port| port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
}

fn number(port: &ContainerPort) -> Option<u16> {
    u16::try_from(port.container_port).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn of(containers: &Value) -> Option<Readiness> {
        Readiness::of(&serde_json::from_value(json!({ "containers": containers })).unwrap())
    }

    fn ports() -> Value {
        json!([{"name": "web", "containerPort": 8080}, {"name": "dns", "containerPort": 53, "protocol": "UDP"}])
    }

    fn one(probe: &Value) -> Option<Readiness> {
        of(&json!([{"name": "app", "ports": ports(), "readinessProbe": probe}]))
    }

    #[test]
    fn an_http_probe_is_taken_as_the_template_declares_it() {
        let headers = json!([{"name": "Host", "value": "inside"}]);
        let readiness = one(&json!({
            "httpGet": {"path": "ready?deep=1", "port": "web", "httpHeaders": headers},
            "initialDelaySeconds": 3, "periodSeconds": 7, "successThreshold": 2, "timeoutSeconds": 60,
        }))
        .unwrap();
        let [probe] = &*readiness.probes else { panic!("{readiness:?}") };
        assert_eq!((probe.port, probe.successes, probe.timeout), (8080, 2, LONGEST));
        assert_eq!((probe.initial_delay.as_secs(), probe.period.as_secs()), (3, 7));
        let http = probe.http.as_ref().unwrap();
        assert_eq!(&*http.path, "/ready?deep=1");
        assert_eq!(
            (http.headers[0].0.as_str(), &http.headers[0].1),
            ("host", &HeaderValue::from_static("inside"))
        );
    }

    #[test]
    fn named_target_ports_are_those_of_the_containers() {
        let sidecar = json!({"name": "side", "restartPolicy": "Always", "ports": [{"name": "side", "containerPort": 9}]});
        let init = json!({"name": "init", "ports": [{"name": "init", "containerPort": 10}]});
        let pod =
            json!({"containers": [{"name": "app", "ports": ports()}], "initContainers": [sidecar, init]});
        let named = NamedPorts::of(&serde_json::from_value(pod).unwrap());
        let name = |name: &str| TargetPort::of(Some(IntOrString::String(name.to_owned())), 80);
        assert_eq!(named.port(&name("web")), Some(8080));
        assert_eq!(named.port(&name("dns")), None, "a port of UDP is not meant");
        assert_eq!((named.port(&name("side")), named.port(&name("init"))), (Some(9), None));
        assert_eq!(named.port(&name("9000")), Some(9000));
        assert_eq!(named.port(&TargetPort::of(None, 80)), Some(80));
        assert_eq!(named.port(&TargetPort::of(Some(IntOrString::Int(8081)), 80)), Some(8081));
    }

    #[test]
    fn what_only_the_kubelet_can_ask_is_left_to_it() {
        for probe in [
            json!({"exec": {"command": ["true"]}}),
            json!({"grpc": {"port": 8080}}),
            json!({"httpGet": {"port": 8080, "scheme": "HTTPS"}}),
            json!({"httpGet": {"port": 8080, "host": "elsewhere.example"}}),
            json!({"httpGet": {"port": "unheard-of"}}),
            json!({"tcpSocket": {"port": 8080, "host": "elsewhere.example"}}),
        ] {
            assert_eq!(one(&probe), None, "{probe}");
        }
        let tcp = json!({"tcpSocket": {"port": 1}});
        let probed = json!({"name": "app", "readinessProbe": tcp});
        assert_eq!(of(&json!([probed, {"name": "sidecar"}])), None, "a container without a probe");
        let hook = json!({"name": "app", "readinessProbe": tcp, "lifecycle": {"postStart": {"sleep": {"seconds": 1}}}});
        assert_eq!(of(&json!([hook])), None);
        let started =
            json!({"name": "app", "readinessProbe": tcp, "startupProbe": {"exec": {"command": ["true"]}}});
        assert_eq!(of(&json!([started])), None);
        let gated = json!({"containers": [probed], "readinessGates": [{"conditionType": "example/lb"}]});
        assert_eq!(Readiness::of(&serde_json::from_value(gated).unwrap()), None);
    }
}
