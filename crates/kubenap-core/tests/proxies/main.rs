//! What every proxy is told in each of its forms, written down; and the guide, which shows the same texts.
//! `UPDATE_EXPECT=1 cargo test -p kubenap-core --test proxies` writes both anew.
#![expect(clippy::unwrap_used, reason = "a manifest that cannot be read is a failed test")]

mod given;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use expect_test::expect_file;
use kubenap_core::app::AppId;
use kubenap_core::proxy::read::read;
use kubenap_core::proxy::{App, Form, Hook, PLUGINS, Piece, Proxy, ProxyPlugin, Rendered, WakeAddress};
use serde_json::Value;

/// An app whose way in is a route of this kind. A text for a file has its hosts from an Ingress.
fn app(route: Option<&str>) -> App {
    let name = route.map_or("plain".to_owned(), str::to_ascii_lowercase);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/proxies/apps/{name}.yaml"));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&fs::read_to_string(path).unwrap()).unwrap();
    read(&AppId::new("shop", "web"), &objects).unwrap().app
}

fn wake() -> WakeAddress {
    WakeAddress { ip: Some("10.96.0.7".parse().unwrap()), ..WakeAddress::default() }
}

fn rendered(plugin: &dyn ProxyPlugin, form: &Form) -> Rendered {
    let app = App { form: Some(form.name.to_owned()), ..app(form.route.or(Some("Ingress"))) };
    let rendered = plugin.render(&app, &wake()).unwrap_or_else(|unfit| panic!("{}: {unfit}", form.name));
    assert_eq!(rendered.form, form.name, "{}", plugin.name());
    rendered
}

/// Objects as YAML documents; texts as they are.
fn text(rendered: &Rendered) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Object(value) | Piece::Fields(value) => serde_saphyr::to_string(value).unwrap(),
        Piece::Text { place, text } => format!("# Goes into {place}.\n{text}"),
    };
    rendered.pieces.iter().map(piece).collect::<Vec<_>>().join("---\n")
}

/// What must be known beside it.
fn notes(rendered: &Rendered) -> Vec<String> {
    let awake = match rendered.hook {
        Hook::None => None,
        Hook::Silent => Some("Awake: untouched.".to_owned()),
        Hook::Touches(cost) => Some(format!("Awake: {cost}.")),
    };
    let by_hand = rendered.by_hand.map(|why| format!("By hand: {why}."));
    awake.into_iter().chain(by_hand).chain(rendered.notes.iter().cloned()).collect()
}

fn forms() -> impl Iterator<Item = (&'static dyn ProxyPlugin, &'static Form)> {
    PLUGINS.iter().flat_map(|plugin| plugin.forms().iter().map(|form| (*plugin, form)))
}

#[test]
fn every_form_of_every_proxy_is_rendered_as_it_is_written_down() {
    for (plugin, form) in forms() {
        let rendered = rendered(plugin, form);
        let place = format!("{}/{}", plugin.name(), form.name);
        if !rendered.pieces.is_empty() {
            let ending = if form.route.is_some() { "yaml" } else { "conf" };
            expect_file![format!("{place}.{ending}")].assert_eq(&text(&rendered));
        }
        expect_file![format!("{place}.notes")].assert_eq(&(notes(&rendered).join("\n") + "\n"));
    }
}

#[test]
fn a_form_that_nobody_names_is_the_one_that_fits_the_route() {
    for (proxy, route, fits) in [
        ("nginx", None, "plain"),
        ("nginx", Some("Ingress"), "ingress-nginx"),
        ("traefik", Some("IngressRoute"), "ingressroute"),
        ("traefik", Some("Ingress"), "ingress"),
        ("traefik", Some("HTTPRoute"), "substitution"),
        ("envoy", None, "lua"),
        ("any", Some("Ingress"), "substitution"),
    ] {
        let plugin = Proxy::find(proxy).unwrap().plugin();
        assert_eq!(plugin.render(&app(route), &wake()).unwrap().form, fits, "{proxy} {route:?}");
    }
}

