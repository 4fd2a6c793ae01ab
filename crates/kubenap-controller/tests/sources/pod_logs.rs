//! Logs of containers through the API server: followed, reconnected without loss or double count, and never trusted blindly.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubenap_controller::activity::{
    Ask, Credentials, Samples, SourceError, SourceSpec, Target, TrafficMetricsSource, build,
};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;
use kubenap_sandbox::{Effect, Fault, Sandbox, Settings};
use serde_json::json;
use tokio::time::sleep;

use crate::stage::target;

const TICK: Duration = Duration::from_secs(15);
const LABELS: &str = "app.kubernetes.io/name=ingress-nginx";

struct Stage {
    sandbox: Sandbox,
    source: Arc<dyn TrafficMetricsSource>,
    targets: Vec<Target>,
}

impl Stage {
    async fn new(replicas: u32) -> Self {
        let sandbox = Sandbox::start(Settings::default());
        let labels = json!({"app.kubernetes.io/name": "ingress-nginx"});
        let proxy = json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "proxy", "namespace": "ingress"},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "controller", "image": "proxy:1"}]}}}});
        sandbox.put(proxy).unwrap();
        sleep(Duration::from_secs(2)).await;
        let source = source(&sandbox);
        let stage = Self { sandbox, source, targets: vec![target("shop", "web"), target("shop", "api")] };
        stage.others();
        stage
    }

    fn pods(&self) -> Vec<String> {
        let pods = self.sandbox.list("pods", Some("ingress"));
        pods.iter().map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// What ingress-nginx writes now.
    fn line(&self, pod: &str, upstream: &str) {
        let at = self.sandbox.now().strftime("%d/%b/%Y:%H:%M:%S +0000");
        let line = format!(
            "10.0.0.1 - - [{at}] \"GET / HTTP/1.1\" 200 12 \"-\" \"curl/8\" 80 0.001 [{upstream}] [] 10.88.0.2:80 12 0.001 200 abc"
        );
        self.sandbox.print("ingress", pod, &line).unwrap();
    }

    /// Every pod serves something else.
    fn others(&self) {
        for pod in self.pods() {
            self.line(&pod, "shop-other-80");
        }
    }

    async fn ask(&self) -> Result<Samples, SourceError> {
        let ask = Ask {
            now: self.sandbox.now(),
            targets: self.targets.clone().into(),
            history: Duration::from_hours(1),
        };
        self.source.poll(&ask).await
    }

    /// Ticks in which every pod serves something else.
    async fn ticks(&self, count: usize) -> Activity {
        let mut last = None;
        for _ in 0..count {
            sleep(TICK).await;
            self.others();
            last = Some(self.ask().await.unwrap());
        }
        last.unwrap().of(&AppId::new("shop", "web"))
    }
}

fn source(sandbox: &Sandbox) -> Arc<dyn TrafficMetricsSource> {
    let router = sandbox.router();
    let service = tower::ServiceBuilder::new()
        .map_request(|request: http::Request<kube::client::Body>| request.map(axum::body::Body::new))
        .service(router);
    let client = kube::Client::new(service, "default");
    let spec = SourceSpec::read("logs", json!({"kind": "logs", "pods": LABELS})).unwrap();
    build(&[spec], &Credentials::default(), &client).unwrap().remove(0)
}

fn quiet(activity: &Activity) -> u64 {
    activity.quiet_since(Timestamp::MIN).as_secs() / TICK.as_secs()
}

#[tokio::test(start_paused = true)]
async fn a_line_is_activity_once_however_often_the_streams_are_cut() {
    let stage = Stage::new(2).await;
    stage.ticks(2).await;
    let pods = stage.pods();
    stage.line(&pods[0], "shop-web-80");
    let used = stage.ticks(1).await;
    assert!(quiet(&used) <= 1, "{used:?}");
    for cuts in 1..=6 {
        stage.sandbox.cut_logs();
        let later = stage.ticks(2).await;
        assert_eq!(later.last_seen, used.last_seen, "the same line again, after {cuts} cuts");
        assert!(later.blind.is_empty(), "{later:?}");
    }
    assert!(quiet(&stage.ticks(1).await) >= 12);
}

