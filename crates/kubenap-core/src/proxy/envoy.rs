//! Envoy, by a static configuration: a filter in Lua that asks KubeNap, or without Lua a second priority or two hops.

use super::app::Place;
use super::head::{Doubt, Reach, RequestHead, Target};
use super::{App, Form, Hook, Piece, ProxyPlugin, Rendered, Unfit, WakeAddress};

/// Envoy.
#[derive(Debug)]
pub(super) struct Envoy;

const FORMS: &[Form] = &[
    Form {
        name: "lua",
        about: "a filter in Lua asks KubeNap when Envoy finds no app: any answer gets through",
        route: None,
    },
    Form {
        name: "priority",
        about: "without Lua: KubeNap as the second priority of the app's cluster",
        route: None,
    },
    Form {
        name: "redirect",
        about: "without Lua: Envoy's own reply is a redirect to KubeNap, which redirects back",
        route: None,
    },
];

/// The path that leads to KubeNap where a client is sent there by a redirect.
const HOP: &str = "/.kubenap/wake";

impl ProxyPlugin for Envoy {
    fn name(&self) -> &'static str {
        "envoy"
    }

    fn forms(&self) -> &'static [Form] {
        FORMS
    }

    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
        let form = app.form(FORMS, "lua")?;
        let own = "What the app answers itself, 503 included, is left alone: only Envoy's own replies for no endpoint (UH) and no connection (UF) count.";
        let (hook, note) = match form {
            "lua" => (
                Hook::Touches(
                    "a line of Lua looks for a header in each response, and changes nothing of the app's",
                ),
                "Envoy gives up on KubeNap only after the app's wakeTimeout, whatever the route's own timeout is.",
            ),
            "priority" => (
                Hook::Touches(
                    "up to 1 MiB of each body is kept for a second try, and the route's timeout is longer than KubeNap's longest hold",
                ),
                "A body that is larger than per_connection_buffer_limit_bytes, 1 MiB, cannot be sent a second time and gets 503.",
            ),
            _ => (
                Hook::Silent,
                "Each wake takes two redirects. Clients that follow none, WebSockets and gRPC are not served: take lua or priority for these.",
            ),
        };
        let place = "envoy.yaml; or its parts in a configuration that is there";
        Ok(Rendered {
            form,
            pieces: vec![Piece::Text { place, text: configuration(app, wake, form)? }],
            notes: [listener("envoy"), own.to_owned(), note.to_owned()]
                .into_iter()
                .chain(app.notes_on_text())
                .collect(),
            hook,
            by_hand: Some("it is text for a file"),
        })
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        target(head)
    }
}

/// What a request from any kind of Envoy is about.
pub(super) fn target<'a>(head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
    if head.uri == "/wake" {
        let mut target = head.about(head.one("x-original-uri")?.ok_or(Doubt::Where)?, Reach::Gone)?;
        target.method = head.one("x-original-method")?.ok_or(Doubt::Whom)?;
        return Ok(target);
    }
    if head.path() == HOP {
        // Put there as it is, so it goes to the end of the query.
        return head.about(head.query().strip_prefix("u=").ok_or(Doubt::Where)?, Reach::Gone);
    }
    // Set after a rewrite; Envoy takes a client's own away.
    let original = head.one("x-envoy-original-path")?;
    head.about(original.unwrap_or(head.uri), Reach::Here)
}

/// The note about the listener.
pub(super) fn listener(profile: &str) -> String {
    format!(
        "Run KubeNap with `--proxy-listen {profile}=0.0.0.0:8080`, so that nothing but what this proxy sets is read."
    )
}

/// The headers of a request that KubeNap is told of where they are there.
const TOLD: [&str; 5] = ["user-agent", "accept", "sec-fetch-mode", "content-type", "x-forwarded-for"];
/// The header that marks Envoy's own reply for want of an app. From an app's response it must be removed.
pub(super) const MARK: &str = "x-kubenap-flags";

/// What Envoy adds to such a reply, for the filter, which takes it off again: so that nothing of it runs for the requests
/// of an app that is awake.
pub(super) fn marks() -> Vec<(String, String)> {
    let known = [
        (MARK.to_owned(), "%RESPONSE_FLAGS%".to_owned()),
        ("x-kubenap-host".to_owned(), "%REQ(:AUTHORITY)%".to_owned()),
        ("x-kubenap-path".to_owned(), "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%".to_owned()),
        ("x-kubenap-method".to_owned(), "%REQ(:METHOD)%".to_owned()),
    ];
    let told =
        TOLD.iter().map(|name| (format!("x-kubenap-{name}"), format!("%REQ({})%", name.to_uppercase())));
    known.into_iter().chain(told).collect()
}

/// The filter: it asks KubeNap, through this cluster of Envoy's, when Envoy itself has answered for want of an app.
pub(super) fn script(cluster: &str, patience: u64) -> String {
    let told = TOLD.map(|name| format!("{name:?}")).join(", ");
    format!(
        r#"local told = {{{told}}}
local kept = {{"location", "retry-after", "cache-control", "content-type", "content-security-policy", "x-kubenap-reason"}}

function envoy_on_response(handle)
  local headers = handle:headers()
  if headers:get("{MARK}") == nil then return end
  -- What the mapper has written of the request: "-" where there was none.
  local function take(name)
    local value = headers:get("x-kubenap-" .. name)
    headers:remove("x-kubenap-" .. name)
    if value ~= "-" then return value end
  end
  local ask = {{
    [":method"] = "GET", [":path"] = "/wake", [":authority"] = take("host"),
    ["x-original-method"] = take("method"), ["x-original-uri"] = take("path"), ["x-response-flags"] = take("flags"),
  }}
  for _, name in ipairs(told) do ask[name] = take(name) end
  -- Read before the call: after it, this body has been sent.
  handle:body(true)
  local answer, body = handle:httpCall("{cluster}", ask, nil, {patience}000)
  -- Not KubeNap's, or KubeNap is not there: Envoy's own answer stays.
  if answer == nil or answer[":status"] == "404" then return end
  -- Fetched again: no handle outlives a call.
  headers = handle:headers()
  headers:replace(":status", answer[":status"])
  for _, name in ipairs(kept) do
    if answer[name] ~= nil then headers:replace(name, answer[name]) end
  end
  local length = handle:body(true):setBytes(body or "")
  handle:headers():replace("content-length", length)
end
"#
    )
}

