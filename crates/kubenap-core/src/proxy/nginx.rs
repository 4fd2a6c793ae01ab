//! NGINX: by hand, the community's ingress-nginx, and F5's NGINX Ingress Controller.

use std::iter::StepBy;
use std::str::Split;

use serde_json::{Value, json};

use super::head::{Doubt, Reach, RequestHead, Target};
use super::objects::{annotations, own_name, service_beside, shared};
use super::routes::rules;
use super::{App, AppService, Form, Hook, ProxyPlugin, Rendered, Route, Unfit, WakeAddress};

/// NGINX.
#[derive(Debug)]
pub(super) struct Nginx;

const FORMS: &[Form] = &[
    Form { name: "plain", about: "an nginx.conf that somebody writes", route: None },
    Form {
        name: "ingress-nginx",
        about: "an Ingress of ingress-nginx: its default-backend annotation",
        route: Some("Ingress"),
    },
    Form {
        name: "ingress-nginx-errors",
        about: "the same, and its custom-http-errors for endpoints that are gone but still listed",
        route: Some("Ingress"),
    },
    Form {
        name: "f5",
        about: "an Ingress of F5's NGINX Ingress Controller: use-cluster-ip and snippets",
        route: Some("Ingress"),
    },
];

impl ProxyPlugin for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn forms(&self) -> &'static [Form] {
        FORMS
    }

    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
        let fits = match app.route("Ingress") {
            None => "plain",
            Some(route) if is_f5(route) => "f5",
            Some(_) => "ingress-nginx",
        };
        match app.form(FORMS, fits)? {
            "plain" => plain(app, wake),
            "f5" => f5(app, wake),
            form => ingress_nginx(app, wake, form),
        }
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        // Connected once is once too often: the app may have carried it out. Colons part the app, KubeNap, the app, and so on:
        // a request that was sent to the app once more a moment too early comes here again.
        let (times, answers) =
            (app_alone(head, "x-upstream-connect")?, app_alone(head, "x-upstream-status")?);
        if times.clone().any(|times| times.contains(|sign: char| sign.is_ascii_digit())) {
            let last = answers.last().and_then(|answers| answers.rsplit(',').next());
            return Err(Doubt::Reached(if last.is_some_and(|last| last.trim() == "504") {
                504
            } else {
                502
            }));
        }
        let told = head.one("x-original-uri")?;
        if head.one("x-code")?.is_some() {
            // ingress-nginx sets all of these itself. Only its error location, which rewrites the path to `/`, sets the
            // original one; elsewhere it would be the client's, and the request is here as it was.
            let mut target = match told {
                Some(uri) if head.path() == "/" => head.about(uri, Reach::Gone)?,
                _ => head.here()?,
            };
            let (namespace, service) = (head.one("x-namespace")?, head.one("x-service-name")?);
            target.service = Some((namespace.ok_or(Doubt::Whom)?, service.ok_or(Doubt::Whom)?));
            return Ok(target);
        }
        let mut target = head.about(told.ok_or(Doubt::Whom)?, Reach::Kept)?;
        target.method = head.one("x-original-method")?.ok_or(Doubt::Whom)?;
        target.upgrade = head.one("x-original-upgrade")?.is_some();
        Ok(target)
    }
}

/// Of one of NGINX's lists of upstreams what is about the app.
fn app_alone<'a>(head: &RequestHead<'a>, name: &str) -> Result<StepBy<Split<'a, char>>, Doubt> {
    Ok(head.one(name)?.unwrap_or_default().split(':').step_by(2))
}

fn is_f5(route: &Route) -> bool {
    match route.controller.as_deref() {
        Some(controller) => controller.starts_with("nginx.org/"),
        None => route.annotation("nginx.org/use-cluster-ip").is_some(),
    }
}

