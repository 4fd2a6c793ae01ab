//! `kubenap demo`: a small cluster, the controller, an ingress and visitors in one process, and what happens to an app.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kubenap_controller::activity::{Credentials, SourceSpec};
use kubenap_controller::clock::Clock;
use kubenap_controller::run::start;
use kubenap_controller::settings::Settings;
use kubenap_core::decide::Timing;
use kubenap_core::proxy::WakeAddress;
use kubenap_sandbox::{Sandbox, Settings as SandboxSettings};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::args::{ClusterArgs, DemoArgs};
use crate::outcome::Outcome;
use crate::output;

/// The demo is over by then, whatever happens.
const LIMIT: Duration = Duration::from_secs(28);
const HOST: &str = "web.shop.example";

pub(crate) async fn run(args: DemoArgs, at: &ClusterArgs) -> anyhow::Result<Outcome> {
    if std::env::var_os("RUST_LOG").is_some() {
        super::run::log(at.log_format);
    }
    let story = Story { start: Instant::now() };
    let Ok(result) = tokio::time::timeout(LIMIT, tell(&story)).await else {
        bail!("the demo did not end in time");
    };
    let stage = result?;
    story.say("the end", "nothing was on the app's data path before its nap, and nothing is now");
    story.urls(&stage);
    if args.stay {
        story.say("staying", "until Ctrl-C; leave the app alone for 4 s and it naps again");
        tokio::signal::ctrl_c().await.context("cannot wait for Ctrl-C")?;
    }
    stage.running.leave().await;
    Ok(Outcome::Done)
}

/// Everything that runs.
struct Stage {
    sandbox: Sandbox,
    ingress: kubenap_sandbox::Ingress,
    api: SocketAddr,
    running: kubenap_controller::run::Running,
}

struct Story {
    start: Instant,
}

impl Story {
    fn say(&self, what: &str, how: &str) {
        output::line(&format!("{:6.2}s  {what:<10} {how}", self.start.elapsed().as_secs_f64()));
    }

    fn urls(&self, stage: &Stage) {
        let (ingress, admin, api) = (stage.ingress.address(), stage.running.admin, stage.api);
        self.say("try", &format!("curl -iL -H 'Host: {HOST}' http://{ingress}/hello?name=you"));
        self.say("try", &format!("curl http://{admin}/api/v1/apps    and    http://{admin}/metrics"));
        self.say("try", &format!("kubectl --server http://{api} -n shop get deployments,endpointslices"));
    }
}

async fn tell(story: &Story) -> anyhow::Result<Stage> {
    story.say("hello", "a small Kubernetes in this process, an ingress, KubeNap, and an app of two pods");
    let stage = set_up().await?;
    story.urls(&stage);
    let web: HttpClient<HttpConnector, Empty<Bytes>> = HttpClient::builder(TokioExecutor::new()).build_http();

    until(&stage, "ready", |deployment| deployment["status"]["readyReplicas"] == 2).await?;
    while ask(&web, &stage, "/hello").await?.0 != StatusCode::OK {
        sleep(Duration::from_millis(20)).await;
    }
    for visit in 1..=4 {
        let (status, _, body) = ask(&web, &stage, "/hello?name=visitor").await?;
        if visit == 1 {
            story.say("traffic", &format!("a visitor gets {status} from {}", pod_of(&body)));
        }
        sleep(Duration::from_millis(250)).await;
    }
    story.say("quiet", "nobody comes any more; idleAfter is 4 s");
    until(&stage, "drowsy", |deployment| phase(deployment) == "drowsy").await?;
    story.say("drowsy", "KubeNap is an endpoint now, and the pods still run: somebody always answers");
    until(&stage, "asleep", |deployment| phase(deployment) == "asleep").await?;
    story.say("asleep", &format!("0 replicas, to restore: {}", note(&stage, "kubenap/restoreReplicas")?));
    until(&stage, "without pods", |_| stage.sandbox.list("pods", Some("shop")).is_empty()).await?;
    story.say("asleep", "the last pod is gone; idle apps cost nothing");

    let asked = Instant::now();
    story.say("request", "GET /hello?name=you%20there");
    let (status, location, _) = ask(&web, &stage, "/hello?name=you%20there").await?;
    story.say("waking", &format!("the request was held for {:.2} s", asked.elapsed().as_secs_f64()));
    if status != StatusCode::TEMPORARY_REDIRECT {
        bail!("the sleeping app answered {status} instead of 307");
    }
    let location = location.context("the 307 has no Location")?;
    story.say("307", &format!("Location: {location}"));
    let (status, _, body) = ask(&web, &stage, &location).await?;
    if status != StatusCode::OK {
        bail!("the woken app answered {status} instead of 200");
    }
    story.say(
        "200",
        &format!("from {}, {:.2} s after the request", pod_of(&body), asked.elapsed().as_secs_f64()),
    );
    until(&stage, "awake", |deployment| phase(deployment) == "awake" && deployment["spec"]["replicas"] == 2)
        .await?;
    story.say("awake", "2 replicas again, and KubeNap is out of the way");
    Ok(stage)
}

