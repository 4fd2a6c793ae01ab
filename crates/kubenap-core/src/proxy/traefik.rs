//! Traefik: its own IngressRoutes, plain Ingresses, Ingresses with the annotations of ingress-nginx, and HTTPRoutes.

use serde_json::{Value, json};

use super::head::{Doubt, Reach, RequestHead, Target};
use super::location::decoded;
use super::objects::{PORT, annotations, beside, labels, own_name, service_beside, shared, shared_name};
use super::{App, Form, Hook, Piece, ProxyPlugin, Rendered, Unfit, Version, WakeAddress};
use crate::app::digest;

/// Traefik.
#[derive(Debug)]
pub(super) struct Traefik;

const FORMS: &[Form] = &[
    Form {
        name: "ingressroute",
        about: "an IngressRoute: a TraefikService that fails over to KubeNap (Traefik 3.7)",
        route: Some("IngressRoute"),
    },
    Form {
        name: "ingressroute-errors",
        about: "an IngressRoute: the middleware `errors`, which buffers nothing (Traefik 3.4)",
        route: Some("IngressRoute"),
    },
    Form {
        name: "ingress",
        about: "an Ingress: the middleware `errors` (Traefik 3.4)",
        route: Some("Ingress"),
    },
    Form {
        name: "nginx-annotations",
        about: "an Ingress with the annotations of ingress-nginx, which Traefik reads: default-backend, custom-http-errors (Traefik 3.7)",
        route: Some("Ingress"),
    },
    Form {
        name: "substitution",
        about: "an HTTPRoute, or a Traefik that is too old for the rest",
        route: Some("HTTPRoute"),
    },
];

/// The priority of a route that goes before the app's own: Traefik takes a route's length, which is far below.
const FIRST: u64 = 1_000_000;

impl ProxyPlugin for Traefik {
    fn name(&self) -> &'static str {
        "traefik"
    }

    fn forms(&self) -> &'static [Form] {
        FORMS
    }

    fn render(&self, app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
        let fits = if app.route("IngressRoute").is_some() {
            "ingressroute"
        } else if app.route("Ingress").is_some() {
            "ingress"
        } else {
            "substitution"
        };
        match app.form(FORMS, fits)? {
            "ingressroute" => ingress_route(app, wake, true),
            "ingressroute-errors" => ingress_route(app, wake, false),
            "ingress" => ingress(app, wake),
            "nginx-annotations" => nginx_annotations(app, wake),
            _ => Ok(Rendered::substitution(&[if app.route("HTTPRoute").is_some() {
                "Traefik answers 503 for an HTTPRoute whose Service is empty, and has no hook there: substitution serves it."
            } else {
                "Nothing to apply: Traefik follows EndpointSlices."
            }])),
        }
    }

    fn target<'a>(&self, head: &RequestHead<'a>) -> Result<Target<'a>, Doubt> {
        // Set by the middleware `stripPrefix`; a client's own is dropped.
        let prefix = head.one("x-forwarded-prefix")?.unwrap_or_default();
        if head.path() == "/wake" && head.query().starts_with("u=") {
            let value = head.query().trim_start_matches("u=").split('&').next().unwrap_or_default();
            let url = decoded(value).ok_or(Doubt::Where)?;
            let (host, uri) = split(&url).ok_or(Doubt::Where)?;
            if !same_host(host, head.host.ok_or(Doubt::Whom)?) {
                return Err(Doubt::Whom);
            }
            return head.about(&format!("{prefix}{uri}"), Reach::GoneForGood);
        }
        // `custom-http-errors` asks for the root by GET, and says there what it was about. Elsewhere these are the client's.
        if head.uri == "/"
            && head.one("x-code")?.is_some()
            && let Some(uri) = head.one("x-original-uri")?
        {
            return head.about(&format!("{prefix}{uri}"), Reach::Gone);
        }
        head.about(&format!("{prefix}{}", head.uri), Reach::Here)
    }
}

/// Host and the rest of a URL.
fn split(url: &str) -> Option<(&str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    if !matches!(scheme, "http" | "https" | "ws" | "wss") {
        return None;
    }
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, uri) = rest.split_at(at);
    let root = if uri.starts_with('/') { "" } else { "/" };
    Some((host, format!("{root}{uri}")))
}

fn same_host(one: &str, other: &str) -> bool {
    let name = |host: &str| {
        let end = host.rfind(':').filter(|at| !host[*at..].contains(']')).unwrap_or(host.len());
        host.get(..end).unwrap_or_default().trim_end_matches('.').to_ascii_lowercase()
    };
    name(one) == name(other)
}

fn since(app: &App, major: u32, minor: u32, what: &str) -> Result<(), Unfit> {
    let least = Version { major, minor };
    match app.version {
        Some(version) if version < least => Err(Unfit::new(
            format!("Traefik {version} has no {what}, which came with {least}"),
            "leave it to substitution, which needs nothing of Traefik: `--form substitution`, or `kubenap/proxy: any`",
        )),
        _ => Ok(()),
    }
}