#[test]
fn what_somebody_has_written_before_is_kept_and_left_to_be_done_by_hand() {
    let mut app = app(Some("Ingress"));
    app.routes[0].object["metadata"]["annotations"] = serde_json::json!({
        "nginx.ingress.kubernetes.io/default-backend": "mine",
        "traefik.ingress.kubernetes.io/router.middlewares": "shop-auth@kubernetescrd",
    });
    for (proxy, kept) in [("nginx", None), ("traefik", Some("shop-auth@kubernetescrd"))] {
        let rendered = Proxy::find(proxy).unwrap().plugin().render(&app, &wake()).unwrap();
        assert!(rendered.by_hand.is_some(), "{proxy}");
        assert!(kept.is_none_or(|kept| text(&rendered).contains(kept)), "{proxy}: {}", text(&rendered));
    }
}

#[test]
fn an_old_traefik_is_told_of_and_left_to_substitution() {
    let traefik = Proxy::find("traefik").unwrap().plugin();
    for (version, route, form, says) in [
        ("3.3", "Ingress", "ingress", "Traefik 3.3 has no statusRewrites, which came with 3.4"),
        (
            "2.11",
            "IngressRoute",
            "ingressroute-errors",
            "Traefik 2.11 has no statusRewrites, which came with 3.4",
        ),
        (
            "v3.6.2",
            "IngressRoute",
            "ingressroute",
            "Traefik 3.6 has no failover by status, which came with 3.7",
        ),
    ] {
        let app =
            App { form: Some(form.to_owned()), version: Some(version.parse().unwrap()), ..app(Some(route)) };
        let unfit = traefik.render(&app, &wake()).unwrap_err().to_string();
        assert!(unfit.starts_with(says) && unfit.contains("hint: leave it to substitution"), "{unfit}");
        let newer = App { version: Some("3.7".parse().unwrap()), ..app };
        assert!(traefik.render(&newer, &wake()).is_ok());
    }
}

#[test]
fn a_form_that_does_not_fit_or_exist_says_what_to_do() {
    let plugin = |name| Proxy::find(name).unwrap().plugin();
    let form = |form: &str, route| App { form: Some(form.to_owned()), ..app(route) };
    for (unfit, says) in [
        (plugin("nginx").render(&form("plane", None), &wake()), "accepted: plain, ingress-nginx"),
        (plugin("nginx").render(&form("f5", None), &wake()), "no Ingress leads to shop/web"),
        (plugin("envoy-gateway").render(&app(Some("Ingress")), &wake()), "no HTTPRoute leads to shop/web"),
        (plugin("nginx").render(&app(Some("Ingress")), &WakeAddress::default()), "hint: give --wake-ip"),
    ] {
        let said = unfit.unwrap_err().to_string();
        assert!(said.contains(says) && said.contains("\nhint: "), "{said}");
    }
}

#[test]
fn the_names_that_the_annotation_accepts_are_those_of_the_plugins() {
    let key = kubenap_core::policy::KEYS.iter().find(|key| key.name == "proxy").unwrap();
    assert_eq!(key.accepted.replace(" or ", ", "), Proxy::names());
}

#[test]
fn the_guide_shows_every_form_as_it_is_rendered() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/proxies");
    let mut texts: BTreeMap<String, String> = forms()
        .map(|(plugin, form)| (format!("{}/{}", plugin.name(), form.name), shown(plugin, form)))
        .collect();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap();
        let mut written = String::new();
        let mut rest = page.as_str();
        while let Some((before, after)) = rest.split_once("<!-- rendered: ") {
            let (name, after) = after.split_once(" -->\n").unwrap();
            let (_, after) = after.split_once("<!-- end -->").unwrap();
            let text = texts
                .remove(name)
                .unwrap_or_else(|| panic!("{}: `{name}` is no form, or shown twice", path.display()));
            written += &format!("{before}<!-- rendered: {name} -->\n{text}<!-- end -->");
            rest = after;
        }
        expect_file![path].assert_eq(&(written + rest));
    }
    assert!(texts.is_empty(), "no page shows {:?}", texts.keys());
}

/// A form as the guide shows it.
fn shown(plugin: &dyn ProxyPlugin, form: &Form) -> String {
    let rendered = rendered(plugin, form);
    let mut page = format!("\n`{}`: {}.\n", form.name, form.about);
    if !rendered.pieces.is_empty() {
        let language = match (plugin.name(), form.route) {
            ("nginx", None) => "nginx",
            ("envoy", _) | (_, Some(_)) => "yaml",
            _ => "text",
        };
        page += &format!("\n```{language}\n{}\n```\n", text(&rendered).trim_end());
    }
    page.push('\n');
    for note in notes(&rendered) {
        page += &format!("* {note}\n");
    }
    page + "\n"
}
