//! Which apps a source can speak for, and which it is blind to.

use kubenap_controller::activity::Names;
use kubenap_core::activity::Blind;

use crate::stage::{Source, Stage, target, traefik};
use crate::stand_in::{Kind, Proxy};

const BOTH: [Source; 2] = [Source::Prometheus, Source::Ingress];

#[tokio::test]
async fn an_app_without_an_ingress_is_not_covered_by_a_proxy() {
    for kind in BOTH {
        let mut stage = Stage::new(kind).await;
        stage.targets[0].services[0].ingress_ports.clear();
        stage.ticks(5).await;
        assert_eq!(stage.blind("shop/web"), [Blind::NoSeries]);
        assert_eq!(stage.blind("shop/unheard-of"), [Blind::NoSeries]);
    }
}

#[tokio::test]
async fn another_controller_s_ingress_is_not_covered() {
    for kind in BOTH {
        let mut stage = Stage::new(kind).await;
        for (controller, blind) in [
            ("traefik.io/ingress-controller", vec![]),
            ("k8s.io/ingress-nginx", vec![Blind::NotMapped]),
            ("haproxy.org/ingress", vec![Blind::NotMapped]),
        ] {
            stage.targets[0].services[0].controllers = Names::from([controller.to_owned()]);
            stage.ticks(2).await;
            assert_eq!(stage.blind("shop/web"), blind, "{controller}");
        }
    }
}

#[tokio::test]
async fn ingress_nginx_is_understood_with_its_canaries() {
    for kind in BOTH {
        let mut stage = Stage::new(kind).await;
        stage.world().proxies.insert("a".to_owned(), Proxy { kind: Kind::Nginx, ..traefik(1.6e9) });
        stage.targets.push(target("shop", "canary"));
        let main = r#"namespace="shop",service="web",canary="""#;
        let canary = r#"namespace="shop",service="web",canary="shop-canary-80""#;
        stage.proxy("a", |proxy| proxy.counters.extend([(main.to_owned(), 3.0), (canary.to_owned(), 1.0)]));
        stage.ticks(10).await;
        stage.proxy("a", |proxy| proxy.counters.extend([(canary.to_owned(), 2.0)]));
        stage.ticks(1).await;
        assert_eq!((stage.quiet("shop/web"), stage.quiet("shop/canary")), (0, 0));
        stage.ticks(3).await;
        assert_eq!((stage.quiet("shop/web"), stage.quiet("shop/canary")), (3, 3));
        stage.targets[0].services[0].open_hosts = true;
        stage.ticks(1).await;
        assert_eq!(stage.blind("shop/web"), [Blind::NotMapped], "ingress-nginx does not count open hosts");
    }
}

#[tokio::test]
async fn a_traefik_that_counts_no_services_is_not_taken_for_silence() {
    for kind in BOTH {
        let mut stage = Stage::new(kind).await;
        stage.proxy("a", |proxy| proxy.entered = 12.0);
        stage.ticks(2).await;
        assert_eq!(stage.blind("shop/web"), [Blind::NotMapped]);
        stage.count("other-app-80@kubernetes", 1.0);
        stage.ticks(1).await;
        assert_eq!(stage.blind("shop/web"), []);
    }
}

#[tokio::test]
async fn labels_renamed_by_the_scrape_are_found() {
    let mut stage = Stage::new(Source::Prometheus).await;
    stage.world().exported = true;
    stage.count("shop-web-80@kubernetes", 1.0);
    stage.ticks(10).await;
    stage.count("shop-web-80@kubernetes", 2.0);
    stage.ticks(1).await;
    assert_eq!(stage.quiet("shop/web"), 0);
}

#[tokio::test]
async fn an_app_s_own_count_covers_it_when_each_pod_is_scraped() {
    let mut stage = Stage::new(Source::Prometheus).await;
    stage.targets[0].services[0].ingress_ports.clear();
    let pod = "web-6d7fdd8798-mg4f4";
    let own = Proxy {
        kind: Kind::Own,
        counters: [(format!("namespace=\"shop\",pod=\"{pod}\""), 4.0)].into(),
        ..traefik(0.0)
    };
    stage.world().proxies.insert(pod.to_owned(), own);
    stage.ticks(11).await;
    assert_eq!((stage.quiet("shop/web"), stage.blind("shop/web")), (10, vec![]));
    stage.targets[0].pods = Some(Names::from([pod.to_owned(), "web-6d7fdd8798-zzzzz".to_owned()]));
    stage.ticks(1).await;
    assert_eq!(stage.blind("shop/web"), [Blind::NoSeries], "nobody scrapes the second pod");
    stage.targets[0].pods = Some(Names::from([pod.to_owned()]));
    stage.proxy(pod, |own| own.counters.values_mut().for_each(|count| *count += 1.0));
    stage.ticks(1).await;
    assert_eq!((stage.quiet("shop/web"), stage.blind("shop/web")), (0, vec![]));
}

#[tokio::test]
async fn pods_that_are_not_ready_are_left_out_and_ending_ones_may_fail() {
    let mut stage = Stage::new(Source::Ingress).await;
    stage.world().proxies.insert("b".to_owned(), Proxy { up: false, ready: false, ..traefik(1.6e9) });
    stage.world().proxies.insert("c".to_owned(), Proxy { up: false, deleting: true, ..traefik(1.6e9) });
    stage.ticks(3).await;
    assert_eq!(stage.blind("shop/web"), []);
    stage.proxy("b", |proxy| proxy.ready = true);
    stage.tick().await.unwrap();
    assert!(stage.blind("shop/web").contains(&Blind::SourceDown));
}

#[tokio::test]
async fn a_proxy_in_the_dark_may_be_the_app_s_own_unless_its_controller_is_known() {
    for kind in BOTH {
        let mut stage = Stage::new(kind).await;
        stage.world().proxies.insert("n".to_owned(), Proxy { kind: Kind::Nginx, ..traefik(1.6e9) });
        stage.ticks(3).await;
        assert_eq!(stage.blind("shop/web"), []);
        stage.proxy("n", |nginx| nginx.up = false);
        stage.ticks(1).await;
        assert_eq!(stage.blind("shop/web"), [Blind::SourceDown]);
        stage.targets[0].services[0].controllers = Names::from(["traefik.io/ingress-controller".to_owned()]);
        stage.ticks(1).await;
        assert_eq!(stage.blind("shop/web"), []);
    }
}