fn plain(app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
    let (name, address, hosts) = (app.word(), app.place()?, app.hosts());
    let hosts = if hosts.is_empty() { "_".to_owned() } else { hosts.join(" ") };
    let text = format!(
        r#"# {id}
# max_fails=0: a server that refused once would be left out for 10 s, also when its pods are back.
upstream {name} {{ server {address} max_fails=0; }}
map $http_upgrade ${name}_connection {{ default upgrade; "" ""; }}

server {{
  listen 80;
  server_name {hosts};

  proxy_http_version 1.1;
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection ${name}_connection;
  # An address that nobody answers at must not cost a minute.
  proxy_connect_timeout 2s;

  location / {{
    proxy_pass http://{name};
    # With "=", or the client would get 502 with a Location that it does not follow. proxy_intercept_errors stays off:
    # what the app itself answers is left alone.
    error_page 502 504 = @kubenap;
    # Or what is sent to the app once more, a moment before its address works again, would not come back to KubeNap.
    recursive_error_pages on;
  }}

{locations}
}}
"#,
        id = app.id,
        locations = indented(&locations(&format!("  proxy_pass http://{name};"), app, wake), 2),
    );
    let place = "a file that `http { … }` includes, such as conf.d/kubenap.conf; or its parts in a `server` that is there";
    let notes = notes(&[
        "Leave proxy_request_buffering on: without it a body is gone when the request is to be sent again.",
        "client_max_body_size counts before anything wakes: raise it if the app takes large uploads.",
    ]);
    Ok(Rendered {
        form: "plain",
        pieces: vec![super::Piece::Text { place, text }],
        notes: notes.into_iter().chain(app.notes_on_text()).collect(),
        hook: Hook::Silent,
        by_hand: Some("it is text for a file"),
    })
}

/// The locations that ask KubeNap, and that send a request once more when KubeNap says so.
fn locations(again: &str, app: &App, wake: &WakeAddress) -> String {
    format!(
        r#"location @kubenap {{
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Original-URI $request_uri;
  proxy_set_header X-Original-Method $request_method;
  proxy_set_header X-Original-Upgrade $http_upgrade;
  proxy_set_header X-Upstream-Status $upstream_status;
  proxy_set_header X-Upstream-Connect $upstream_connect_time;
  proxy_set_header X-Code "";
  proxy_set_header Upgrade "";
  proxy_set_header Connection "";
  proxy_pass_request_body off;
  proxy_set_header Content-Length "";
  proxy_connect_timeout 2s;
  proxy_read_timeout {patience}s;
  proxy_pass http://{wake};
}}
location @kubenap_retry {{
{again}
  error_page 502 504 = @kubenap;
  recursive_error_pages on;
}}"#,
        patience = app.patience(),
        wake = wake.place(),
    )
}

fn ingress_nginx(app: &App, wake: &WakeAddress, form: &'static str) -> Result<Rendered, Unfit> {
    const PREFIX: &str = "nginx.ingress.kubernetes.io";
    let mut texts = json!({});
    texts[format!("{PREFIX}/default-backend")] = json!(own_name(app));
    if form == "ingress-nginx-errors" {
        texts[format!("{PREFIX}/custom-http-errors")] = json!("502,503");
        texts[format!("{PREFIX}/disable-proxy-intercept-errors")] = json!("true");
    }
    let mut pieces = Vec::from(service_beside(app, wake)?);
    let mut by_hand = None;
    for ingress in ingresses(app)? {
        by_hand = by_hand.or(annotate(app, ingress, &mut pieces, &texts));
    }
    let (neighbours, note) = shared(app).unzip();
    let form = if form == "ingress-nginx" { form } else { "ingress-nginx-errors" };
    Ok(Rendered {
        form,
        pieces,
        notes: notes(&[
            "ingress-nginx reloads for a nap and for a wake, at most every 3.3 s: until then KubeNap passes what still comes to it.",
            "With rewrite-target, or paths that are patterns, the path that the client asked for is lost: leave such an Ingress to substitution.",
        ])
        .into_iter()
        .chain(note)
        .collect(),
        hook: Hook::Silent,
        by_hand: by_hand.or(neighbours),
    })
}

