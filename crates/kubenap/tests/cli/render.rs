//! `kubenap render` from files alone: what it prints is what is written down, and what is wrong is named with a hint.

use std::path::Path;

use crate::command::Home;

fn file(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../kubenap-core/tests/proxies");
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn a_proxy_s_text_is_printed_as_it_is_written_down_and_all_else_is_said_beside_it() {
    for (proxy, form, app, written) in [
        ("nginx", "plain", "apps/ingress.yaml", "nginx/plain.conf"),
        ("traefik", "ingressroute", "apps/ingressroute.yaml", "traefik/ingressroute.yaml"),
        ("istio", "envoyfilter", "apps/virtualservice.yaml", "istio/envoyfilter.yaml"),
    ] {
        let app = file(app);
        let args =
            ["render", "shop/web", "-f", &app, "--proxy", proxy, "--form", form, "--wake-ip", "10.96.0.7"];
        let ended = Home::empty().kubenap(&args);
        assert_eq!(ended.code, Some(0), "{ended:#?}");
        assert_eq!(ended.out, std::fs::read_to_string(file(written)).unwrap(), "{proxy} {form}");
        assert!(ended.err.starts_with(&format!("shop/web behind {proxy}, form {form}\n")), "{}", ended.err);
        assert!(ended.err.contains(&format!("--proxy-listen {proxy}=0.0.0.0:8080")), "{}", ended.err);
    }
}

#[test]
fn the_same_is_there_for_programs() {
    let app = file("apps/ingress.yaml");
    let ended = Home::empty()
        .kubenap(&["render", "-n", "shop", "web", "-f", &app, "--proxy", "traefik", "-o", "json"]);
    let data: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!((&data["proxy"], &data["form"]), (&"traefik".into(), &"ingress".into()));
    assert_eq!(data["pieces"][0]["object"]["kind"], "Middleware");
    assert_eq!(data["pieces"][1]["fields"]["kind"], "Service");
}

#[test]
fn files_that_have_kubenap_s_own_service_too_need_no_address() {
    let (app, home) = (file("apps/ingress.yaml"), Home::empty());
    let service =
        "kind: Service\nmetadata: {name: kubenap, namespace: kubenap-system}\nspec: {clusterIP: 10.96.0.7}\n";
    let own = home.file("kubenap.yaml", service);
    let args = ["render", "shop/web", "-f", &app, "-f", own.to_str().unwrap(), "--proxy", "nginx"];
    let ended = home.kubenap(&args);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(ended.out, std::fs::read_to_string(file("nginx/ingress-nginx.yaml")).unwrap());
}

#[test]
fn manifests_are_read_from_standard_input() {
    let app = file("apps/ingress.yaml");
    let args =
        ["render", "shop/web", "-f", "-", "--proxy", "nginx", "--form", "plain", "--wake-ip", "10.96.0.7"];
    let ended = Home::empty().kubenap_reading(&app, &args);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(ended.out, std::fs::read_to_string(file("nginx/plain.conf")).unwrap());
}

#[test]
fn what_cannot_be_rendered_is_named_with_a_hint() {
    let app = file("apps/ingress.yaml");
    let app = app.as_str();
    for (args, says) in [
        (
            &["shop/wbe", "-f", app][..],
            &["no Deployment shop/wbe", "hint: Deployments that are there: web"][..],
        ),
        (
            &["shop/web", "-f", app, "--proxy", "traefik", "--proxy-version", "3.3"],
            &["Traefik 3.3 has no statusRewrites", "hint: leave it to substitution"],
        ),
        (&["shop/web", "-f", app, "--proxy", "nginx"], &["is not known", "hint: give --wake-ip"]),
        (&["shop/web", "-f", "nowhere.yaml"], &["cannot read nowhere.yaml"]),
    ] {
        Home::empty().kubenap(&[&["render"], args].concat()).fails(1, says);
    }
    let home = Home::empty();
    let broken = home.file("broken.yaml", "kind: [Deployment");
    home.kubenap(&["render", "shop/web", "-f", broken.to_str().unwrap()])
        .fails(1, &["broken.yaml is not understood"]);
    home.kubenap(&["render", "shop/web", "-f", app, "--proxy", "apache"])
        .fails(2, &["`apache` is not a proxy; accepted: any, nginx"]);
    home.kubenap(&["render", "shop/web", "-f", app, "--wake-service", "kubenap"])
        .fails(2, &["`kubenap` is no Service; accepted: NAMESPACE/SERVICE"]);
}
