//! Apps behind HTTPRoutes and IngressRoutes: each route's own series count, and a route that was never seen is a doubt.

use kubenap_controller::activity::{Names, RouteForm, TargetIngressRule, TargetRoute};
use kubenap_core::activity::Blind;

use crate::proxies::{Stage, quiet};

/// What Envoy Gateway's Envoy shows of these clusters.
fn envoy_gateway(clusters: &[(&str, u32)]) -> String {
    let lines = clusters.iter().map(|(name, count)| {
        format!(
            "envoy_cluster_upstream_rq_total{{envoy_cluster_name=\"{name}\"}} {count}\nenvoy_cluster_upstream_rq_active{{envoy_cluster_name=\"{name}\"}} 0\n"
        )
    });
    format!("envoy_server_live{{}} 1\n{}", lines.collect::<String>())
}

/// The app's Service behind these rules of one HTTPRoute, and behind nothing else.
fn by_route(stage: &mut Stage, name: &str, rules: &[usize], gateways: &[&str]) {
    let service = &mut stage.target.services[0];
    (service.ingress_ports, service.ingresses) = (Names::default(), Vec::new());
    let route = TargetRoute {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
        rules: rules.into(),
        gateways: gateways.iter().map(|name| (*name).to_owned()).collect(),
        form: RouteForm::Http,
    };
    let routes = service.routes.iter().cloned().chain([route]);
    service.routes = routes.collect();
}

