//! The way in by proxies' error paths: every kind of route wakes its app, and no redirect loops.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::net::{Ipv4Addr, SocketAddr};

use kubenap_controller::run::Running;
use kubenap_controller::settings::Settings;
use serde_json::{Value, json};

use crate::visitor;
use crate::world::{SPACE, World, service};

/// A member with a listener for each of these profiles, in this order.
async fn join(world: &World, profiles: &[&str]) -> Running {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listen = profiles.iter().map(|profile| format!("{profile}={any}").parse().unwrap()).collect();
    world.join_as(Settings { proxy_listen: listen, ..world.settings(1) }).await
}

fn route(api_version: &str, kind: &str, spec: &Value) -> Value {
    json!({ "apiVersion": api_version, "kind": kind, "metadata": { "name": "web", "namespace": SPACE }, "spec": spec })
}

#[tokio::test(start_paused = true)]
async fn an_app_is_woken_by_the_hosts_of_every_kind_of_route() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    let to = json!([{ "name": "web", "port": 80 }]);
    world.put(route(
        "traefik.io/v1alpha1",
        "IngressRoute",
        &json!({ "routes": [
        { "kind": "Rule", "match": "Host(`traefik.example`) && PathPrefix(`/a`)", "services": to },
    ] }),
    ));
    world.put(route("gateway.networking.k8s.io/v1", "HTTPRoute", &json!({
        "parentRefs": [{ "name": "gateway" }], "hostnames": ["gateway.example"], "rules": [{ "backendRefs": to }],
    })));
    world.put(route(
        "networking.istio.io/v1",
        "VirtualService",
        &json!({
            "hosts": ["istio.example"], "http": [{ "route": [{ "destination": { "host": "web" } }] }],
        }),
    ));
    let member = join(&world, &["any", "haproxy"]).await;
    for host in ["web.shop.example", "traefik.example", "gateway.example", "istio.example"] {
        world.asleep("web").await;
        for (unknown, path) in [("unknown.example", "/a"), ("traefik.example", "/b")] {
            assert_eq!(visitor::get(member.proxies[1], unknown, path).await.status, 404, "{unknown}{path}");
        }
        assert_eq!(world.phase("web"), "asleep");
        let head = format!("GET /a?b=%2F HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let reply = visitor::send(member.proxies[1], &head, b"").await;
        assert_eq!((reply.status, reply.header("location")), (307, Some("/a?b=%2F")), "{host}: {reply:?}");
        world.awake("web", 1).await;
    }
}

/// What every kind of route says of one host: the root and `/api/web` lead to the app, `/api` to a Service that is none's.
fn shared() -> [Value; 4] {
    let leads = [("/", "web"), ("/api", "api"), ("/api/web", "web")];
    let ingress = leads.map(|(path, name)| {
        json!({ "path": path, "pathType": "Prefix", "backend": { "service": { "name": name, "port": { "number": 80 } } } })
    });
    let traefik = leads.map(|(path, name)| {
        json!({ "match": format!("Host(`traefik.example`) && PathPrefix(`{path}`)"), "services": [{ "name": name, "port": 80 }] })
    });
    let gateway = leads.map(|(path, name)| {
        json!({ "matches": [{ "path": { "value": path } }], "backendRefs": [{ "name": name, "port": 80 }] })
    });
    let istio = leads.map(|(path, name)| {
        json!({ "match": [{ "uri": { "prefix": path } }], "route": [{ "destination": { "host": name } }] })
    });
    let ingress = json!({ "rules": [{ "host": "ingress.example", "http": { "paths": ingress } }] });
    let gateway =
        json!({ "parentRefs": [{ "name": "gateway" }], "hostnames": ["gateway.example"], "rules": gateway });
    let istio = json!({ "gateways": ["gateway"], "hosts": ["istio.example"], "http": istio });
    [
        ("networking.k8s.io/v1", "Ingress", ingress),
        ("traefik.io/v1alpha1", "IngressRoute", json!({ "routes": traefik })),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", gateway),
        ("networking.istio.io/v1", "VirtualService", istio),
    ]
    .map(|(version, kind, spec)| {
        let metadata = json!({ "name": "shared", "namespace": SPACE });
        json!({ "apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec })
    })
}

#[tokio::test(start_paused = true)]
async fn a_request_for_an_app_that_is_not_enrolled_wakes_nobody_that_shares_its_ingress() {
    let world = World::quick();
    world.app("web", 1, &[]).await;
    world.put(service("api", "api"));
    for route in shared() {
        world.put(route);
    }
    let member = join(&world, &["any", "haproxy"]).await;
    for host in ["ingress.example", "traefik.example", "gateway.example", "istio.example"] {
        for path in ["/", "/api/web/x", "/apis"] {
            world.asleep("web").await;
            for foreign in ["/api", "/api/x?y"] {
                assert_eq!(
                    visitor::get(member.proxies[1], host, foreign).await.status,
                    404,
                    "{host}{foreign}"
                );
            }
            assert_eq!(world.phase("web"), "asleep");
            assert_eq!(visitor::get(member.proxies[1], host, path).await.status, 307, "{host}{path}");
            world.awake("web", 1).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_goes_on_asking_is_slowed_down_and_then_told_so() {
    let world = World::quick();
    world.app("web", 1, &[("idleAfter", "1h")]).await;
    let member = join(&world, &["any", "nginx", "haproxy"]).await;
    let (any, nginx, haproxy) = (member.proxies[0], member.proxies[1], member.proxies[2]);
    let kept = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: web.shop.example\r\nX-Original-URI: {path}\r\nX-Original-Method: POST\r\n\
             X-Upstream-Connect: -\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        )
    };
    let plain =
        |path: &str| format!("GET {path} HTTP/1.1\r\nHost: web.shop.example\r\nConnection: close\r\n\r\n");
    // The first request ever waits for the app's first turn.
    assert_eq!(visitor::send(any, &plain("/first"), b"").await.status, 307);
    for (at, status, head) in [(any, 307, plain("/loop")), (nginx, 200, kept("/form"))] {
        let mut seen = Vec::new();
        for _ in 0..6 {
            let before = world.elapsed();
            let reply = visitor::send(at, &head, b"").await;
            let tenths = world.elapsed().saturating_sub(before).as_millis() / 100;
            seen.push((reply.status, tenths));
            assert_eq!(reply.header("retry-after").is_some(), reply.status == 503, "{reply:?}");
            assert_eq!(reply.header("location").is_some(), reply.status == 307, "{reply:?}");
        }
        assert_eq!(
            seen,
            [(status, 5), (status, 10), (status, 30), (status, 30), (503, 0), (503, 0)],
            "{head}"
        );
    }
    // Another URL is another request, and who is given the request itself passes it.
    assert_eq!(visitor::send(any, &plain("/other"), b"").await.status, 307);
    for _ in 0..8 {
        let before = world.elapsed();
        assert_eq!(visitor::send(haproxy, &plain("/loop"), b"").await.status, 200);
        assert!(world.elapsed().saturating_sub(before).as_millis() < 100);
    }
}