async fn set_up() -> anyhow::Result<Stage> {
    let sandbox = Sandbox::start(SandboxSettings {
        sockets: true,
        ready_delay: Duration::from_millis(900),
        start: Clock::System.now(),
        ..SandboxSettings::default()
    });
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let ingress = sandbox.ingress(any).await.context("cannot start the ingress")?;
    let api = sandbox.listen(any).await.context("cannot serve the small Kubernetes")?;
    for object in objects() {
        sandbox.put(object).context("cannot set the stage")?;
    }
    let client = kube::Client::try_from(kube::Config::new(format!("http://{api}").parse()?))?;
    let metrics = format!("ingress=http://{}/metrics", ingress.metrics_address());
    let settings = Settings {
        namespaces: Vec::new(),
        advertise: vec![Ipv4Addr::LOCALHOST.into()],
        wake_ports: 16000..=29999,
        proxy_listen: vec![format!("any={any}").parse().map_err(|error| anyhow::anyhow!("{error}"))?],
        wake_service: WakeAddress::default(),
        substitute: true,
        manage_proxies: false,
        admin_listen: any,
        sources: vec![metrics.parse::<SourceSpec>()?],
        credentials: Credentials::default(),
        poll: Duration::from_millis(500),
        idle_after: Duration::from_secs(600),
        timing: Timing { drowsy: Duration::from_millis(1500), min_awake: Duration::from_secs(1) },
        naps_per_minute: Some(0),
        lease_namespace: "kubenap-system".to_owned(),
        identity: "demo".to_owned(),
        pod_uid: None,
        clock: Clock::System,
        propagation: Duration::from_millis(200),
        grace: Duration::from_secs(2),
        open_files: None,
    };
    let running = start(client, settings).await?;
    Ok(Stage { sandbox, ingress, api, running })
}

fn objects() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kubenap-system"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"rules": [{"host": HOST, "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "namespace": "shop",
                "labels": {"kubenap/enabled": "true"}, "annotations": {"kubenap/idleAfter": "4s"}},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}},
                    "spec": {"containers": [{"name": "web", "image": "web:1",
                        "ports": [{"name": "http", "containerPort": 8080}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}}]}}}}),
    ]
}

/// One request through the ingress, without following anything.
async fn ask(
    web: &HttpClient<HttpConnector, Empty<Bytes>>,
    stage: &Stage,
    target: &str,
) -> anyhow::Result<(StatusCode, Option<String>, String)> {
    let request = Request::get(format!("http://{}{target}", stage.ingress.address()))
        .header(header::HOST, HOST)
        .body(Empty::new())?;
    let answer = web.request(request).await.context("the ingress does not answer")?;
    let status = answer.status();
    let location =
        answer.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = answer.into_body().collect().await.context("the answer breaks off")?.to_bytes();
    Ok((status, location, String::from_utf8_lossy(&body).into_owned()))
}

async fn until(stage: &Stage, what: &str, holds: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(15);
    loop {
        let deployment = stage.sandbox.get("deployments", "shop", "web").context("the Deployment is gone")?;
        if holds(&deployment) {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("the app is not {what} after 15 s: {}", deployment["metadata"]["annotations"]);
        }
        sleep(Duration::from_millis(20)).await;
    }
}

fn phase(deployment: &Value) -> &str {
    deployment["metadata"]["annotations"]["kubenap/phase"].as_str().unwrap_or("awake")
}

fn note(stage: &Stage, name: &str) -> anyhow::Result<String> {
    let deployment = stage.sandbox.get("deployments", "shop", "web").context("the Deployment is gone")?;
    Ok(deployment["metadata"]["annotations"][name].as_str().unwrap_or_default().to_owned())
}

fn pod_of(body: &str) -> String {
    let answer: Value = serde_json::from_str(body).unwrap_or_default();
    answer["pod"]
        .as_str()
        .map_or_else(|| body.lines().next().unwrap_or_default().to_owned(), |pod| format!("pod {pod}"))
}
