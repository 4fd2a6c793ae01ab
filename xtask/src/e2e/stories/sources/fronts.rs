//! NGINX and Envoy as pods in front of apps: the real programs, which write their access logs to their containers' output.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::PostParams;
use serde_json::{Value, json};

use super::super::proxies::{Program, Programs};
use crate::e2e::cluster::PROMETHEUS;
use crate::e2e::http;
use crate::e2e::world::{Space, eventually};

/// Where they take requests.
const PORT: u16 = 8000;
/// Where Envoy shows its metrics, as Envoy Gateway's does.
const ADMIN: u16 = 19001;
const CONFIG: &str = "/etc/front";

/// Their addresses.
pub(super) struct Fronts {
    pub(super) nginx: SocketAddr,
    pub(super) envoy: SocketAddr,
}

/// The labels by which KubeNap finds the pods of one of them.
pub(super) fn labels(program: Program) -> &'static str {
    match program {
        Program::Nginx => "front=nginx",
        // What the source `ingress` looks for.
        _ => "app=envoy",
    }
}

impl Fronts {
    /// Starts both before these apps: name, host and cluster address.
    pub(super) async fn start(space: &Space, apps: &[(&str, String, IpAddr)]) -> Result<Self> {
        let programs = Programs::find(&space.world.cluster).await?;
        let (nginx, envoy) = (nginx(apps), envoy(&space.namespace, apps));
        let nginx = front(space, &programs, Program::Nginx, ("nginx.conf", nginx));
        let envoy = front(space, &programs, Program::Envoy, ("envoy.json", envoy));
        let (nginx, envoy) = tokio::try_join!(nginx, envoy)?;
        until_scraped(&space.namespace).await?;
        Ok(Self { nginx, envoy })
    }
}

/// A pod that runs the program of this machine, with this file; where it takes requests.
async fn front(
    space: &Space,
    programs: &Programs,
    program: Program,
    (file, text): (&str, String),
) -> Result<SocketAddr> {
    let (name, post) = (program.name(), PostParams::default());
    let map = json!({"metadata": {"name": name}, "data": {file: text}});
    space.api::<ConfigMap>().create(&post, &serde_json::from_value(map)?).await.context("its file")?;

    let path = format!("{CONFIG}/{file}");
    let own: &[&str] = match program {
        Program::Nginx => &["-p", "/tmp", "-e", "/dev/stderr", "-c", &path],
        _ => &["--disable-hot-restart", "--concurrency", "1", "-l", "warning", "-c", &path],
    };
    // The image has no C library: Envoy, too, takes the one that was unpacked for NGINX.
    let loader = match program {
        Program::Nginx => &[],
        _ => programs.words(Program::Nginx)?.split_last().map_or(&[][..], |(_, loader)| loader),
    };
    let words = loader.iter().chain(programs.words(program)?).map(String::as_str);
    let command = words.chain(own.iter().copied());
    let cache = space.world.cluster.cache();
    let (key, value) = labels(program).split_once('=').context("labels")?;
    let mut pod = json!({
        "metadata": {"name": name, "labels": {key: value}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "proxy",
                // Whatever is in it: the program and its libraries are this machine's.
                "image": "kubenap.test/app:1",
                "imagePullPolicy": "IfNotPresent",
                "command": command.collect::<Vec<_>>(),
                // NGINX looks for no user of this machine then.
                "securityContext": {"runAsUser": 65534, "runAsGroup": 65534},
                "ports": [{"name": "web", "containerPort": PORT}],
                "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                "volumeMounts": [
                    {"name": "programs", "mountPath": cache, "readOnly": true},
                    {"name": "file", "mountPath": CONFIG},
                ],
            }],
            "volumes": [
                {"name": "programs", "hostPath": {"path": cache, "type": "Directory"}},
                {"name": "file", "configMap": {"name": name}},
            ],
        },
    });
    if program == Program::Envoy {
        let path = "/stats/prometheus";
        pod["metadata"]["annotations"] = json!({
            "prometheus.io/scrape": "true", "prometheus.io/port": ADMIN.to_string(), "prometheus.io/path": path,
        });
        pod["spec"]["containers"][0]["ports"] =
            json!([{"name": "web", "containerPort": PORT}, {"name": "admin", "containerPort": ADMIN}]);
    }
    space.api::<Pod>().create(&post, &serde_json::from_value(pod)?).await.context("its pod")?;
    eventually(&format!("{name} is ready"), Duration::from_secs(180), async || {
        let pod = space.api::<Pod>().get(name).await?;
        let status = pod.status.unwrap_or_default();
        let ready = status.container_statuses.iter().flatten().any(|container| container.ready);
        let address = status.pod_ip.filter(|_| ready).context("it is not")?;
        Ok(SocketAddr::new(address.parse()?, PORT))
    })
    .await
}

