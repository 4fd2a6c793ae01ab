//! HAProxy: its configuration for some sites, as a person would write it.

use std::fmt::Write as _;

use anyhow::Result;

use super::way::{Listen, Site, Told};

/// Nothing of `KubeNap`'s: each host leads to its Service's cluster address.
pub(super) fn plain(listen: &Listen, sites: &[Site]) -> Result<String> {
    let (mut http, mut grpc, mut backends) = (String::new(), String::new(), String::new());
    for Site { app, host, cluster_ip, timeout, .. } in sites {
        let mine = format!("if {{ req.hdr(host),field(1,:) -i {host} }}");
        writeln!(http, "  use_backend {app} {mine}")?;
        writeln!(grpc, "  use_backend {app}-grpc {mine}")?;
        write!(
            backends,
            "backend {app}
  timeout server {timeout}s
  server app {cluster_ip}:80
backend {app}-grpc
  server app {cluster_ip}:8090 proto h2
",
            timeout = timeout.as_secs()
        )?;
    }
    Ok(format!(
        "global
  maxconn 2000
defaults
  mode http
  option forwardfor
  timeout connect 5s
  timeout client 75s
  timeout server 75s
  timeout tunnel 1h
frontend http
  bind {}
  http-request set-header X-Forwarded-Proto http
{http}  default_backend none
frontend grpc
  bind {} proto h2
{grpc}  default_backend none
{backends}backend none
  http-request deny deny_status 404
",
        listen.http, listen.grpc
    ))
}

/// The rendered text as it is, but for the port.
#[expect(clippy::unnecessary_wraps, reason = "one kind of function for every way in")]
pub(super) fn rendered(listen: &Listen, told: &Told) -> Result<String> {
    let text = told.text.replace("bind :80\n", &format!("bind {}\n", listen.http));
    Ok(format!("global\n  maxconn 2000\n{text}"))
}