#[tokio::test(start_paused = true)]
async fn no_line_is_lost_that_is_written_while_the_stream_is_away() {
    let stage = Stage::new(1).await;
    stage.ticks(8).await;
    let pod = &stage.pods()[0];
    for _ in 0..20 {
        let quiet_for = quiet(&stage.ticks(4).await);
        assert!(quiet_for >= 2, "{quiet_for}");
        stage.sandbox.cut_logs();
        // Before the stream is opened again, and in the second of the line before it.
        stage.line(pod, "shop-web-80");
        let used = stage.ticks(1).await;
        assert!(quiet(&used) <= 1, "{used:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_log_is_read_to_its_end_and_that_is_a_sign_of_life() {
    let stage = Stage::new(1).await;
    let before = stage.ticks(2).await;
    for _ in 0..20 {
        sleep(TICK).await;
        stage.ask().await.unwrap();
    }
    let web = stage.ask().await.unwrap().of(&AppId::new("shop", "web"));
    assert_eq!((quiet(&web), web.blind.len()), (quiet(&before) + 20, 0));
}

#[tokio::test(start_paused = true)]
async fn what_envoy_has_not_written_yet_is_not_taken_for_silence() {
    let stage = Stage::new(1).await;
    let pod = &stage.pods()[0];
    let asked_of = |samples: &Samples| samples.of(&AppId::new("shop", "web"));
    let behind = |web: &Activity| stage.sandbox.now().duration_since(web.watermark).as_secs();
    stage.ticks(4).await;
    assert!(behind(&asked_of(&stage.ask().await.unwrap())) <= 1, "NGINX writes at once");
    for _ in 0..8 {
        let at = stage.sandbox.now();
        // It is written with the next flush, up to ten seconds after the request.
        sleep(Duration::from_secs(10)).await;
        let line = format!(
            "[{at}] \"GET / HTTP/1.1\" 200 - via_upstream - \"-\" 0 2 1 1 \"-\" \"curl/8\" \"id\" \"web.shop\" \"10.88.0.2:80\" outbound|80||web.shop.svc.cluster.local 10.88.0.1:1"
        );
        stage.sandbox.print("ingress", pod, &line).unwrap();
        let web = asked_of(&stage.ask().await.unwrap());
        assert!(web.last_seen >= at && web.blind.is_empty(), "{web:?}");
        sleep(Duration::from_secs(9)).await;
        let web = asked_of(&stage.ask().await.unwrap());
        assert!(behind(&web) >= 10, "a line may be on its way: {web:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_rotation_that_took_the_last_line_along_is_a_new_beginning() {
    let stage = Stage::new(1).await;
    stage.ticks(10).await;
    let pod = &stage.pods()[0];
    stage.sandbox.cut_logs();
    stage.sandbox.rotate_log("ingress", pod).unwrap();
    let after = stage.ticks(1).await;
    assert!(quiet(&after) <= 1, "nobody knows what went with it: {after:?}");
    assert!(quiet(&stage.ticks(6).await) >= 6);
}

#[tokio::test(start_paused = true)]
async fn a_new_replica_of_the_proxy_takes_no_quiet_away_and_its_lines_count() {
    let stage = Stage::new(1).await;
    let before = quiet(&stage.ticks(20).await);
    let grow = |app: &mut serde_json::Value| app["spec"]["replicas"] = json!(2);
    stage.sandbox.edit("deployments", "ingress", "proxy", grow).unwrap();
    sleep(Duration::from_secs(2)).await;
    let after = stage.ticks(1).await;
    assert!(quiet(&after) >= before, "its log is whole: {after:?}");
    let pods = stage.pods();
    for pod in &pods {
        stage.line(pod, "shop-web-80");
        assert!(quiet(&stage.ticks(1).await) <= 1, "{pod}");
        assert!(quiet(&stage.ticks(4).await) >= 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_cannot_be_read_makes_it_blind_and_heals() {
    let stage = Stage::new(2).await;
    let before = stage.ticks(4).await;
    let pods = stage.pods();
    let deny = Fault::new(Effect::Deny).verb("get").resource("pods/log");
    stage.sandbox.faults().inject(deny);
    stage.sandbox.cut_logs();
    sleep(TICK).await;
    let error = loop {
        sleep(TICK).await;
        if let Err(error) = stage.ask().await {
            break error.to_string();
        }
    };
    assert!(error.contains("cannot read the log of ingress/") && error.contains("hint: "), "{error}");
    stage.sandbox.faults().clear();
    stage.line(&pods[0], "shop-web-80");
    let used = stage.ticks(1).await;
    assert!(used.last_seen > before.last_seen && used.blind.is_empty(), "{used:?}");
}

#[tokio::test(start_paused = true)]
async fn no_pod_at_all_is_an_error_that_names_the_labels() {
    let stage = Stage::new(0).await;
    let error = stage.ask().await.unwrap_err().to_string();
    assert!(error.contains(LABELS) && error.contains("hint: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_controller_reads_the_last_hour_by_the_lines_own_times() {
    let mut stage = Stage::new(1).await;
    let pod = stage.pods()[0].clone();
    stage.line(&pod, "shop-web-80");
    let before = stage.ticks(10).await;
    stage.source = source(&stage.sandbox);
    let after = stage.ticks(1).await;
    let moved = after.last_seen.duration_since(before.last_seen).abs();
    assert!(moved.as_secs() <= 2, "{before:?} {after:?}");
    assert!(!after.blind.contains(&Blind::SourceDown));
}