fn configuration(app: &App, wake: &WakeAddress, form: &str) -> Result<String, Unfit> {
    let (name, patience, at, to) = (app.word(), app.patience(), app.place()?, wake.place());
    let hosts = app.hosts();
    let domains = match hosts.as_slice() {
        [] => r#""*""#.to_owned(),
        hosts => hosts.iter().map(|host| format!("{host:?}")).collect::<Vec<_>>().join(", "),
    };
    let mapper = match form {
        "lua" => {
            let head = r"          local_reply_config:
            mappers:
            # Only replies that Envoy makes itself because there is no app to connect to.
            - filter: { response_flag_filter: { flags: [UH, UF] } }
              headers_to_add:
";
            let add = |(name, value): (String, String)| {
                format!(
                    "              - header: {{ key: {name}, value: \"{value}\" }}\n                append_action: OVERWRITE_IF_EXISTS_OR_ADD\n"
                )
            };
            std::iter::once(head.to_owned()).chain(marks().into_iter().map(add)).collect()
        }
        "redirect" => {
            r#"          local_reply_config:
            mappers:
            # Only replies that Envoy makes itself because there is no app to connect to; and with KubeNap not there either
            # its own 503, or a redirect would lead to the next one.
            - filter:
                and_filter:
                  filters:
                  - response_flag_filter: { flags: [UH, UF] }
                  - header_filter: { header: { name: ":path", string_match: { prefix: /.kubenap/ }, invert_match: true } }
              status_code: 307
              headers_to_add:
              - header: { key: location, value: "/.kubenap/wake?u=%REQ(:PATH)%" }
                append_action: OVERWRITE_IF_EXISTS_OR_ADD
              - header: { key: cache-control, value: no-store }
                append_action: OVERWRITE_IF_EXISTS_OR_ADD
"#
            .to_owned()
        }
        _ => String::new(),
    };
    let hop = format!(
        "              - match: {{ path: {HOP} }}\n                route: {{ cluster: kubenap, timeout: {patience}s }}\n"
    );
    let retry = format!(
        r"
                  # Longer than KubeNap's longest hold.
                  timeout: {patience}s
                  retry_policy:
                    retry_on: connect-failure
                    num_retries: 2
                    retry_priority:
                      name: envoy.retry_priorities.previous_priorities
                      typed_config:
                        '@type': type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig
                        update_frequency: 1"
    );
    let filter = format!(
        r"          - name: kubenap.lua
            typed_config:
              '@type': type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua
              default_source_code:
                inline_string: |
{}
",
        indented(&script("kubenap", patience), 18)
    );
    let second = if form == "priority" { endpoint(&to, 1) } else { String::new() };
    // A request that KubeNap holds is a retry under way, of which Envoy allows three: others would get 503.
    let breaker = if form == "priority" {
        "    # A request that waits at KubeNap counts as a retry under way, of which Envoy otherwise allows three.\n    circuit_breakers: { thresholds: [{ max_retries: 1024 }] }\n"
    } else {
        ""
    };
    let kubenap = format!(
        r"  - name: kubenap
    type: STRICT_DNS
    connect_timeout: 2s
    load_assignment:
      cluster_name: kubenap
      endpoints:
{}",
        endpoint(&to, 0)
    );
    Ok(format!(
        r"# {id}
static_resources:
  listeners:
  - name: {name}
    address: {{ socket_address: {{ address: 0.0.0.0, port_value: 80 }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          '@type': type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: {name}
          use_remote_address: true
          upgrade_configs: [{{ upgrade_type: websocket }}]
{mapper}          route_config:
            # A host counts with whatever port it comes.
            ignore_port_in_host_matching: true
{guard}            virtual_hosts:
            - name: {name}
              domains: [{domains}]
              routes:
{hop}              - match: {{ prefix: / }}
                route:
                  cluster: {name}{retry}
          http_filters:
{filter}          - name: envoy.filters.http.router
            typed_config: {{ '@type': type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }}
  clusters:
  - name: {name}
    type: STRICT_DNS
    connect_timeout: 2s
{breaker}    load_assignment:
      cluster_name: {name}
      endpoints:
{first}{second}{kubenap}",
        id = app.id,
        guard = if form == "lua" {
            format!(
                "            # Or an app could have another one woken.\n            response_headers_to_remove: [{MARK}]\n"
            )
        } else {
            String::new()
        },
        hop = if form == "redirect" { hop.as_str() } else { "" },
        retry = if form == "priority" { retry.as_str() } else { "" },
        filter = if form == "lua" { filter.as_str() } else { "" },
        first = endpoint(&at, 0),
        kubenap = if form == "priority" { "" } else { kubenap.as_str() },
    ))
}

fn endpoint(at: &Place, priority: u32) -> String {
    let Place { host, port } = at;
    format!(
        "      - priority: {priority}\n        lb_endpoints:\n        - endpoint: {{ address: {{ socket_address: {{ address: '{host}', port_value: {port} }} }} }}\n"
    )
}

fn indented(text: &str, by: usize) -> String {
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("{:by$}{line}", "") };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
