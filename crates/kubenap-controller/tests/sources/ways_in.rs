//! Which ways in the lines of an access log tell of: by an entry point with TLS, by any host, and by routes that are no Ingresses.
#![expect(clippy::unwrap_used, reason = "a scenario that cannot be played has failed")]

use jiff::Timestamp;
use kubenap_controller::activity::{Names, RouteForm, TargetIngressRule, TargetRoute};
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;

use crate::logs::{Stage, TICK, quiet};

/// A log of one program alone, whose lines tell apart no more than this name.
struct Log {
    stage: Stage,
    line: fn(&str, Timestamp) -> String,
}

impl Log {
    fn new(name: &str, line: fn(&str, Timestamp) -> String) -> Self {
        let stage = Stage::new(name, &[]);
        stage.empty();
        Self { stage, line }
    }

    /// A tick with a request for each of these.
    async fn tick(&mut self, names: &[&str]) -> Activity {
        let at = Timestamp::from_second(self.stage.now + TICK).unwrap();
        for name in names {
            self.stage.write(&format!("{}\n", (self.line)(name, at)));
        }
        let samples = self.stage.tick().await.unwrap();
        samples.of(&AppId::new("shop", "web"))
    }

    async fn ticks(&mut self, count: usize, names: &[&str]) -> Activity {
        for _ in 1..count {
            self.tick(names).await;
        }
        self.tick(names).await
    }

    fn leads(&mut self, form: RouteForm) {
        let route = TargetRoute {
            namespace: "edge".to_owned(),
            name: "front".to_owned(),
            rules: [0].into(),
            gateways: ["edge/public".to_owned()].into(),
            form,
        };
        self.stage.targets[0].services[0].routes = [route].into();
    }
}

/// Traefik's common log, by router.
fn clf(router: &str, at: Timestamp) -> String {
    let at = at.strftime("%d/%b/%Y:%H:%M:%S +0000");
    format!(
        r#"10.0.0.1 - - [{at}] "GET / HTTP/1.1" 200 17 "-" "curl/8" 3 "{router}" "http://10.88.0.2:8080" 2ms"#
    )
}

