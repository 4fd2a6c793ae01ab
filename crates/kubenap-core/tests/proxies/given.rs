//! Apps with more than one Service, port, host or neighbour: what is printed for them leads where their routes lead.

use std::collections::BTreeMap;

use kubenap_core::app::AppId;
use kubenap_core::proxy::read::read;
use kubenap_core::proxy::{App, Proxy, Rendered, Unfit};
use serde_json::{Value, json};

use crate::{text, wake};

/// The app `shop/web` among these objects.
fn app(annotations: &Value, objects: &[Value]) -> App {
    let deployment = json!({ "kind": "Deployment",
        "metadata": { "name": "web", "namespace": "shop", "annotations": annotations },
        "spec": { "template": { "metadata": { "labels": { "app": "web" } } } } });
    let all: Vec<_> = std::iter::once(deployment).chain(objects.iter().cloned()).collect();
    read(&AppId::new("shop", "web"), &all).unwrap().app
}

fn service(name: &str, ports: &Value) -> Value {
    json!({ "kind": "Service", "metadata": { "name": name, "namespace": "shop" },
        "spec": { "selector": { "app": "web" }, "ports": ports } })
}

fn ingress_route(routes: &[(&str, Value)]) -> Value {
    let route =
        |(rule, service): &(&str, Value)| json!({ "match": rule, "kind": "Rule", "services": [service] });
    json!({ "kind": "IngressRoute", "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "routes": routes.iter().map(route).collect::<Vec<_>>() } })
}

fn rendered(proxy: &str, app: &App) -> Result<Rendered, Unfit> {
    Proxy::find(proxy).unwrap().plugin().render(app, &wake())
}

fn printed(proxy: &str, app: &App) -> String {
    text(&rendered(proxy, app).unwrap())
}

#[test]
fn the_requests_for_another_service_on_the_same_port_do_not_go_to_the_first_one() {
    let ports = json!([{ "port": 80 }]);
    let app = app(
        &json!({ "kubenap/service": "web,admin" }),
        &[
            service("web", &ports),
            service("admin", &ports),
            ingress_route(&[
                ("Host(`web.example`)", json!({ "name": "web", "port": 80 })),
                ("Host(`www.example`)", json!({ "name": "web", "port": 80 })),
                ("Host(`admin.example`)", json!({ "name": "admin", "port": 80, "scheme": "h2c" })),
                ("Host(`away.example`)", json!({ "name": "web", "namespace": "other", "port": 80 })),
            ]),
        ],
    );
    let objects: Vec<Value> = serde_saphyr::from_multiple(&printed("traefik", &app)).unwrap();
    let failovers: BTreeMap<_, _> = objects
        .iter()
        .filter(|object| object["kind"] == "TraefikService")
        .map(|object| (object["metadata"]["name"].as_str().unwrap(), &object["spec"]["failover"]["service"]))
        .collect();
    let route = objects.iter().find(|object| object["kind"] == "IngressRoute").unwrap();
    let routes = route["spec"]["routes"].as_array().unwrap().iter();
    let leads: BTreeMap<_, _> = routes
        .map(|route| {
            (route["match"].as_str().unwrap(), failovers[route["services"][0]["name"].as_str().unwrap()])
        })
        .collect();
    let web = json!({ "name": "web", "port": 80, "nativeLB": true });
    let admin = json!({ "name": "admin", "port": 80, "nativeLB": true, "scheme": "h2c" });
    assert_eq!(
        leads,
        BTreeMap::from([
            ("Host(`web.example`)", &web),
            ("Host(`www.example`)", &web),
            ("Host(`admin.example`)", &admin)
        ])
    );
    assert_eq!(failovers.len(), 2, "one for what is said twice: {failovers:?}");
}

fn ingress(name: &str, annotations: &Value, rules: &[(&str, &str, Value)]) -> Value {
    let rule = |(host, service, port): &(&str, &str, Value)| {
        let backend = json!({ "service": { "name": service, "port": port } });
        json!({ "host": host, "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } })
    };
    json!({ "kind": "Ingress", "metadata": { "name": name, "namespace": "shop", "annotations": annotations },
        "spec": { "rules": rules.iter().map(rule).collect::<Vec<_>>() } })
}

/// `shop/web` behind one Service with port 80, for these hosts.
fn of_hosts(hosts: &[&str]) -> App {
    let rules: Vec<_> = hosts.iter().map(|host| (*host, "web", json!({ "number": 80 }))).collect();
    app(&json!({}), &[service("web", &json!([{ "port": 80 }])), ingress("web", &json!({}), &rules)])
}

fn form(form: &str, app: App) -> App {
    App { form: Some(form.to_owned()), ..app }
}

/// The texts for files.
const TEXTS: [(&str, &str); 6] = [
    ("nginx", "plain"),
    ("haproxy", "plain"),
    ("caddy", "plain"),
    ("envoy", "lua"),
    ("envoy", "priority"),
    ("envoy", "redirect"),
];

/// A text as it is, with an address written in one way.
fn text_of(proxy: &str, of: &str, app: &App) -> String {
    printed(proxy, &form(of, app.clone())).replace("', port_value: ", ":")
}

#[test]
fn the_requests_go_to_the_port_that_the_route_names_and_not_to_the_first_one() {
    let ports = json!([{ "name": "stats", "port": 9125, "protocol": "UDP" },
        { "name": "metrics", "port": 9090 }, { "name": "http", "port": 18080 }]);
    let inside = service("inside", &json!([{ "name": "http", "port": 7070 }]));
    for port in [json!({ "number": 18080 }), json!({ "name": "http" })] {
        let route = ingress("web", &json!({}), &[("web.example", "web", port)]);
        let app = app(&json!({}), &[inside.clone(), service("web", &ports), route]);
        for (proxy, of) in TEXTS.into_iter().chain([("nginx", "f5")]) {
            let text = text_of(proxy, of, &app);
            assert!(text.contains("web.shop.svc:18080") && !text.contains("9090"), "{proxy} {of}: {text}");
        }
    }
}

#[test]
fn where_no_route_names_a_port_it_is_the_first_one_of_tcp() {
    let ports = json!([{ "name": "dns", "port": 53, "protocol": "UDP" }, { "name": "http", "port": 8080 }]);
    let app = app(&json!({}), &[service("web", &ports)]);
    assert!(text_of("nginx", "plain", &app).contains("server web.shop.svc:8080 "));
}

#[test]
fn nginx_takes_the_names_of_every_app_and_no_two_apps_have_the_same() {
    let long = "a".repeat(63);
    let ids = [("1team", "web"), ("a-b", "c"), ("a", "b-c"), (&*long, &*long)];
    let names = ids.map(|(namespace, name)| {
        let text =
            text_of("nginx", "plain", &App { id: AppId::new(namespace, name), ..of_hosts(&["web.example"]) });
        assert!(text.contains(&format!("# {namespace}/{name}\n")), "{text}");
        let (_, upstream) = text.split_once("\nupstream ").unwrap();
        let upstream = upstream.split_once(' ').unwrap().0.to_owned();
        // Longer variables need a larger variables_hash_bucket_size, and `$1…` is a part of the last pattern.
        assert!(text.contains(&format!("map $http_upgrade ${upstream}_connection ")), "{text}");
        assert!(
            upstream.len() < 34 && upstream.starts_with(|sign: char| sign.is_ascii_alphabetic()),
            "{text}"
        );
        upstream
    });
    assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), ids.len(), "{names:?}");
}

#[test]
fn a_wildcard_host_is_no_literal_one() {
    let app = of_hosts(&["*.example.com", "a.example.org"]);
    let haproxy = text_of("haproxy", "plain", &app);
    assert!(haproxy.contains(" req.hdr(host),field(1,:) -m end -i .example.com\n"), "{haproxy}");
    assert!(haproxy.contains(" req.hdr(host),field(1,:) -i a.example.org\n"), "{haproxy}");
    let envoy = text_of("envoy", "lua", &app);
    assert!(
        envoy.contains(r#"domains: ["*.example.com", "a.example.org"]"#),
        "no port in a pattern: {envoy}"
    );
    assert!(envoy.contains("ignore_port_in_host_matching: true"), "{envoy}");
    assert!(text_of("nginx", "plain", &app).contains("server_name *.example.com a.example.org;"));
    assert!(text_of("caddy", "plain", &app).contains("http://*.example.com, http://a.example.org {"));
}

#[test]
fn a_rule_for_every_host_beside_named_ones_is_not_left_out() {
    let virtual_service = json!({ "kind": "VirtualService", "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "hosts": ["*.shop.example", "*"], "http": [{ "route": [{ "destination": { "host": "web" } }] }] } });
    let mesh = app(&json!({}), &[service("web", &json!([{ "port": 80 }])), virtual_service]);
    for app in [of_hosts(&["*.example.com", "a.example.org", ""]), mesh] {
        for (proxy, of) in TEXTS {
            let text = text_of(proxy, of, &app);
            let any = ["server_name _;", "  default_backend ", ":80 {", r#"domains: ["*"]"#];
            assert!(any.iter().any(|any| text.contains(any)), "{proxy} {of}: {text}");
        }
    }
}

#[test]
fn no_line_for_haproxy_has_more_words_than_it_takes() {
    let hosts: Vec<_> = (0..80).map(|number| format!("h{number}.example")).collect();
    let text = text_of("haproxy", "plain", &of_hosts(&hosts.iter().map(String::as_str).collect::<Vec<_>>()));
    assert!(text.lines().all(|line| line.split_whitespace().count() <= 64), "{text}");
    assert!(text.contains("h79.example"), "{text}");
}

#[test]
fn an_ingress_that_leads_to_other_apps_too_is_annotated_by_hand_alone_and_that_is_said() {
    let ports = json!({ "number": 80 });
    let shared = [("web.example", "web", ports.clone()), ("web.example", "api", ports)];
    for (proxy, of) in [
        ("traefik", "ingress"),
        ("traefik", "nginx-annotations"),
        ("nginx", "ingress-nginx"),
        ("nginx", "ingress-nginx-errors"),
    ] {
        for (rules, is_shared) in [(&shared[..], true), (&shared[..1], false)] {
            let route = ingress("both", &json!({}), rules);
            let app = form(of, app(&json!({}), &[service("web", &json!([{ "port": 80 }])), route]));
            let rendered = rendered(proxy, &app).unwrap();
            let why = is_shared.then_some("the Ingress leads to other Services too");
            assert_eq!(rendered.by_hand, why, "{proxy} {of}");
            let says =
                |note: &String| note.contains("The Ingress both leads to") && note.contains("of its own");
            assert_eq!(rendered.notes.iter().any(says), is_shared, "{proxy} {of}: {:?}", rendered.notes);
        }
    }
}

#[test]
fn snippets_for_f5_are_for_an_ingress_with_one_service_port_that_is_not_mergeable() {
    let ports = json!([{ "name": "http", "port": 80 }, { "name": "admin", "port": 81 }]);
    let to = |service: &'static str, port: u16| ("web.example", service, json!({ "number": port }));
    let refused = |annotations: Value, rules: &[(&str, &str, Value)]| {
        let route = ingress("front", &annotations, rules);
        let app = form("f5", app(&json!({}), &[service("web", &ports), route]));
        rendered("nginx", &app).err().map(|unfit| unfit.to_string())
    };
    assert_eq!(refused(json!({}), &[to("web", 81)]), None);
    for (annotations, rules, says) in [
        (json!({}), vec![to("web", 80), to("api", 80)], "the Ingress front leads to other Services too"),
        (
            json!({}),
            vec![to("web", 80), to("web", 81)],
            "the Ingress front leads to several ports of the app",
        ),
        (
            json!({ "nginx.org/mergeable-ingress-type": "minion" }),
            vec![to("web", 80)],
            "the Ingress front is mergeable",
        ),
    ] {
        let said = refused(annotations, &rules).unwrap();
        assert!(said.starts_with(says) && said.contains("\nhint: "), "{said}");
    }
}

#[test]
fn each_ingress_of_an_app_is_told_its_own_port_for_f5() {
    let ports = json!([{ "name": "http", "port": 80 }, { "name": "admin", "port": 81 }]);
    let to = |host, port: u16| ingress(host, &json!({}), &[(host, "web", json!({ "number": port }))]);
    let app = form("f5", app(&json!({}), &[service("web", &ports), to("web", 80), to("admin", 81)]));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&printed("nginx", &app)).unwrap();
    for (name, address) in [("web", "http://web.shop.svc:80;"), ("admin", "http://web.shop.svc:81;")] {
        let object = objects.iter().find(|object| object["metadata"]["name"] == name).unwrap();
        let snippets = object["metadata"]["annotations"]["nginx.org/server-snippets"].as_str().unwrap();
        assert!(snippets.contains(address), "{name}: {snippets}");
    }
}

#[test]
fn a_rule_in_brackets_is_understood_and_one_that_is_not_is_named() {
    let to = json!({ "name": "web", "port": 80 });
    let ports = json!([{ "port": 80 }]);
    let of = |rules: &[&str]| {
        let routes: Vec<_> = rules.iter().map(|rule| (*rule, to.clone())).collect();
        app(&json!({}), &[service("web", &ports), ingress_route(&routes)])
    };
    let grouped = of(&["(Host(`a.example`) || Host(`b.example`)) && PathPrefix(`/x`)"]);
    assert_eq!(rendered("traefik", &grouped).unwrap().form, "ingressroute");
    assert!(text_of("nginx", "plain", &grouped).contains("server_name a.example b.example;"));

    let pattern = of(&["HostRegexp(`^.+$`)"]);
    let said = rendered("traefik", &pattern).unwrap_err().to_string();
    assert!(said.starts_with("the rule `HostRegexp(`^.+$`)` is not understood"), "{said}");
    assert!(said.contains("\nhint: "), "{said}");
    let left = rendered("traefik", &form("substitution", pattern.clone())).unwrap();
    assert!(!left.notes.iter().any(|note| note.contains("HTTPRoute")), "{:?}", left.notes);
    for app in [pattern, of(&["Host(`a.example`)", "HostRegexp(`^.+$`)"])] {
        for (proxy, of) in TEXTS {
            let notes = rendered(proxy, &form(of, app.clone())).unwrap().notes;
            assert!(notes.iter().any(|note| note.contains("is not understood")), "{proxy} {of}: {notes:?}");
        }
    }
}

#[test]
fn an_ingressroute_with_a_name_as_long_as_names_may_be_gets_one_beside_it() {
    let mut route = ingress_route(&[("Host(`web.example`)", json!({ "name": "web", "port": 80 }))]);
    route["metadata"]["name"] = json!("a".repeat(253));
    let app = app(&json!({}), &[service("web", &json!([{ "port": 80 }])), route]);
    let objects: Vec<Value> = serde_saphyr::from_multiple(&printed("traefik", &app)).unwrap();
    let made = objects.iter().find(|object| object["kind"] == "IngressRoute").unwrap();
    assert!(made["metadata"]["name"].as_str().unwrap().len() <= 253, "{made}");
}
