//! What each proxy shows, line by line as the real ones do, and what is made of it.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use jiff::Timestamp;
use kubenap_controller::activity::{Ask, Endpoint, IngressSource, Names, Target, TrafficMetricsSource};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;

use crate::stage::target;

pub(crate) struct Stage {
    text: Arc<Mutex<String>>,
    source: IngressSource,
    pub(crate) target: Target,
    now: i64,
}

const START: i64 = 1_700_000_000;
const TICK: i64 = 15;

impl Stage {
    pub(crate) async fn new(text: String) -> Self {
        let text = Arc::new(Mutex::new(text));
        let shown = |State(text): State<Arc<Mutex<String>>>| async move { text.lock().unwrap().clone() };
        let router = Router::new().route("/", get(shown)).with_state(Arc::clone(&text));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move { axum::serve(listener, router).await });
        let endpoint = Endpoint::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        Self { text, source: IngressSource::at(vec![endpoint]), target: target("shop", "web"), now: START }
    }

    pub(crate) async fn shows(&mut self, text: String) -> Activity {
        *self.text.lock().unwrap() = text;
        self.tick().await
    }

    pub(crate) async fn tick(&mut self) -> Activity {
        self.now += TICK;
        let now = Timestamp::from_second(self.now).unwrap();
        let ask = Ask { now, targets: [self.target.clone()].into(), history: Duration::from_hours(1) };
        self.source.poll(&ask).await.unwrap().of(&AppId::new("shop", "web"))
    }
}

pub(crate) fn quiet(activity: &Activity) -> u64 {
    // An answer takes a moment, so that a tick is never whole.
    (activity.quiet_since(Timestamp::MIN).as_secs() + 7) / u64::try_from(TICK).unwrap()
}

/// Each proxy: what it shows from its start, the app's series, the controller of its class.
const PROXIES: [(&str, &str, &str); 8] = [
    (
        "process_start_time_seconds 1699990000\ntraefik_config_last_reload_success 1",
        r#"traefik_service_requests_total{code="200",method="GET",protocol="http",service="shop-web-80@kubernetes"}"#,
        "traefik.io/ingress-controller",
    ),
    (
        "process_start_time_seconds 1699990000\nnginx_ingress_controller_config_last_reload_successful{controller_class=\"k8s.io/ingress-nginx\"} 1",
        r#"nginx_ingress_controller_requests{canary="",controller_namespace="ingress-nginx",host="web.example",ingress="web",method="GET",namespace="shop",path="/",service="web",status="200"}"#,
        "k8s.io/ingress-nginx",
    ),
    (
        "nginx_ingress_nginx_http_requests_total{class=\"nginx-f5\"} 14",
        r#"nginx_ingress_controller_upstream_server_response_latency_ms_count{class="nginx-f5",code="200",pod_name="web-1",resource_name="web",resource_namespace="shop",resource_type="ingress",server="10.88.0.2:8080",service="web",upstream="shop-web-web.example-web-80"}"#,
        "nginx.org/ingress-controller",
    ),
    (
        "envoy_server_live{} 1",
        r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="shop_web_80"}"#,
        "projectcontour.io/ingress-controller",
    ),
    (
        "envoy_server_live{} 1",
        r#"envoy_cluster_upstream_rq_total{cluster_name="outbound|80||web.shop.svc.cluster.local"}"#,
        "istio.io/ingress-controller",
    ),
    (
        "istio_build{component=\"proxy\",tag=\"1.28.0\"} 1",
        r#"istio_requests_total{reporter="source",destination_service="web.shop.svc.cluster.local",destination_service_namespace="unknown",response_code="200"}"#,
        "istio.io/ingress-controller",
    ),
    (
        "haproxy_process_start_time_seconds 1699990000",
        r#"haproxy_backend_sessions_total{proxy="shop_svc_web_http"}"#,
        "haproxy.org/ingress-controller/haproxy",
    ),
    (
        "kong_datastore_reachable 1",
        r#"kong_http_requests_total{service="shop.web.pnum-80",route="x",code="200",source="service",workspace="default",consumer=""}"#,
        "ingress-controllers.konghq.com/kong",
    ),
];

