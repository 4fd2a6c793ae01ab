//! Caddy: `handle_errors` asks KubeNap when no connection to the app could be made.

use super::envoy::listener;
use super::head::{Doubt, Reach, RequestHead, Target};
use super::{App, Form, Hook, Piece, ProxyPlugin, Rendered, Unfit, WakeAddress};

/// Caddy.
#[derive(Debug)]
pub(super) struct Caddy;

const FORMS: &[Form] = &[Form { name: "plain", about: "a Caddyfile that somebody writes", route: None }];

impl ProxyPlugin for Caddy {
    fn name(&self) -> &'static str {
        "caddy"
    }

    fn forms(&self) -> &'static [Form] {
        FORMS
    }

    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
        let form = app.form(FORMS, "plain")?;
        let (at, to, patience) = (app.place()?, wake.place(), app.patience());
        let hosts = app.hosts();
        let sites = match hosts.as_slice() {
            [] => ":80".to_owned(),
            hosts => hosts.iter().map(|host| format!("http://{host}")).collect::<Vec<_>>().join(", "),
        };
        let text = format!(
            r"{sites} {{
  reverse_proxy {at} {{
    transport http {{
      dial_timeout 2s
    }}
  }}
  # Only errors of Caddy's own come here: what the app answers itself is left alone.
  handle_errors {{
    @asleep expression `{{err.status_code}} in [502, 503, 504]`
    handle @asleep {{
      reverse_proxy {to} {{
        # The body may be gone, so the client is asked to send the request again.
        method GET
        header_up X-Original-URI {{http.request.orig_uri}}
        header_up X-Original-Method {{http.request.orig_method}}
        header_up X-Caddy-Error {{err.message}}
        transport http {{
          dial_timeout 2s
          response_header_timeout {patience}s
        }}
      }}
    }}
    respond `{{err.status_code}} {{err.status_text}}` {{err.status_code}}
  }}
}}
"
        );
        let notes = [
            "For TLS write the names without `http://`.",
            "WebSockets and gRPC are not served while the app sleeps: their clients follow no redirect.",
        ];
        Ok(Rendered {
            form,
            pieces: vec![Piece::Text { place: "the Caddyfile", text }],
            notes: std::iter::once(listener("caddy"))
                .chain(notes.map(str::to_owned))
                .chain(app.notes_on_text())
                .collect(),
            hook: Hook::Silent,
            by_hand: Some("it is text for a file"),
        })
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        // Anything but a connection that could not be made: the app may have carried it out.
        let error = head.one("x-caddy-error")?.ok_or(Doubt::Whom)?;
        if !(error.starts_with("dial ") || error.contains("no upstreams available")) {
            return Err(Doubt::Reached(502));
        }
        let mut target = head.about(head.one("x-original-uri")?.ok_or(Doubt::Whom)?, Reach::Gone)?;
        target.method = head.one("x-original-method")?.ok_or(Doubt::Whom)?;
        Ok(target)
    }
}
