//! A cluster, apps, members of KubeNap, and a scripted source, all on one clock that jumps.
//!
//! Pods, wake ports and Services really listen on loopback addresses, also where a story makes no request: a wake is
//! over only when a pod takes a connection. tokio looks at sockets before it moves its clock, and on loopback
//! an answer is there at once, so that time does not pass while bytes are on their way.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its world up has failed")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kubenap_controller::activity::{Credentials, TrafficMetricsSource};
use kubenap_controller::clock::Clock;
use kubenap_controller::run::{Running, start_with};
use kubenap_controller::settings::Settings;
use kubenap_core::decide::Timing;
use kubenap_core::proxy::WakeAddress;
use kubenap_sandbox::{Sandbox, Settings as SandboxSettings, Write};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tower::ServiceExt as _;

use crate::traffic::Traffic;
use crate::visitor;

/// The namespace of all apps.
pub(crate) const SPACE: &str = "shop";

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) poll: Duration,
    pub(crate) drowsy: Duration,
    pub(crate) min_awake: Duration,
    /// `--naps-per-minute`.
    pub(crate) naps: Option<u32>,
}

impl Pace {
    /// The defaults of `kubenap run`, without a limit on naps.
    pub(crate) const USUAL: Self = Self {
        poll: Duration::from_secs(15),
        drowsy: Duration::from_secs(5),
        min_awake: Duration::from_secs(60),
        naps: Some(0),
    };
    /// For stories in real time, where many connections at once would make a clock that jumps run away.
    pub(crate) const REAL: Self = Self {
        poll: Duration::from_millis(200),
        drowsy: Duration::from_millis(300),
        min_awake: Duration::from_secs(1),
        naps: Some(0),
    };
    /// For stories in which an app that is quiet for ten seconds is soon asleep.
    pub(crate) const QUICK: Self = Self {
        poll: Duration::from_secs(2),
        drowsy: Duration::from_secs(2),
        min_awake: Duration::from_secs(5),
        naps: Some(0),
    };
}

pub(crate) struct World {
    pub(crate) sandbox: Sandbox,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) clock: Clock,
    pace: Pace,
    block: u8,
}

static WORLDS: AtomicU8 = AtomicU8::new(0);

impl World {
    pub(crate) fn new(pace: Pace) -> Self {
        Self::with(pace, &SandboxSettings::default())
    }

    /// In a cluster that is like this, but with sockets.
    pub(crate) fn with(pace: Pace, settings: &SandboxSettings) -> Self {
        let settings = SandboxSettings { sockets: true, ..settings.clone() };
        let begins = settings.start;
        let sandbox = Sandbox::start(settings);
        let space = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubenap-system"}});
        sandbox.put(space).unwrap();
        let traffic = Traffic::new("script", begins);
        let block = WORLDS.fetch_add(1, Ordering::Relaxed);
        Self { sandbox, traffic, clock: Clock::starting_at(begins), pace, block }
    }

    pub(crate) fn quick() -> Self {
        Self::new(Pace::QUICK)
    }

    pub(crate) fn client(&self) -> Client {
        let router = self.sandbox.router();
        let service = router
            .map_request(|request: http::Request<kube::client::Body>| request.map(axum::body::Body::new));
        Client::new(service, "default")
    }

    /// What the `nth` member is told.
    pub(crate) fn settings(&self, nth: u8) -> Settings {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let process = std::process::id().to_le_bytes()[0];
        Settings {
            namespaces: Vec::new(),
            // An address of its own for each member of each story, so that stories need not wait for each other.
            advertise: vec![IpAddr::V4(Ipv4Addr::new(127, 40 + nth, process, self.block))],
            wake_ports: 16000..=16400,
            proxy_listen: vec![format!("any={any}").parse().unwrap()],
            wake_service: WakeAddress::default(),
            substitute: true,
            manage_proxies: false,
            admin_listen: any,
            sources: Vec::new(),
            credentials: Credentials::default(),
            poll: self.pace.poll,
            idle_after: Duration::from_secs(600),
            timing: Timing { drowsy: self.pace.drowsy, min_awake: self.pace.min_awake },
            naps_per_minute: self.pace.naps,
            lease_namespace: "kubenap-system".to_owned(),
            identity: format!("m{nth}"),
            pod_uid: None,
            clock: self.clock,
            propagation: Duration::from_millis(500),
            grace: Duration::from_secs(10),
            open_files: None,
        }
    }