fn middleware(name: &str, namespace: &str, service: &Value) -> Piece {
    Piece::Object(json!({
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "Middleware",
        "metadata": { "name": name, "namespace": namespace, "labels": labels() },
        "spec": { "errors": {
            "status": ["502"],
            "statusRewrites": { "502": 307 },
            "query": "/wake?u={url}",
            "service": service,
        } },
    }))
}

const OWN_502: &str = "a 502 of the app's own is taken for its sleep, and asked for again";

/// A route of our own, like the app's but before it: nothing of the app's own objects is changed.
fn ingress_route(app: &App, wake: &WakeAddress, fails_over: bool) -> Result<Rendered, Unfit> {
    if fails_over {
        since(app, 3, 7, "failover by status")?;
    } else {
        since(app, 3, 4, "statusRewrites")?;
    }
    if let Some(rule) = app.unread().first() {
        return Err(Unfit::new(
            format!(
                "the rule `{rule}` is not understood, and KubeNap would answer 404 for what only it leads to"
            ),
            "write it with Host, Path and PathPrefix, or leave it to substitution: `--form substitution`, or `kubenap/proxy: any`",
        ));
    }
    let (name, namespace) = (own_name(app), &app.id.namespace);
    let mut pieces = Vec::from(service_beside(app, wake)?);
    let kubenap = json!({ "name": name, "port": PORT });
    if !fails_over {
        pieces.push(middleware(&name, namespace, &kubenap));
    }
    let mut routes = Vec::new();
    let mut templates = Vec::new();
    for object in app.routes.iter().filter(|route| route.kind() == "IngressRoute").map(|route| &route.object)
    {
        let mut own = Vec::new();
        for route in object["spec"]["routes"].as_array().into_iter().flatten() {
            let services = route["services"].as_array().map_or(&[][..], Vec::as_slice);
            let [service] = services else { continue };
            let here = service["namespace"].is_null() || service["namespace"] == *app.id.namespace;
            let served = here && app.services.iter().any(|own| service["name"] == *own.name);
            if !served || service["kind"] == "TraefikService" {
                continue;
            }
            let mut route = route.clone();
            let mut service = service.clone();
            service["nativeLB"] = json!(true);
            // Among themselves as Traefik has it: the longer goes first.
            let length = route["match"].as_str().map_or(0, str::len);
            route["priority"] =
                json!(route["priority"].as_u64().unwrap_or(length as u64).saturating_add(FIRST));
            if fails_over {
                // One for all that is said of a Service, not for its port alone: other routes lead to another Service, or to
                // this one by another scheme. And not `kubenap-web-80`: that is what Traefik itself calls port 80 of the
                // Service `kubenap-web`, and every request, also for an app that is awake, would go there.
                let made = format!("{name}-{}-failover", digest(&service.to_string()));
                if !templates
                    .iter()
                    .any(|piece| matches!(piece, Piece::Object(object) if object["metadata"]["name"] == made))
                {
                    templates.push(failover(&made, namespace, &service, &kubenap));
                }
                route["services"] = json!([{ "name": made, "kind": "TraefikService" }]);
            } else {
                let mut middlewares = vec![json!({ "name": name })];
                middlewares.extend(route["middlewares"].as_array().into_iter().flatten().cloned());
                route["middlewares"] = Value::Array(middlewares);
                route["services"] = json!([service]);
            }
            own.push(route);
        }
        if own.is_empty() {
            continue;
        }
        let mut spec = object["spec"].clone();
        spec["routes"] = Value::Array(own);
        let original = object["metadata"]["name"].as_str().unwrap_or_default();
        let mut metadata =
            json!({ "name": beside(app, original), "namespace": namespace, "labels": labels() });
        // Which of several Traefiks serves it.
        if let Some(class) = object["metadata"]["annotations"]["kubernetes.io/ingress.class"].as_str() {
            metadata["annotations"] = json!({ "kubernetes.io/ingress.class": class });
        }
        let (api_version, kind) = ("traefik.io/v1alpha1", "IngressRoute");
        routes.push(Piece::Object(
            json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec }),
        ));
    }
    if routes.is_empty() {
        return Err(Unfit::new(
            format!("no IngressRoute leads to {} by one Service alone", app.id),
            "name its file with -f, or leave it to substitution",
        ));
    }
    pieces.extend(templates);
    pieces.extend(routes);
    let (form, cost) = if fails_over {
        (
            "ingressroute",
            "each body is held whole in Traefik's memory before the app gets it; a 502 of the app's own is asked for again",
        )
    } else {
        ("ingressroute-errors", OWN_502)
    };
    Ok(Rendered {
        form,
        pieces,
        notes: notes(if fails_over {
            &[
                "Set no maxRequestBodyBytes: Traefik 3.7 allocates that much for every request, whatever its body.",
                "Applied while the app sleeps only, it costs an awake app nothing: that is what --manage-proxies does. For good, take --form ingressroute-errors, which buffers nothing.",
            ]
        } else {
            &[
                "After replacePath and replacePathRegex the original path is lost: leave such routes to substitution.",
            ]
        }),
        hook: Hook::Touches(cost),
        by_hand: None,
    })
}