/// Waits until Prometheus has found Envoy: it looks for pods every five seconds.
async fn until_scraped(namespace: &str) -> Result<()> {
    let query = format!("/api/v1/query?query=envoy_server_live%7Bnamespace%3D%22{namespace}%22%7D");
    eventually("Prometheus scrapes Envoy", Duration::from_secs(90), async || {
        let reply = http::get(PROMETHEUS, "prometheus", &query).await?;
        let answer: Value = serde_json::from_slice(&reply.body).context("read what Prometheus answered")?;
        let found = answer["data"]["result"].as_array().is_some_and(|rows| !rows.is_empty());
        ensure!(found, "{answer}");
        Ok(())
    })
    .await
}

/// Debian's `combined` with the host before it: what NGINX writes of its own names no app.
fn nginx(apps: &[(&str, String, IpAddr)]) -> String {
    let servers = apps.iter().map(|(_, host, address)| {
        format!(
            "  server {{
    listen {PORT};
    server_name {host};
    location / {{ proxy_pass http://{address}:80; proxy_read_timeout 75s; }}
  }}
"
        )
    });
    let servers: String = servers.collect();
    format!(
        "daemon off;
master_process off;
pid /tmp/nginx.pid;
events {{ worker_connections 256; }}
http {{
  log_format vhost_combined '$host $remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \"$http_user_agent\"';
  access_log /dev/stdout vhost_combined;
  client_body_temp_path /tmp/body;
  proxy_temp_path /tmp/proxy;
  fastcgi_temp_path /tmp/fastcgi;
  uwsgi_temp_path /tmp/uwsgi;
  scgi_temp_path /tmp/scgi;
  proxy_http_version 1.1;
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header Connection '';
{servers}}}
"
    )
}

/// Its default text as the access log, and clusters named as Contour names them.
fn envoy(namespace: &str, apps: &[(&str, String, IpAddr)]) -> String {
    const TYPES: &str = "type.googleapis.com/envoy.extensions";
    let at = |address: &str, port: u16| json!({"socket_address": {"address": address, "port_value": port}});
    let cluster = |app: &str| format!("{namespace}_{app}_80");
    let host = |(app, host, _): &(&str, String, IpAddr)| {
        let route = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster(app), "timeout": "75s"}});
        json!({"name": app, "domains": [host, format!("{host}:*")], "routes": [route]})
    };
    let clusters = apps.iter().map(|(app, _, address)| {
        let endpoint = json!({"endpoint": {"address": at(&address.to_string(), 80)}});
        let name = cluster(app);
        json!({
            "name": name, "type": "STATIC", "connect_timeout": "2s",
            "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        })
    });
    let manager = json!({
        "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "web",
        "use_remote_address": true,
        "access_log": [{
            "name": "envoy.access_loggers.stdout",
            "typed_config": {"@type": format!("{TYPES}.access_loggers.stream.v3.StdoutAccessLog")},
        }],
        "route_config": {"virtual_hosts": apps.iter().map(host).collect::<Vec<Value>>()},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": format!("{TYPES}.filters.http.router.v3.Router")},
        }],
    });
    let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
    json!({
        "admin": {"address": at("0.0.0.0", ADMIN)},
        "static_resources": {
            "listeners": [{"name": "web", "address": at("0.0.0.0", PORT), "filter_chains": [{"filters": [filter]}]}],
            "clusters": clusters.collect::<Vec<Value>>(),
        },
    })
    .to_string()
}