#[tokio::test]
async fn every_proxy_s_series_are_found_by_the_app_s_services() {
    for (presence, series, controller) in PROXIES {
        let mut stage = Stage::new(format!("{presence}\n{series} 3\n")).await;
        stage.target.services[0].controllers = Names::from([controller.to_owned()]);
        stage.tick().await;
        let mut web = stage.tick().await;
        for _ in 0..4 {
            web = stage.tick().await;
        }
        assert_eq!((quiet(&web), web.blind.len()), (5, 0), "{series}");
        let web = stage.shows(format!("{presence}\n{series} 4\n")).await;
        assert_eq!((quiet(&web), web.blind.len()), (0, 0), "{series}");
        // The app of another proxy is not this one's to speak of.
        stage.target.services[0].controllers = Names::from(["example.com/other".to_owned()]);
        let web = stage.tick().await;
        assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::NotMapped], "{series}");
    }
}

#[tokio::test]
async fn only_where_a_request_makes_the_series_does_none_mean_silence() {
    for (at, (presence, series, _)) in PROXIES.into_iter().enumerate() {
        let other = series.replace("shop", "blog").replace("web", "other");
        let mut stage = Stage::new(format!("{presence}\n{other} 3\n")).await;
        stage.tick().await;
        let web = stage.tick().await;
        let expected: &[Blind] = if at < 2 { &[] } else { &[Blind::NoSeries] };
        assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), expected, "{series}");
    }
}

#[tokio::test]
async fn an_open_request_keeps_the_app_awake_where_the_proxy_shows_it() {
    for (presence, count, open) in [
        (
            "envoy_server_live{} 1",
            r#"envoy_cluster_upstream_rq_total{envoy_cluster_name="shop_web_80"}"#,
            r#"envoy_cluster_upstream_rq_active{envoy_cluster_name="shop_web_80"}"#,
        ),
        (
            "haproxy_process_start_time_seconds 1699990000",
            r#"haproxy_backend_sessions_total{proxy="shop_svc_web_80"}"#,
            r#"haproxy_backend_current_sessions{proxy="shop_svc_web_80"}"#,
        ),
        (
            // Over TLS one more has begun than ended.
            "traefik_config_last_reload_success 1",
            r#"traefik_service_requests_total{code="200",service="shop-web-80@kubernetes"}"#,
            r#"traefik_service_requests_tls_total{service="shop-web-80@kubernetes"} 1
traefik_service_requests_tls_total{service="shop-web-80@kubernetes",tls_version="1.2"}"#,
        ),
    ] {
        let mut stage = Stage::new(format!("{presence}\n{count} 1\n{open} 1\n")).await;
        for _ in 0..10 {
            assert_eq!(quiet(&stage.tick().await), 0, "a connection is open");
        }
        stage.shows(format!("{presence}\n{count} 1\n{open} 0\n")).await;
        stage.tick().await;
        assert_eq!(quiet(&stage.tick().await), 3, "since it was seen last");
    }
}

#[tokio::test]
async fn series_that_go_with_a_pod_and_start_over_are_told_from_use() {
    let (presence, series, _) = PROXIES[2];
    let second = series.replace("10.88.0.2", "10.88.0.3").replace("web-1", "web-2");
    let mut stage = Stage::new(format!("{presence}\n{series} 7\n{second} 5\n")).await;
    stage.tick().await;
    for _ in 0..4 {
        stage.tick().await;
    }
    // The second pod goes, and its count with it.
    let web = stage.shows(format!("{presence}\n{series} 7\n")).await;
    assert_eq!((quiet(&web), web.blind.len()), (5, 0));
    // All of them go: that is no use either, and nothing is forgotten.
    let web = stage.shows(format!("{presence}\n")).await;
    assert_eq!((quiet(&web), web.blind.len()), (6, 0));
    // A woken pod counts from the beginning.
    let woken = series.replace("10.88.0.2", "10.88.0.9");
    let web = stage.shows(format!("{presence}\n{woken} 1\n")).await;
    assert_eq!(quiet(&web), 0);
}

#[tokio::test]
async fn what_a_proxy_answers_for_a_sleeping_app_is_no_use_of_it() {
    for (at, code) in [(0, "502"), (1, "503"), (1, "307"), (2, "502")] {
        let (presence, series, _) = PROXIES[at];
        let refused = series.replace("\"200\"", &format!("\"{code}\""));
        let mut stage = Stage::new(format!("{presence}\n{series} 7\n")).await;
        for _ in 0..5 {
            stage.tick().await;
        }
        let more = format!("{presence}\n{series} 7\n{refused} 1\n");
        stage.target.pods = Some(Names::default());
        assert_eq!(quiet(&stage.shows(more.clone()).await), 5, "{code} while there is no pod");
        stage.target.pods = Some(Names::from(["web-1".to_owned()]));
        assert_eq!(quiet(&stage.tick().await), 1, "an app with pods may have answered that itself");
    }
}