fn failover(name: &str, namespace: &str, service: &Value, kubenap: &Value) -> Piece {
    Piece::Object(json!({
        "apiVersion": "traefik.io/v1alpha1",
        "kind": "TraefikService",
        "metadata": { "name": name, "namespace": namespace, "labels": labels() },
        "spec": { "failover": {
            "service": service,
            "fallback": kubenap,
            // No maxRequestBodyBytes: Traefik 3.7 would allocate that much for each request, also for one without a body.
            "errors": { "status": ["502"] },
        } },
    }))
}

fn ingress(app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
    const MIDDLEWARES: &str = "traefik.ingress.kubernetes.io/router.middlewares";
    since(app, 3, 4, "statusRewrites")?;
    let name = shared_name(app);
    // nativeLB: or, with KubeNap's own pods gone, Traefik would drop the routers of all apps that name it.
    let service = json!({ "name": wake.service, "port": wake.port, "nativeLB": true });
    let mut pieces = vec![middleware(&name, &wake.namespace, &service)];
    for service in service_names(app) {
        let native = json!({ "traefik.ingress.kubernetes.io/service.nativelb": "true" });
        pieces.push(annotations("v1", "Service", app, service, &native));
    }
    let (mut by_hand, neighbours) = shared(app).unzip();
    let own = format!("{}-{name}@kubernetescrd", wake.namespace);
    let mut found = false;
    for route in app.routes.iter().filter(|route| route.kind() == "Ingress") {
        found = true;
        let before = route
            .annotation(MIDDLEWARES)
            .map(|text| text.split(',').map(str::trim).filter(|one| *one != own));
        let others: Vec<_> = before.into_iter().flatten().collect();
        if !others.is_empty() {
            by_hand = Some("the Ingress names middlewares of its own already");
        }
        let all: Vec<_> = std::iter::once(own.as_str()).chain(others).collect();
        pieces.push(annotations(
            "networking.k8s.io/v1",
            "Ingress",
            app,
            route.name(),
            &json!({ MIDDLEWARES: all.join(",") }),
        ));
    }
    if !found {
        return Err(no_ingress(app));
    }
    Ok(Rendered {
        form: "ingress",
        pieces,
        notes: notes(&[
            "nativelb: without it Traefik drops the router of an empty Service, and answers 404 before any middleware runs.",
            "The middleware asks by GET and makes a 307 of every answer: an app that cannot start answers 307 without a Location.",
            "After replacePath and replacePathRegex the original path is lost: leave such routes to substitution.",
        ]).into_iter().chain(neighbours).collect(),
        hook: Hook::Touches(
            "a 502 of the app's own is taken for its sleep; kube-proxy instead of Traefik spreads its requests over its pods",
        ),
        by_hand,
    })
}

fn nginx_annotations(app: &App, wake: &WakeAddress) -> Result<Rendered, Unfit> {
    const BACKEND: &str = "nginx.ingress.kubernetes.io/default-backend";
    const ERRORS: &str = "nginx.ingress.kubernetes.io/custom-http-errors";
    // Traefik gives nothing new to a pod that ends, and answers 503 itself for as long as one that calls itself ready is the
    // last: the default backend is only for a Service with none at all.
    const CAUGHT: &str = "502,503";
    since(app, 3, 7, "default-backend")?;
    let name = own_name(app);
    let mut pieces = Vec::from(service_beside(app, wake)?);
    let (mut by_hand, neighbours) = shared(app).unzip();
    let mut found = false;
    for route in app.routes.iter().filter(|route| route.kind() == "Ingress") {
        found = true;
        if route.annotation(BACKEND).is_some_and(|own| own != name) {
            by_hand = Some("the Ingress has a default backend already");
        }
        if route.annotation(ERRORS).is_some_and(|own| own != CAUGHT) {
            by_hand = Some("the Ingress has custom-http-errors already");
        }
        pieces.push(annotations(
            "networking.k8s.io/v1",
            "Ingress",
            app,
            route.name(),
            &json!({ BACKEND: name, ERRORS: CAUGHT }),
        ));
    }
    if !found {
        return Err(no_ingress(app));
    }
    Ok(Rendered {
        form: "nginx-annotations",
        pieces,
        notes: notes(&[
            "custom-http-errors: without it Traefik answers 503 itself for as long as the last pod ends and still calls itself ready.",
        ]).into_iter().chain(neighbours).collect(),
        hook: Hook::Touches("a 502 or 503 of the app's own is taken for its sleep, and asked for again"),
        by_hand,
    })
}

fn service_names(app: &App) -> Vec<&str> {
    let mut names: Vec<_> = app.services.iter().map(|service| service.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn no_ingress(app: &App) -> Unfit {
    Unfit::new(
        format!("no Ingress leads to {}", app.id),
        "name its file with -f, or leave it to substitution",
    )
}

fn notes(notes: &[&str]) -> Vec<String> {
    let listener = "Run KubeNap with `--proxy-listen traefik=0.0.0.0:8080`, so that nothing but what Traefik sets is read.";
    std::iter::once(&listener).chain(notes).map(|note| (*note).to_owned()).collect()
}