/// NGINX's `vhost_combined`.
fn vhost(host: &str, at: Timestamp) -> String {
    let at = at.strftime("%d/%b/%Y:%H:%M:%S +0000");
    format!(r#"{host}:443 10.0.0.1 - - [{at}] "GET / HTTP/1.1" 200 12 "-" "curl/8""#)
}

/// Envoy's own text.
fn envoy(host: &str, at: Timestamp) -> String {
    format!(r#"[{at}] "GET / HTTP/1.1" 200 - 0 2 1 1 "10.0.0.1" "curl/8" "id" "{host}" "10.88.0.2:8080""#)
}

/// Envoy's JSON, by cluster; where it is none, of a request to a host that leads nowhere.
fn cluster(name: &str, at: Timestamp) -> String {
    let name = if name == "null" { name.to_owned() } else { format!("\"{name}\"") };
    format!(r#"{{"start_time":"{at}","duration":1,"upstream_cluster":{name},":authority":"scan.example"}}"#)
}

/// Traefik's JSON, by service.
fn traefik(service: &str, at: Timestamp) -> String {
    format!(r#"{{"StartUTC":"{at}","DownstreamStatus":200,"RequestPath":"/","ServiceName":"{service}"}}"#)
}

const OTHER: &str = "shop-other-other-example@kubernetes";

fn blind(activity: &Activity) -> Vec<Blind> {
    activity.blind.iter().copied().collect()
}

#[tokio::test]
async fn what_comes_by_https_is_use_where_traefik_puts_the_entry_point_before_the_router() {
    for entry in ["websecure", "web-secure", "my-own-web-secure"] {
        let mut log = Log::new(&format!("entry-{entry}"), clf);
        let secure = format!("{entry}-shop-web-web-example@kubernetes");
        assert_eq!(blind(&log.ticks(3, &[OTHER]).await), [Blind::NoSeries], "it was never seen");
        let web = log.tick(&[&secure]).await;
        assert_eq!((quiet(&web), web.blind.len()), (0, 0), "by {entry} alone");
        log.tick(&["shop-web-web-example@kubernetes", OTHER]).await;
        assert_eq!(quiet(&log.ticks(5, &[OTHER]).await), 5);
        for _ in 0..5 {
            assert_eq!(quiet(&log.tick(&[&secure, OTHER]).await), 0, "by {entry}");
        }
        let others = format!("{entry}-shop-web2-web-example@kubernetes");
        assert_eq!(quiet(&log.ticks(5, &[&others]).await), 5, "that is another Ingress's");
    }
}

#[tokio::test]
async fn what_comes_by_an_ingress_with_a_very_long_path_is_use() {
    let mut log = Log::new("long", clf);
    let router = format!("websecure-shop-web-web-example{}@kubernetes", "-segment".repeat(60));
    log.tick(&[&router, OTHER]).await;
    assert_eq!(quiet(&log.ticks(4, &[OTHER]).await), 4);
    assert_eq!(quiet(&log.tick(&[&router, OTHER]).await), 0);
}

#[tokio::test]
async fn what_comes_for_a_host_that_no_ingress_spells_out_is_not_silence_in_a_log_of_hosts() {
    for (name, line) in [("vhost", vhost as fn(&str, Timestamp) -> String), ("authority", envoy)] {
        let mut log = Log::new(&format!("open-{name}"), line);
        log.stage.targets[0].services[0].hosts = Names::from(["web.shop.example".to_owned()]);
        log.tick(&["web.shop.example", "other.example"]).await;
        let web = log.ticks(5, &["other.example"]).await;
        assert_eq!((quiet(&web), web.blind.len()), (5, 0), "{name}");
        assert_eq!(quiet(&log.tick(&["Web.shop.example.", "other.example"]).await), 0, "by its full name");
        log.stage.targets[0].services[0].open_hosts = true;
        assert_eq!(blind(&log.ticks(3, &["a.tenants.example"]).await), [Blind::NotMapped]);
        log.stage.targets[0].services[0].open_hosts = false;
        assert_eq!(log.tick(&["other.example"]).await.blind.len(), 0);
        log.leads(RouteForm::Http);
        log.stage.targets[0].services[0].open_routes = true;
        assert_eq!(blind(&log.ticks(3, &["hr.shop.example"]).await), [Blind::NotMapped]);
    }
}

#[tokio::test]
async fn an_app_for_any_host_naps_by_a_log_that_names_clusters_whoever_asks_for_a_host_that_leads_nowhere() {
    const RULE: &str = "httproute/edge/front/rule/0";
    let mut log = Log::new("clusters", cluster);
    log.leads(RouteForm::Http);
    log.stage.targets[0].services[0].open_routes = true;
    log.tick(&[RULE]).await;
    let web = log.ticks(5, &["other", "null", "-"]).await;
    assert_eq!((quiet(&web), web.blind.len()), (5, 0));
    assert_eq!(quiet(&log.tick(&[RULE]).await), 0);
}

#[tokio::test]
async fn what_comes_by_an_ingressroute_or_a_route_of_the_gateway_api_is_use_in_traefik_s_common_log() {
    let mut log = Log::new("routers", clf);
    let rule = TargetIngressRule {
        namespace: "shop".to_owned(),
        name: "my.ir".to_owned(),
        rule: 1,
        digest: "00112233445566778899".to_owned(),
    };
    log.stage.targets[0].services[0].ingress_routes = [rule].into();
    log.leads(RouteForm::Http);
    log.tick(&["shop-web-web-example@kubernetes"]).await;
    for router in [
        "shop-my-ir-00112233445566778899@kubernetescrd",
        "websecure-shop-my-ir-00112233445566778899@kubernetescrd",
        "shop_my.ir_1@kubernetescrd",
        "websecure-shop_my.ir_1@kubernetescrd",
        "httproute-edge-front-gw-traefik-traefik-ep-web-0-01a674477cdeb774cd9e@kubernetesgateway",
        "edge-front-gw-web-0-01a674477cdeb774cd9e@kubernetesgateway",
    ] {
        assert_eq!(quiet(&log.ticks(4, &[OTHER]).await), 4);
        assert_eq!(quiet(&log.tick(&[router, OTHER]).await), 0, "{router}");
    }
    let others = "shop-my-ir-99887766554433221100@kubernetescrd";
    assert_eq!(quiet(&log.ticks(4, &[others]).await), 4, "that is another rule's");
}

#[tokio::test]
async fn a_grpcroute_that_traefik_would_name_otherwise_is_a_doubt_until_a_cluster_shows_it() {
    let mut log = Log::new("grpc", traefik);
    let web = "shop-web-80@kubernetes";
    log.tick(&[web]).await;
    assert_eq!(log.ticks(2, &["other"]).await.blind.len(), 0);
    log.leads(RouteForm::Grpc);
    assert_eq!(blind(&log.ticks(2, &["other"]).await), [Blind::NotMapped]);
    log.line = cluster;
    let web = log.tick(&["grpcroute/edge/front/rule/0"]).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
}
