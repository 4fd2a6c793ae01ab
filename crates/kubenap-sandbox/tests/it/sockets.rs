//! Real loopback sockets: apps answer, Services forward or refuse, the ingress routes and counts.
#![expect(clippy::unwrap_used, reason = "a test that cannot connect has failed")]
use crate::world::{client, put_web, ready_replicas, until};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::DeleteParams;
use kubenap_sandbox::{Ingress, Sandbox, Settings};
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

fn start() -> Sandbox {
    stopping_within(Duration::from_millis(300))
}

/// Its pods serve on for so long after they were told to stop.
fn stopping_within(stop_delay: Duration) -> Sandbox {
    let ready_delay = Duration::from_millis(40);
    Sandbox::start(Settings { sockets: true, ready_delay, stop_delay, ..Settings::default() })
}

async fn started() -> Sandbox {
    with_web(start()).await
}

async fn with_web(sandbox: Sandbox) -> Sandbox {
    put_web(&sandbox, 1, &json!({}));
    until("ready", || ready_replicas(&sandbox) == 1).await;
    until("an endpoint", || has_endpoint(&sandbox)).await;
    sandbox
}

fn has_endpoint(sandbox: &Sandbox) -> bool {
    sandbox
        .list("endpointslices", None)
        .iter()
        .any(|slice| slice["endpoints"][0]["conditions"]["ready"] == true)
}

fn pod_address(sandbox: &Sandbox) -> SocketAddr {
    let ip = sandbox.list("pods", Some("default"))[0]["status"]["podIP"].as_str().unwrap().to_owned();
    format!("{ip}:8080").parse().unwrap()
}

fn service_address(sandbox: &Sandbox) -> SocketAddr {
    let ip =
        sandbox.get("services", "default", "web").unwrap()["spec"]["clusterIP"].as_str().unwrap().to_owned();
    format!("{ip}:80").parse().unwrap()
}

/// Connects again and again until somebody takes the connection, or nobody does any more.
async fn until_answered(address: SocketAddr, wanted: bool) -> Option<TcpStream> {
    for _ in 0..2000 {
        let stream = TcpStream::connect(address).await.ok();
        if stream.is_some() == wanted {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not seen in ten seconds at {address}: answered {wanted}");
}

/// Sends a request on a connection of its own and reads to the end.
async fn ask(address: SocketAddr, head: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let text = format!("{head}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: SocketAddr, host: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: {host}"), "").await
}

async fn with_ingress(sandbox: &Sandbox) -> Ingress {
    sandbox
        .put(json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
            "metadata": { "name": "web", "namespace": "default" },
            "spec": { "rules": [{ "host": "web.test", "http": { "paths": [
                { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "web", "port": { "name": "http" } } } },
                { "path": "/none", "pathType": "Exact", "backend": { "service": { "name": "none", "port": { "number": 80 } } } },
            ]}}]},
        }))
        .unwrap();
    sandbox
        .put(json!({
            "apiVersion": "v1", "kind": "Service", "metadata": { "name": "none", "namespace": "default" },
            "spec": { "selector": { "app": "none" }, "ports": [{ "port": 80 }] },
        }))
        .unwrap();
    sandbox.ingress("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn an_app_says_who_it_is_and_what_it_was_asked() {
    let sandbox = started().await;
    let answer = ask(pod_address(&sandbox), "POST /a/b?c=d HTTP/1.1\r\nHost: x", "12345").await;
    let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"));
    assert_eq!(body["path"], "/a/b?c=d");
    assert_eq!((&body["method"], &body["body"], &body["app"]), (&json!("POST"), &json!(5), &json!("web")));
    assert!(get(pod_address(&sandbox), "x", "/own503").await.starts_with("HTTP/1.1 503"));
}

#[tokio::test]
async fn a_services_address_leads_to_its_endpoints_and_refuses_without() {
    // As long as it may take on any machine to ask a pod that is leaving.
    let sandbox = with_web(stopping_within(Duration::from_secs(30))).await;
    let address = service_address(&sandbox);
    until_answered(address, true).await;
    assert!(get(address, "web", "/").await.starts_with("HTTP/1.1 200"));
    let pod = pod_address(&sandbox);
    sandbox.edit("deployments", "default", "web", |web| web["spec"]["replicas"] = 0.into()).unwrap();
    until("the pod is leaving", || {
        sandbox.list("pods", None).iter().all(|pod| pod["metadata"]["deletionTimestamp"].is_string())
    })
    .await;
    assert!(get(address, "web", "/").await.starts_with("HTTP/1.1 200"), "a leaving pod serves on");
    let name = sandbox.list("pods", None)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let pods: Api<Pod> = Api::namespaced(client(&sandbox), "default");
    pods.delete(&name, &DeleteParams::default().grace_period(0)).await.unwrap();
    until_answered(address, false).await;
    until_answered(pod, false).await;
}

