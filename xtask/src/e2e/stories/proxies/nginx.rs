//! NGINX: its configuration for some sites, as a person would write it.

use std::fmt::Write as _;

use anyhow::Result;

use super::way::{Listen, Site};

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