    /// Starts the `nth` member.
    pub(crate) async fn join(&self, nth: u8) -> Running {
        self.join_as(self.settings(nth)).await
    }

    pub(crate) async fn join_as(&self, settings: Settings) -> Running {
        let source: Arc<dyn TrafficMetricsSource> = Arc::<Traffic>::clone(&self.traffic);
        start_with(self.client(), settings, vec![source]).await.unwrap()
    }

    /// Puts up KubeNap's own Service, which leads to the proxy listeners of these members; where it is.
    pub(crate) fn serve_wakes(&self, members: &[&Running]) -> SocketAddr {
        let meta = |name: &str| json!({"name": name, "namespace": "kubenap-system"});
        if self.sandbox.get("services", "kubenap-system", "kubenap").is_none() {
            self.put(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("kubenap"),
                "spec": {"ports": [{"name": "proxy", "port": 80}]}}));
        }
        for slice in self.sandbox.list("endpointslices", Some("kubenap-system")) {
            let name = slice["metadata"]["name"].as_str().unwrap();
            assert!(self.sandbox.delete("endpointslices", "kubenap-system", name));
        }
        for (index, member) in members.iter().enumerate() {
            let at = member.proxies[0];
            let mut meta = meta(&format!("kubenap-{index}"));
            meta["labels"] = json!({"kubernetes.io/service-name": "kubenap"});
            self.put(json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta,
                "addressType": "IPv4", "ports": [{"name": "proxy", "port": at.port(), "protocol": "TCP"}],
                "endpoints": [{"addresses": [at.ip().to_string()], "conditions": {"ready": true}}]}));
        }
        SocketAddr::new(self.cluster_ip_in("kubenap-system", "kubenap"), 80)
    }

    /// An app of `replicas` pods that is opted in, with a Service and an Ingress; ready when this returns.
    pub(crate) async fn app(&self, name: &str, replicas: u32, annotations: &[(&str, &str)]) {
        self.put(deployment(name, replicas, annotations));
        self.put(service(name, name));
        self.put(ingress(name));
        self.ready(name, replicas).await;
    }

    pub(crate) async fn ready(&self, name: &str, replicas: u32) {
        self.until(&format!("{name} has {replicas} ready pods"), 30, || {
            self.ready_replicas(name) == replicas
        })
        .await;
    }

    pub(crate) fn put(&self, object: Value) {
        self.sandbox.put(object).unwrap();
    }

    pub(crate) fn edit(&self, kind: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.sandbox.edit(kind, SPACE, name, change).unwrap();
    }

    /// Sets one of KubeNap's annotations, as a person does.
    pub(crate) fn annotate(&self, name: &str, key: &str, value: impl Into<Value>) {
        self.edit("deployments", name, |app| {
            app["metadata"]["annotations"][format!("kubenap/{key}")] = value.into();
        });
    }

    pub(crate) fn deployment(&self, name: &str) -> Value {
        self.sandbox.get("deployments", SPACE, name).unwrap()
    }

    pub(crate) fn replicas(&self, name: &str) -> u64 {
        self.deployment(name)["spec"]["replicas"].as_u64().unwrap()
    }

    pub(crate) fn ready_replicas(&self, name: &str) -> u32 {
        let count = self.deployment(name)["status"]["readyReplicas"].as_u64().unwrap_or(0);
        u32::try_from(count).unwrap()
    }

    /// One of KubeNap's annotations.
    pub(crate) fn note(&self, name: &str, key: &str) -> Option<String> {
        let note = &self.deployment(name)["metadata"]["annotations"][format!("kubenap/{key}")];
        note.as_str().map(str::to_owned)
    }

    /// `kubenap/phase`; an app that never slept is awake.
    pub(crate) fn phase(&self, name: &str) -> String {
        self.note(name, "phase").unwrap_or_else(|| "awake".to_owned())
    }

    /// KubeNap's slices of one Service.
    pub(crate) fn slices(&self, service: &str) -> Vec<Value> {
        let ours = |slice: &Value| {
            let labels = &slice["metadata"]["labels"];
            labels["endpointslice.kubernetes.io/managed-by"] == "kubenap.dev"
                && labels["kubernetes.io/service-name"] == service
        };
        self.sandbox.list("endpointslices", Some(SPACE)).into_iter().filter(ours).collect()
    }

    /// The members that have slices of one Service.
    pub(crate) fn members_in(&self, service: &str) -> Vec<String> {
        let member = |slice: &Value| {
            slice["metadata"]["annotations"]["kubenap/member"].as_str().unwrap_or_default().to_owned()
        };
        self.slices(service).iter().map(member).collect()
    }

    /// The notes of all Events about an app that have this reason.
    pub(crate) fn events(&self, app: &str, reason: &str) -> Vec<String> {
        let about = |event: &Value| event["involvedObject"]["name"] == app && event["reason"] == reason;
        let events = self.sandbox.list("events", Some(SPACE));
        events
            .iter()
            .filter(|event| about(event))
            .map(|event| event["message"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Every write that KubeNap made since the `from`th, Leases left out.
    pub(crate) fn writes(&self, from: usize) -> Vec<Write> {
        let ours = |write: &Write| write.client == "kubenap" && write.plural != "leases";
        self.sandbox.log().into_iter().skip(from).filter(ours).collect()
    }

    /// Successful patches of an app's Deployment.
    pub(crate) fn patches(&self, app: &str) -> Vec<Write> {
        let mine = |write: &Write| write.plural == "deployments" && write.name == app && write.status == 200;
        self.writes(0).into_iter().filter(mine).collect()
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        let span: SignedDuration = self.now().duration_since(self.sandbox.settings().start);
        Duration::try_from(span).unwrap()
    }

    pub(crate) async fn pass(&self, seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Waits until it holds, for so many seconds; shows the world if it does not.
    pub(crate) async fn until(&self, what: &str, seconds: u64, holds: impl Fn() -> bool) {
        let end = self.elapsed() + Duration::from_secs(seconds);
        while !holds() {
            assert!(self.elapsed() < end, "not within {seconds} s: {what}\n{}", self.show());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Watches from here on that somebody answers for a Service: moments at which it had no endpoint are counted.
    pub(crate) fn guard(&self, service: &'static str) -> Guard {
        let holes = Arc::new(AtomicUsize::new(0));
        let (sandbox, counted) = (self.sandbox.clone(), Arc::clone(&holes));
        let task = tokio::spawn(async move {
            loop {
                if !is_answered_for(&sandbox, service) {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        Guard { holes, task }
    }

    pub(crate) async fn asleep(&self, name: &str) {
        self.until(&format!("{name} is asleep"), 90, || {
            self.phase(name) == "asleep" && self.replicas(name) == 0 && self.pods(name) == 0
        })
        .await;
    }

    pub(crate) async fn awake(&self, name: &str, replicas: u32) {
        self.until(&format!("{name} is awake with {replicas}"), 90, || {
            self.phase(name) == "awake"
                && self.replicas(name) == u64::from(replicas)
                && self.ready_replicas(name) == replicas
                && self.slices(name).is_empty()
        })
        .await;
    }

    pub(crate) fn pods(&self, name: &str) -> usize {
        let own = |pod: &&Value| pod["metadata"]["labels"]["app"] == name;
        self.sandbox.list("pods", Some(SPACE)).iter().filter(own).count()
    }

    /// What a member says of an app.
    pub(crate) fn label(running: &Running, name: &str) -> String {
        let all = running.context().board.all();
        all.into_iter().find(|status| status.name == name).map(|status| status.label).unwrap_or_default()
    }

    /// A member's metrics.
    pub(crate) async fn metrics(running: &Running) -> String {
        let reply = visitor::get(running.admin, "admin", "/metrics").await;
        assert_eq!(reply.status, 200);
        reply.body
    }

    /// Where a Service is reached.
    pub(crate) fn cluster_ip(&self, service: &str, port: u16) -> SocketAddr {
        let service = self.sandbox.get("services", SPACE, service).unwrap();
        SocketAddr::new(service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap(), port)
    }

    /// The cluster address of a Service of some namespace.
    pub(crate) fn cluster_ip_in(&self, space: &str, service: &str) -> IpAddr {
        let service = self.sandbox.get("services", space, service).unwrap();
        service["spec"]["clusterIP"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn show(&self) -> String {
        let mut text = format!("after {:?}\n", self.elapsed());
        for app in self.sandbox.list("deployments", Some(SPACE)) {
            let (meta, spec, status) = (&app["metadata"], &app["spec"], &app["status"]);
            text += &format!(
                "{}: replicas {}, generation {}, {}\n  {status}\n",
                meta["name"], spec["replicas"], meta["generation"], meta["annotations"]
            );
        }
        for slice in self.sandbox.list("endpointslices", Some(SPACE)) {
            let (meta, ends) = (&slice["metadata"], &slice["endpoints"]);
            text += &format!("{} {} {}\n", meta["name"], meta["annotations"], ends);
        }
        for event in self.sandbox.list("events", Some(SPACE)) {
            text += &format!("{} {}\n", event["reason"], event["message"]);
        }
        for write in self.sandbox.log().iter().rev().filter(|write| write.plural != "leases").take(12) {
            text +=
                &format!("{} {} {} {} {}\n", write.time, write.verb, write.plural, write.name, write.status);
        }
        text
    }
}

/// Counts moments without an endpoint, until it is dropped.
pub(crate) struct Guard {
    holes: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Guard {
    pub(crate) fn holes(&self) -> usize {
        self.holes.load(Ordering::Relaxed)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a proxy that follows EndpointSlices has somewhere to go.
fn is_answered_for(sandbox: &Sandbox, service: &str) -> bool {
    let slices = sandbox.list("endpointslices", Some(SPACE));
    let own =
        slices.iter().filter(|slice| slice["metadata"]["labels"]["kubernetes.io/service-name"] == service);
    let mut ends = own.filter_map(|slice| slice["endpoints"].as_array()).flatten();
    ends.any(|end| end["conditions"]["serving"] != false)
}

/// An app with a probe, quiet for ten seconds before a nap unless an annotation says otherwise.
pub(crate) fn deployment(name: &str, replicas: u32, annotations: &[(&str, &str)]) -> Value {
    let mut notes = json!({ "kubenap/idleAfter": "10s" });
    for (key, value) in annotations {
        notes[format!("kubenap/{key}")] = (*value).into();
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": SPACE, "labels": {"kubenap/enabled": "true"}, "annotations": notes},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name, "behind": "front"}},
                "spec": {"containers": [{"name": "app", "image": "app:1",
                    "ports": [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 9090}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}}]}}}})
}

/// A Service of one named port for the pods of `app`.
pub(crate) fn service(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": SPACE},
        "spec": {"selector": {"app": app}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}})
}

/// `NAME.shop.example` leads to the Service.
pub(crate) fn ingress(name: &str) -> Value {
    json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name, "namespace": SPACE},
        "spec": {"rules": [{"host": host(name), "http": {"paths": [{"path": "/", "pathType": "Prefix",
            "backend": {"service": {"name": name, "port": {"number": 80}}}}]}}]}})
}

pub(crate) fn host(name: &str) -> String {
    format!("{name}.shop.example")
}