fn f5(app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
    let mut pieces = Vec::new();
    let mut by_hand = None;
    for ingress in ingresses(app)? {
        let at = app.place_of(only_port(app, ingress)?);
        // A location of a snippet inherits nothing of what the controller writes into its own.
        let again = format!(
            r"  proxy_http_version 1.1;
  proxy_set_header Host $host;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Host $host;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header Upgrade $http_upgrade;
  proxy_set_header Connection $http_connection;
  proxy_pass http://{at};"
        );
        let texts = json!({
            "nginx.org/use-cluster-ip": "true",
            "nginx.org/location-snippets": "error_page 502 504 = @kubenap;\nrecursive_error_pages on;\n",
            "nginx.org/server-snippets": format!("{}\n", locations(&again, app, wake)),
        });
        by_hand = by_hand.or(annotate(app, ingress, &mut pieces, &texts));
    }
    Ok(Rendered {
        form: "f5",
        pieces,
        notes: notes(&[
            "The controller must run with -enable-snippets.",
            "Without use-cluster-ip an empty Service is answered by a server of the controller's own, which cannot be told from the app.",
        ]),
        hook: Hook::Touches("kube-proxy instead of the controller spreads its requests over its pods"),
        by_hand,
    })
}

/// The one Service port to which an Ingress leads: what is sent to the app once more knows no other.
fn only_port<'a>(app: &'a App, ingress: &Route) -> Result<&'a AppService, Unfit> {
    const HINT: &str = "give each Service port an Ingress with hosts of its own, or leave it to substitution: `kubenap/proxy: any`";
    let unfit = |why: &str| Unfit::new(format!("the Ingress {} {why}", ingress.name()), HINT);
    if ingress.annotation("nginx.org/mergeable-ingress-type").is_some() {
        return Err(unfit(
            "is mergeable: the controller takes no server-snippets from a minion, and no use-cluster-ip from a master",
        ));
    }
    if app.shares(ingress) {
        return Err(unfit("leads to other Services too, and its snippets hold for all of them"));
    }
    let rules = rules(&ingress.object);
    let mut meant = app.services.iter().filter(|service| rules.iter().any(|rule| service.is_meant_by(rule)));
    match (meant.next(), meant.next()) {
        (_, Some(_)) => {
            Err(unfit("leads to several ports of the app, and its snippets hold for all of them"))
        }
        (Some(only), None) => Ok(only),
        (None, None) => app.service(),
    }
}

/// Puts the annotations on an Ingress. Why the controller must not, if so: what is there would be lost.
fn annotate(
    app: &App,
    ingress: &Route,
    pieces: &mut Vec<super::Piece>,
    texts: &Value,
) -> Option<&'static str> {
    pieces.push(annotations("networking.k8s.io/v1", "Ingress", app, ingress.name(), texts));
    let mut wanted = texts.as_object().into_iter().flatten();
    let taken =
        wanted.any(|(name, text)| ingress.annotation(name).is_some_and(|own| text.as_str() != Some(own)));
    taken.then_some("the Ingress has one of these annotations already")
}

/// The Ingresses that lead to the app: at least one.
fn ingresses(app: &App) -> Result<Vec<&Route>, Unfit> {
    let all: Vec<_> = app.routes.iter().filter(|route| route.kind() == "Ingress").collect();
    if all.is_empty() { Err(no_ingress(app)) } else { Ok(all) }
}

fn no_ingress(app: &App) -> Unfit {
    Unfit::new(format!("no Ingress leads to {}", app.id), "name its file with -f, or take --form plain")
}

fn notes(notes: &[&str]) -> Vec<String> {
    let listener =
        "Run KubeNap with `--proxy-listen nginx=0.0.0.0:8080`, so that nothing but what NGINX sets is read.";
    std::iter::once(&listener).chain(notes).map(|note| (*note).to_owned()).collect()
}

fn indented(text: &str, by: usize) -> String {
    let line = |line: &str| if line.is_empty() { String::new() } else { format!("{:by$}{line}", "") };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}
