//! Caddy: its configuration for some sites, as a person would write it.

use std::fmt::Write as _;

use anyhow::Result;

use super::way::{Listen, Site, Told};

/// What is said once in a file.
const GLOBAL: &str = "{
  admin off
  auto_https off
  servers {
    protocols h1 h2 h2c
  }
}
";

/// Nothing of `KubeNap`'s: each host leads to its Service's cluster address.
pub(super) fn plain(listen: &Listen, sites: &[Site]) -> Result<String> {
    let mut text = GLOBAL.to_owned();
    for Site { host, cluster_ip, timeout, .. } in sites {
        write!(
            text,
            "http://{host}:{port} {{
  bind {address}
  handle /echo.Echo/* {{
    reverse_proxy h2c://{cluster_ip}:8090
  }}
  handle {{
    reverse_proxy {cluster_ip}:80 {{
      transport http {{
        response_header_timeout {timeout}s
      }}
    }}
  }}
}}
",
            port = listen.http.port(),
            address = listen.http.ip(),
            timeout = timeout.as_secs()
        )?;
    }
    Ok(text)
}

/// The rendered text as it is, but for address and port.
#[expect(clippy::unnecessary_wraps, reason = "one kind of function for every way in")]
pub(super) fn rendered(listen: &Listen, told: &Told) -> Result<String> {
    let (name, port) = (format!("http://{}", told.site.host), listen.http.port());
    let bound = format!("{name}:{port} {{\n  bind {}\n", listen.http.ip());
    Ok(format!("{GLOBAL}{}", told.text.replace(&format!("{name} {{\n"), &bound)))
}
