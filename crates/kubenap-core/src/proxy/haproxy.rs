//! HAProxy: KubeNap as the backup server of the app's backend.

use super::envoy::listener;
use super::head::{Doubt, RequestHead, Target};
use super::{App, Form, Hook, Piece, ProxyPlugin, Rendered, Unfit, WakeAddress};

/// HAProxy.
#[derive(Debug)]
pub(super) struct HaProxy;

const FORMS: &[Form] = &[Form { name: "plain", about: "a haproxy.cfg that somebody writes", route: None }];

impl ProxyPlugin for HaProxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn forms(&self) -> &'static [Form] {
        FORMS
    }

    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
        let form = app.form(FORMS, "plain")?;
        let (name, at, to, patience) = (app.word(), app.place()?, wake.place(), app.patience());
        let hosts = app.hosts();
        // A line each: HAProxy takes 64 words in one.
        let is_for = |host: &String| match host.strip_prefix('*') {
            Some(rest) => format!("  acl {name} req.hdr(host),field(1,:) -m end -i {rest}\n"),
            None => format!("  acl {name} req.hdr(host),field(1,:) -i {host}\n"),
        };
        let condition = if hosts.is_empty() {
            format!("  default_backend {name}")
        } else {
            format!("{}  use_backend {name} if {name}", hosts.iter().map(is_for).collect::<String>())
        };
        let text = format!(
            r"# {id}
frontend {name}
  mode http
  bind :80
  timeout client {patience}s
{condition}

backend {name}
  mode http
  option forwardfor
  timeout connect 2s
  # Longer than KubeNap's longest hold.
  timeout server {patience}s
  # A connection that the app refuses goes to KubeNap at once, with the same request.
  retries 2
  option redispatch 1
  default-server init-addr last,libc,none
  server app {at} check inter 1s rise 1 fall 1 observe layer4 error-limit 1 on-error mark-down
  # No check: it is always there, and only asked when the app is not.
  server kubenap {to} backup
",
            id = app.id,
        );
        let notes = [
            "What the app answers itself is left alone: only a connection that cannot be made counts.",
            "After a wake HAProxy goes on asking KubeNap until its next check, 1 s: KubeNap passes such requests to the app.",
        ];
        Ok(Rendered {
            form,
            pieces: vec![Piece::Text {
                place: "haproxy.cfg; or its parts in a configuration that is there",
                text,
            }],
            notes: std::iter::once(listener("haproxy"))
                .chain(notes.map(str::to_owned))
                .chain(app.notes_on_text())
                .collect(),
            hook: Hook::Silent,
            by_hand: Some("it is text for a file"),
        })
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        // It sets nothing by itself, so nothing but the request is believed.
        head.here()
    }
}
