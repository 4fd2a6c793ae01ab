//! NGINX: its configuration for some sites, as a person would write it.

use std::fmt::Write as _;

use anyhow::{Context as _, Result};

use super::way::{Listen, Site, Told};

/// Nothing of `KubeNap`'s: each host leads to its Service's cluster address.
pub(super) fn plain(listen: &Listen, sites: &[Site]) -> Result<String> {
    let mut servers = String::new();
    for site in sites {
        let Site { host, cluster_ip, timeout, .. } = site;
        write!(
            servers,
            "  server {{
    listen {http};
    server_name {host};
    location / {{
      proxy_pass http://{cluster_ip}:80;
      proxy_read_timeout {timeout}s;
    }}
  }}
  server {{
    listen {grpc} http2;
    server_name {host};
    location / {{
      grpc_pass grpc://{cluster_ip}:8090;
    }}
  }}
",
            http = listen.http,
            grpc = listen.grpc,
            timeout = timeout.as_secs()
        )?;
    }
    Ok(whole(listen, &servers))
}

/// The rendered text as it is, but for the port.
#[expect(clippy::unnecessary_wraps, reason = "one kind of function for every way in")]
pub(super) fn rendered(listen: &Listen, told: &Told) -> Result<String> {
    Ok(whole(listen, &told.text.replace("listen 80;", &format!("listen {};", listen.http))))
}

/// What F5's controller writes around the rendered annotations of an Ingress: a server, a location, and an upstream that
/// is the Service's cluster address (`nginx.org/use-cluster-ip`).
pub(super) fn f5(listen: &Listen, told: &Told) -> Result<String> {
    let (server, location) =
        (annotation(told, "nginx.org/server-snippets")?, annotation(told, "nginx.org/location-snippets")?);
    let Site { app, host, cluster_ip, timeout, .. } = &told.site;
    let text = format!(
        "  upstream {app} {{
    zone {app} 256k;
    random two least_conn;
    server {cluster_ip}:80 max_fails=1 fail_timeout=10s max_conns=0;
  }}
  server {{
    listen {http};
    server_tokens on;
    server_name {host};
{server}
    location / {{
{location}
      proxy_http_version 1.1;
      proxy_connect_timeout 60s;
      proxy_read_timeout {timeout}s;
      proxy_send_timeout 60s;
      client_max_body_size 1m;
      set $default_connection_header close;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_buffering on;
      proxy_pass http://{app};
    }}
  }}
",
        http = listen.http,
        timeout = timeout.as_secs(),
    );
    Ok(whole(listen, &text))
}

/// What the community's controller writes for the rendered annotations of an Ingress: a location that hands its own 502 and
/// 503 to another one, which asks the default backend with the path `/` and says what it was about. (Its balancer in
/// Lua stands here as the Service's cluster address.)
pub(super) fn ingress_nginx(listen: &Listen, told: &Told) -> Result<String> {
    const PREFIX: &str = "nginx.ingress.kubernetes.io";
    let errors = annotation(told, &format!("{PREFIX}/custom-http-errors"))?;
    let backend = annotation(told, &format!("{PREFIX}/default-backend"))?;
    let kept = annotation(told, &format!("{PREFIX}/disable-proxy-intercept-errors"))?;
    let intercept = if kept == "true" { "off" } else { "on" };
    let namespace = told.pieces.iter().find_map(|piece| piece["object"]["metadata"]["namespace"].as_str());
    let namespace = namespace.context("kubenap render gives no object with a namespace")?;
    let Site { app, host, cluster_ip, timeout, .. } = &told.site;
    let (wake, timeout, http) = (told.wake, timeout.as_secs(), listen.http);
    let (mut pages, mut locations) = (String::new(), String::new());
    for code in errors.split(',') {
        let name = format!("@custom_custom-default-backend-{namespace}-{backend}_{code}");
        writeln!(pages, "      error_page {code} = {name};")?;
        write!(
            locations,
            "    location {name} {{
      internal;
      proxy_intercept_errors off;
      proxy_set_header X-Code {code};
      proxy_set_header X-Format $http_accept;
      proxy_set_header X-Original-URI $request_uri;
      proxy_set_header X-Namespace $namespace;
      proxy_set_header X-Ingress-Name $ingress_name;
      proxy_set_header X-Service-Name $service_name;
      proxy_set_header X-Service-Port $service_port;
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header Host $http_host;
      rewrite (.*) / break;
      proxy_pass http://{wake};
    }}
"
        )?;
    }
    let text = format!(
        "  server {{
    listen {http};
    server_name {host};
{locations}    location / {{
      set $namespace {namespace};
      set $ingress_name {app};
      set $service_name {app};
      set $service_port 80;
      proxy_intercept_errors {intercept};
{pages}      client_max_body_size 1m;
      proxy_set_header Host $http_host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header X-Request-ID $request_id;
      proxy_set_header X-Real-IP $remote_addr;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $http_host;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_connect_timeout 5s;
      proxy_send_timeout 60s;
      proxy_read_timeout {timeout}s;
      proxy_buffering off;
      proxy_request_buffering on;
      proxy_next_upstream error timeout;
      proxy_next_upstream_tries 3;
      proxy_pass http://{cluster_ip}:80;
      proxy_redirect off;
    }}
  }}
"
    );
    Ok(whole(listen, &text))
}

/// One of the rendered annotations.
fn annotation<'a>(told: &'a Told, name: &str) -> Result<&'a str> {
    let found =
        told.pieces.iter().find_map(|piece| piece["fields"]["metadata"]["annotations"][name].as_str());
    found.with_context(|| format!("kubenap render gives no annotation {name}"))
}

/// The file around the servers.
fn whole(listen: &Listen, servers: &str) -> String {
    let folder = listen.folder.display();
    let http = listen.http;
    format!(
        "daemon off;
# One process, which ends when it is told to end.
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 16m;
  proxy_http_version 1.1;
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Host $host;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $connection_upgrade;
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  server {{
    listen {http} default_server;
    return 404;
  }}
{servers}}}
"
    )
}
