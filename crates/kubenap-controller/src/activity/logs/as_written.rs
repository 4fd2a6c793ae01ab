//! Tests of whole lines as each program writes them by its own format, or the one that its guide gives.

use super::line::Lines;

/// What each line of the text is read as: the names in it, and the second of 10:00 UTC in which it ended, rounded up.
fn read(text: &str) -> Vec<(Vec<String>, i64)> {
    let mut lines = Lines::new(None);
    let each = text.lines().map(|line| {
        assert!(lines.read(line), "it fits no format: {line}");
        let hit = &lines.hit;
        if line.contains("/a?b=c") {
            assert_eq!((hit.path.as_str(), hit.agent.as_str()), ("/a", "curl/8.14.1"), "{line}");
        }
        (hit.keys.clone(), hit.ended - 1_795_341_600)
    });
    each.collect()
}

#[track_caller]
fn is(text: &str, expected: &[(&[&str], i64)]) {
    let read = read(text);
    let read: Vec<(Vec<&str>, i64)> =
        read.iter().map(|(keys, at)| (keys.iter().map(String::as_str).collect(), *at)).collect();
    let expected: Vec<_> = expected.iter().map(|(keys, at)| (keys.to_vec(), *at)).collect();
    assert_eq!(read, expected);
}

macro_rules! written {
    ($name:literal) => {
        include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/logs/", $name))
    };
}

#[test]
fn nginx_is_read_as_it_writes() {
    is(written!("nginx-combined.log"), &[(&[], 1), (&[], 1), (&[], 1)]);
    is(written!("nginx-vhost.log"), &[(&["host web.example"], 1), (&["host web.example"], 1)]);
    let expected: [(&[&str], i64); 3] =
        [(&["host web.example"], 1), (&["svc shop/web"], 1), (&["asked scan.example"], 1)];
    is(written!("nginx.json"), &expected);
    let both = ["up shop-web-80", "up shop-web2-http"];
    is(
        written!("ingress-nginx.log"),
        &[(&["up shop-web-80"], 1), (&both, 1), (&["up shop-web-80"], 1), (&[], 1)],
    );
}

#[test]
fn traefik_is_read_as_it_writes() {
    let read = read(written!("traefik.log"));
    let named = |line: usize, name: &str| read[line].0.contains(&format!("router {name}"));
    assert!(named(0, "shop-web-web-example-a@kubernetes"));
    assert!(named(1, "shop-web-web-example-a@kubernetes"), "by the entry point with TLS");
    assert!(named(2, "shop-ir-fe7d5722b460cdcbcc1d@kubernetescrd"));
    let ended: Vec<_> = read.iter().map(|(_, ended)| *ended).collect();
    assert_eq!((ended, read[3].0.len()), (vec![1, 1, 2, 1], 0));
    let rule = "traefik shop-ir-fe7d5722b460cdcbcc1d@kubernetescrd";
    is(written!("traefik.json"), &[(&["svc shop/web"], 2), (&[rule], 1), (&[], 1)]);
}

#[test]
fn envoy_envoy_gateway_and_istio_are_read_as_they_write() {
    const CLUSTER: &str = "cluster outbound|80||web.shop.svc.cluster.local";
    is(written!("envoy.log"), &[(&["host web.example"], 2), (&[], 1)]);
    is(written!("istio.log"), &[(&[CLUSTER], 2), (&["asked scan.example"], 1)]);
    is(written!("istio.json"), &[(&[CLUSTER], 2)]);
    let rule = "cluster httproute/shop/web/rule/0";
    is(written!("envoy-gateway.json"), &[(&[rule], 2), (&["asked scan.example"], 1)]);
}