#[tokio::test]
async fn a_slice_of_anybody_gets_the_services_connections() {
    let sandbox = started().await;
    sandbox.edit("deployments", "default", "web", |web| web["spec"]["replicas"] = 0.into()).unwrap();
    until("no pods", || sandbox.list("pods", None).is_empty()).await;
    // Who connects from here on is led by what comes now.
    until_answered(service_address(&sandbox), false).await;
    let other = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    sandbox
        .put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "other", "namespace": "default", "labels": { "kubernetes.io/service-name": "web" } },
            "ports": [{ "name": "http", "port": other.local_addr().unwrap().port() }],
            "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
        }))
        .unwrap();
    let mut stream = until_answered(service_address(&sandbox), true).await.unwrap();
    let (mut accepted, _) = other.accept().await.unwrap();
    stream.write_all(b"hello").await.unwrap();
    let mut heard = [0; 5];
    accepted.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
}

#[tokio::test]
async fn the_ingress_routes_and_counts_as_traefik_does() {
    let sandbox = started().await;
    let ingress = with_ingress(&sandbox).await;
    for (host, path, expected) in [
        ("web.test", "/x", "HTTP/1.1 200"),
        ("WEB.test:8000", "/x", "HTTP/1.1 200"),
        ("other.test", "/x", "HTTP/1.1 404"),
        ("web.test", "/none", "HTTP/1.1 503"),
        ("web.test", "/own503", "HTTP/1.1 503"),
    ] {
        let answer = get(ingress.address(), host, path).await;
        assert!(answer.starts_with(expected), "{host}{path}: {answer}");
    }
    let metrics = get(ingress.metrics_address(), "x", "/metrics").await;
    let ok = r#"traefik_service_requests_total{code="200",method="GET",protocol="http",service="default-web-http@kubernetes"} 2"#;
    let own = r#"traefik_service_requests_total{code="503",method="GET",protocol="http",service="default-web-http@kubernetes"} 1"#;
    assert!(metrics.contains(ok) && metrics.contains(own), "{metrics}");
    assert!(
        !metrics.contains("default-none-80"),
        "a service that was never reached has no series: {metrics}"
    );
}

#[tokio::test]
async fn a_dead_endpoint_is_a_502_and_counted() {
    let sandbox = started().await;
    let ingress = with_ingress(&sandbox).await;
    // Nobody else gets the port as long as the socket lives.
    let kept = TcpSocket::new_v4().unwrap();
    kept.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let vacant = kept.local_addr().unwrap();
    sandbox
        .put(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": { "name": "dead", "namespace": "default", "labels": { "kubernetes.io/service-name": "none" } },
            "ports": [{ "name": "", "port": vacant.port() }],
            "endpoints": [{ "addresses": ["127.0.0.1"], "conditions": { "ready": true } }],
        }))
        .unwrap();
    assert!(get(ingress.address(), "web.test", "/none").await.starts_with("HTTP/1.1 502"));
    let metrics = get(ingress.metrics_address(), "x", "/metrics").await;
    assert!(
        metrics
            .contains(r#"code="502",method="GET",protocol="http",service="default-none-80@kubernetes"} 1"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn an_upgrade_passes_and_is_counted_when_it_ends() {
    let sandbox = started().await;
    let ingress = with_ingress(&sandbox).await;
    let mut stream = TcpStream::connect(ingress.address()).await.unwrap();
    let head = "GET /ws HTTP/1.1\r\nHost: web.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
    stream.write_all(b"echo").await.unwrap();
    let mut echo = [0; 4];
    stream.read_exact(&mut echo).await.unwrap();
    assert_eq!(&echo, b"echo");
    let websocket = r#"code="0",method="GET",protocol="websocket",service="default-web-http@kubernetes"} 1"#;
    assert!(!get(ingress.metrics_address(), "x", "/metrics").await.contains(websocket));
    drop(stream);
    for _ in 0..200 {
        if get(ingress.metrics_address(), "x", "/metrics").await.contains(websocket) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the ended websocket was not counted");
}

#[tokio::test]
async fn the_ingress_can_be_found_by_its_pod() {
    let sandbox = started().await;
    let ingress = with_ingress(&sandbox).await;
    ingress.show("traefik").unwrap();
    let pod = sandbox.get("pods", "traefik", "traefik").unwrap();
    assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/name"], "traefik");
    let ports = pod["spec"]["containers"][0]["ports"].as_array().unwrap();
    let metrics = ports.iter().find(|port| port["name"] == "metrics").unwrap();
    let address = format!("{}:{}", pod["status"]["podIP"].as_str().unwrap(), metrics["containerPort"]);
    assert!(get(address.parse().unwrap(), "x", "/metrics").await.contains("process_start_time_seconds"));
}

#[tokio::test]
async fn two_sandboxes_do_not_share_addresses() {
    let (one, two) = (started().await, started().await);
    assert_ne!(pod_address(&one), pod_address(&two));
    assert_ne!(service_address(&one), service_address(&two));
}

#[tokio::test]
async fn the_api_is_served_on_loopback_only() {
    let sandbox = start();
    assert!(sandbox.listen("0.0.0.0:0".parse().unwrap()).await.is_err());
    let address = sandbox.listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
    assert!(get(address, "x", "/api/v1/namespaces/default").await.starts_with("HTTP/1.1 200"));
    drop(client(&sandbox));
}