#[tokio::test]
async fn envoy_gateway_s_clusters_are_found_by_the_rules_that_lead_to_the_app() {
    const RULE: &str = "httproute/shop/web-eg/rule/0";
    let mut stage = Stage::new(envoy_gateway(&[(RULE, 3), ("httproute/shop/web-eg/rule/1", 8)])).await;
    by_route(&mut stage, "web-eg", &[0], &["shop/gw"]);
    for _ in 0..5 {
        stage.tick().await;
    }
    // Another rule of the same route is for somebody else.
    let web = stage.shows(envoy_gateway(&[(RULE, 3), ("httproute/shop/web-eg/rule/1", 9)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (5, 0));
    // Without pods the cluster is gone, and its count with it.
    let web = stage.shows(envoy_gateway(&[])).await;
    assert_eq!((quiet(&web), web.blind.len()), (6, 0));
    // After the wake it counts from the beginning.
    let web = stage.shows(envoy_gateway(&[(RULE, 1)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
    stage.tick().await;
    // While another of its backends is refused, the rule's cluster has another name.
    let alone = format!("{RULE}/backend/0");
    let web = stage.shows(envoy_gateway(&[(alone.as_str(), 1)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
    // A rule of a longer number is another one.
    stage.tick().await;
    let web = stage.shows(envoy_gateway(&[("httproute/shop/web-eg/rule/01", 1)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (2, 0));
}

#[tokio::test]
async fn an_httproute_that_envoy_does_not_show_or_does_not_serve_alone_keeps_its_app_awake() {
    let shown = envoy_gateway(&[("httproute/shop/web-eg/rule/0", 3)]);
    let mut stage = Stage::new(shown.clone()).await;
    by_route(&mut stage, "web-eg", &[0], &["shop/gw"]);
    stage.tick().await;
    assert!(stage.tick().await.blind.is_empty());
    // A second route, of which nothing was ever seen: it may be another proxy's.
    by_route(&mut stage, "other", &[0], &["shop/gw"]);
    let web = stage.tick().await;
    assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);

    let mut stage = Stage::new(shown).await;
    by_route(&mut stage, "web-eg", &[0], &["shop/gw", "infra/gw"]);
    stage.tick().await;
    let web = stage.tick().await;
    assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);
    // Where clusters are named after their Services, all routes to one are the same cluster, in each gateway.
    stage.shows(envoy_gateway(&[("shop/web", 3)])).await;
    assert!(!stage.tick().await.blind.is_empty(), "the other gateway may be one that is not read");
    stage.target.services[0].routes = [].into();
    by_route(&mut stage, "web-eg", &[0], &["shop/gw"]);
    by_route(&mut stage, "other", &[0], &["shop/gw"]);
    assert!(stage.tick().await.blind.is_empty());
}

#[tokio::test]
async fn an_app_of_several_gateways_of_a_mesh_does_not_nap_by_the_one_that_is_read() {
    let mut stage = Stage::new(envoy_gateway(&[("outbound|80||web.shop.svc.cluster.local", 3)])).await;
    by_route(&mut stage, "web", &[0], &["istio-system/public"]);
    stage.target.services[0].routes[0].form = RouteForm::Virtual;
    stage.tick().await;
    assert!(stage.tick().await.blind.is_empty());
    let gateways = |stage: &mut Stage, names: &[&str]| {
        stage.target.services[0].routes[0].gateways = names.iter().map(|name| (*name).to_owned()).collect();
    };
    gateways(&mut stage, &["istio-system/private", "istio-system/public"]);
    assert_eq!(stage.tick().await.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);
    // Which ones a VirtualService is a part of is not known.
    gateways(&mut stage, &[""]);
    assert_eq!(stage.tick().await.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);
    // Another VirtualService of another gateway.
    gateways(&mut stage, &["istio-system/public"]);
    by_route(&mut stage, "inner", &[0], &["istio-system/private"]);
    stage.target.services[0].routes[1].form = RouteForm::Virtual;
    assert_eq!(stage.tick().await.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);
    stage.target.services[0].routes[1].gateways = ["istio-system/public".to_owned()].into();
    assert!(stage.tick().await.blind.is_empty());
}

#[tokio::test]
async fn what_comes_by_a_grpcroute_is_use_where_envoy_gateway_shows_it_and_a_doubt_elsewhere() {
    const HTTP: &str = "httproute/shop/web/rule/0";
    const GRPC: &str = "grpcroute/shop/web/rule/0";
    const INGRESS: &str = "shop-web-80@kubernetes";
    const ROUTE: &str = "httproute-shop-web-gw-traefik-main-ep-web-0-0a1b-svc-shop-web-0@kubernetesgateway";
    let mut stage = Stage::new(envoy_gateway(&[(HTTP, 3)])).await;
    by_route(&mut stage, "web", &[0], &["shop/gw"]);
    stage.tick().await;
    assert!(stage.tick().await.blind.is_empty());
    by_route(&mut stage, "web", &[0], &["shop/gw"]);
    stage.target.services[0].routes[1].form = RouteForm::Grpc;
    let web = stage.tick().await;
    assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries], "it was never seen");
    stage.shows(envoy_gateway(&[(HTTP, 3), (GRPC, 1)])).await;
    for _ in 0..4 {
        stage.tick().await;
    }
    let web = stage.shows(envoy_gateway(&[(HTTP, 3), (GRPC, 1)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (5, 0));
    let web = stage.shows(envoy_gateway(&[(HTTP, 3), (GRPC, 2)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));

    // Traefik's name for it would be a guess.
    let mut stage = Stage::new(traefik(&[(INGRESS, 3), (ROUTE, 3)])).await;
    by_route(&mut stage, "web", &[0], &["shop/gw"]);
    stage.tick().await;
    assert!(stage.tick().await.blind.is_empty());
    stage.target.services[0].routes[0].form = RouteForm::Grpc;
    assert!(!stage.tick().await.blind.is_empty());
}

#[tokio::test]
async fn an_app_to_which_a_route_leads_that_no_metric_tells_of_stays_awake() {
    let shown = traefik(&[("shop-web-80@kubernetes", 3)]);
    let mut stage = Stage::new(shown).await;
    stage.tick().await;
    assert!(stage.tick().await.blind.is_empty());
    stage.target.services[0].unseen = true;
    let web = stage.tick().await;
    assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::NotMapped]);
}

#[tokio::test]
async fn an_app_with_an_ingress_to_which_a_mesh_s_gateway_leads_too_naps_only_by_what_the_mesh_shows() {
    const INGRESS: &str = "shop-web-80@kubernetes";
    let mut stage = Stage::new(traefik(&[(INGRESS, 3)])).await;
    stage.target.services[0].routes = [TargetRoute {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        rules: [0].into(),
        gateways: ["shop/gw".to_owned()].into(),
        form: RouteForm::Virtual,
    }]
    .into();
    stage.tick().await;
    assert_eq!(stage.tick().await.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);
    // By this name it is behind Contour.
    stage.shows(format!("{}{}", traefik(&[(INGRESS, 3)]), envoy_gateway(&[("shop_web_80", 3)]))).await;
    assert_eq!(stage.tick().await.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);
    let cluster = envoy_gateway(&[("outbound|80||web.shop.svc.cluster.local", 3)]);
    stage.shows(format!("{}{cluster}", traefik(&[(INGRESS, 3)]))).await;
    let web = stage.tick().await;
    assert!(web.blind.is_empty(), "{:?}", web.blind);
    stage.tick().await;
    // What goes to a subset of it is a use of it, too.
    let of = |count| {
        let clusters = [
            ("outbound|80||web.shop.svc.cluster.local", 3),
            ("outbound|80|v1|web.shop.svc.cluster.local", count),
        ];
        format!("{}{}", traefik(&[(INGRESS, 3)]), envoy_gateway(&clusters))
    };
    assert_eq!(quiet(&stage.shows(of(1)).await), 0);
    assert_eq!(quiet(&stage.tick().await), 1);
    assert_eq!(quiet(&stage.shows(of(2)).await), 0);
}

/// What Traefik shows of these services.
fn traefik(services: &[(&str, u32)]) -> String {
    let lines = services.iter().map(|(name, count)| {
        format!("traefik_service_requests_total{{code=\"200\",service=\"{name}\"}} {count}\n")
    });
    format!("traefik_config_last_reload_success 1\n{}", lines.collect::<String>())
}

/// The app's Service behind this rule of an IngressRoute, too.
fn by_rule(stage: &mut Stage, digest: &str) {
    let service = &mut stage.target.services[0];
    let (namespace, name) = ("shop".to_owned(), "ir".to_owned());
    let rule = service.ingress_routes.len();
    let rule = TargetIngressRule { namespace, name, rule, digest: digest.to_owned() };
    let rules = service.ingress_routes.iter().cloned().chain([rule]);
    service.ingress_routes = rules.collect();
}

#[tokio::test]
async fn what_comes_by_an_ingressroute_is_use_also_of_an_app_that_has_an_ingress() {
    const INGRESS: &str = "shop-web-80@kubernetes";
    const RULE: &str = "shop-ir-00112233445566778899@kubernetescrd";
    let mut stage = Stage::new(traefik(&[(INGRESS, 3)])).await;
    by_rule(&mut stage, "00112233445566778899");
    stage.tick().await;
    // Nothing of the rule was ever seen: perhaps it goes by a name that is not understood.
    assert_eq!(stage.tick().await.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries]);
    let web = stage.shows(traefik(&[(INGRESS, 3), (RULE, 1)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
    for _ in 0..5 {
        stage.tick().await;
    }
    let web = stage.shows(traefik(&[(INGRESS, 3), (RULE, 1), ("shop-ir-99@kubernetescrd", 5)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (6, 0), "that is another rule's");
    let web = stage.shows(traefik(&[(INGRESS, 3), (RULE, 2)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
    // A rule with several services is told by each of them.
    by_rule(&mut stage, "9988");
    for _ in 0..3 {
        stage.tick().await;
    }
    let all = [(INGRESS, 3), (RULE, 2), ("shop-web-80@kubernetescrd", 1)];
    let web = stage.shows(traefik(&all)).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
    assert_eq!(quiet(&stage.shows(traefik(&all)).await), 1);
}

#[tokio::test]
async fn what_comes_by_an_httproute_that_traefik_serves_is_use() {
    const INGRESS: &str = "shop-web-80@kubernetes";
    const ROUTE: &str = "httproute-shop-web-gw-traefik-main-ep-web-0-0a1b-svc-shop-web-0@kubernetesgateway";
    let mut stage = Stage::new(traefik(&[(INGRESS, 3)])).await;
    let routes = TargetRoute {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        rules: [0].into(),
        gateways: ["shop/gw".to_owned()].into(),
        form: RouteForm::Http,
    };
    stage.target.services[0].routes = [routes].into();
    stage.tick().await;
    let web = stage.tick().await;
    assert_eq!(web.blind.into_iter().collect::<Vec<_>>(), [Blind::NoSeries], "who serves it is not known");
    let web = stage.shows(traefik(&[(INGRESS, 3), (ROUTE, 1)])).await;
    assert_eq!((quiet(&web), web.blind.len()), (0, 0));
    stage.tick().await;
    assert_eq!(quiet(&stage.shows(traefik(&[(INGRESS, 3), (ROUTE, 2)])).await), 0);
}
