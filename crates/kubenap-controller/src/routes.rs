//! What sources are asked about, and which hosts lead to which app: both follow Services, Ingresses and other routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::app::AppId;
use kubenap_core::policy;
use kubenap_core::seen::{ServicePort, ServiceSeen};
use tokio::sync::watch;

use crate::activity::{Names, Target, TargetPort, TargetService, Watched};
use crate::cluster::around::Around;
use crate::cluster::slim::{SlimIngress, SlimIngressClass, SlimRule, SlimService};
use crate::cluster::space::Space;
use crate::cluster::{observe, watched};
use crate::decide::events::Reason;
use crate::decide::{Context, entrances};
use crate::elsewhere;
use crate::leading::by_service;
use crate::wake::{DoorKey, DoorSpec, HostRule};

/// How often routes are read from the stores again.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps targets and hosts in line with the stores.
pub async fn follow(cx: Arc<Context>, targets: watch::Sender<Watched>) {
    let mut told = BTreeSet::new();
    let mut read_at = None;
    let mut late = Vec::new();
    let mut left_out = 0;
    loop {
        if cx.lead.holds() {
            complain(&cx, &late, &mut told);
        }
        let version = cx.stores.routes_version();
        if read_at.replace(version) == Some(version) {
            tokio::time::sleep(PERIOD).await;
            continue;
        }
        let (watched, claims) = read(&cx);
        let (hosts, latecomers) = oldest_win(claims);
        late = latecomers;
        let elsewhere = elsewhere::read(&cx.stores, &watched.targets);
        if elsewhere.left_out > 0 && left_out == 0 {
            tracing::warn!(
                rules = elsewhere.left_out,
                "so many rules lead to Services of no app on hosts of apps that some are not kept: requests for them wake the app whose host it is"
            );
        }
        left_out = elsewhere.left_out;
        cx.doors.set_hosts(hosts, elsewhere.places);
        targets.send_if_modified(|old| {
            let changed = old.targets != watched.targets || old.history != watched.history;
            if changed {
                *old = watched;
            }
            changed
        });
        tokio::time::sleep(PERIOD).await;
    }
}

/// Reads all apps' targets and hosts from the stores.
fn read(cx: &Context) -> (Watched, Vec<Claim>) {
    let mut targets = Vec::new();
    let mut claims = Vec::new();
    let mut history = cx.settings.idle_after;
    let classes = cx.stores.ingress_classes.within("");
    // Before the routes themselves: a kind that is listed from now on is in them, or is still a doubt.
    let is_unlisted = cx.stores.unlisted.count() > 0;
    let named: Vec<_> = cx.stores.routes.iter().map(watched::Watched::all).collect();
    let others: Vec<_> = cx.stores.other_routes.iter().map(watched::Watched::all).collect();
    let leading = by_service(&named, &others);
    for app in cx.stores.apps() {
        let Some(around) = Around::cached(&cx.stores, &app) else { continue };
        if !policy::opted_in(&around.deployment.labels) {
            continue;
        }
        let reading = observe::reading(&around.deployment, &cx.defaults);
        history = history.max(reading.policy.idle_after);
        let (services, _) = observe::services_of(&around, &around.deployment, &reading.policy);
        let ingresses = cx.stores.ingresses.within(&app.namespace);
        let routes: Vec<_> = cx.stores.routes.iter().map(|store| store.within(&app.namespace)).collect();
        let chosen = |name: &str| {
            reading.policy.ingresses.as_ref().is_none_or(|names| names.iter().any(|chosen| chosen == name))
        };
        let mut apps = observe::peers_of(&around, &reading.policy);
        apps.push(app.clone());
        apps.sort();
        let mut seen = Vec::with_capacity(services.len());
        for service in &services {
            let own = || ingresses.iter().filter(|(name, _)| chosen(name));
            let mut target = target_service(&app.namespace, service, own(), &classes);
            leading.add_to(&mut target);
            // Such a route could lead anywhere.
            target.unseen |= is_unlisted;
            let all = ingresses.iter().map(|(name, ingress)| (name, &**ingress));
            let all = all.chain(
                routes.iter().flat_map(|space| space.iter().map(|(name, route)| (name, &route.ingress))),
            );
            for (_, ingress) in all.filter(|(name, _)| chosen(name)) {
                for rule in ingress.rules.iter().filter(|rule| rule.service == service.seen.name) {
                    let Some(number) = port_of(&service.seen, &rule.port) else { continue };
                    let key = entrances::key_of(&app, &service.seen, number);
                    let manners = entrances::manners(&reading.policy);
                    let key = cx.doors.declare(DoorSpec { key, apps: apps.clone(), manners });
                    claims.push(Claim {
                        rule: host_rule(rule, key),
                        since: ingress.created,
                        app: app.clone(),
                        uid: around.deployment.seen.uid.clone(),
                    });
                }
            }
            seen.push(target);
        }
        let pods: Names = observe::own_pods(&around, &around.deployment)
            .filter(|(_, pod)| !pod.seen.deleting)
            .map(|(name, _)| name.to_owned())
            .collect();
        targets.push(Target {
            services: seen.into(),
            pods: Some(pods),
            query: reading.policy.query.map(String::into_boxed_str),
            ignore_paths: reading.policy.ignore_paths,
            ignore_user_agents: reading.policy.ignore_user_agents,
            ..Target::of(app)
        });
    }
    (Watched { targets: targets.into(), history }, claims)
}

/// The number of the port that a route means: by number or name, or the only one where it does not say.
fn port_of(service: &ServiceSeen, wanted: &str) -> Option<u16> {
    let means = |port: &&ServicePort| {
        port.number.to_string() == wanted || (!port.name.is_empty() && port.name == wanted)
    };
    match service.ports.as_slice() {
        [only] if wanted.is_empty() => Some(only.number),
        ports => ports.iter().find(means).map(|port| port.number),
    }
}

/// What an Ingress or another route says leads to an app.
#[derive(Clone, Debug)]
struct Claim {
    rule: HostRule,
    /// How old the route is.
    since: Timestamp,
    app: AppId,
    uid: String,
}

/// The rules that hold, in order, and the claims that came too late: what one namespace has claimed, no other takes
/// away from it, nor makes it ambiguous.
fn oldest_win(mut claims: Vec<Claim>) -> (Vec<HostRule>, Vec<Claim>) {
    let order = |claim: &Claim| (claim.rule.key.clone(), claim.since);
    claims.sort_by_cached_key(order);
    let what = |rule: &HostRule| {
        (rule.host.to_ascii_lowercase(), rule.path.trim_end_matches('/').to_owned(), rule.exact)
    };
    let mut owners: BTreeMap<_, (Timestamp, Arc<str>)> = BTreeMap::new();
    for claim in &claims {
        let own = (claim.since, Arc::clone(&claim.rule.key.namespace));
        owners
            .entry(what(&claim.rule))
            .and_modify(|owner| *owner = own.clone().min(owner.clone()))
            .or_insert(own);
    }
    let holds = |claim: &Claim| {
        owners.get(&what(&claim.rule)).is_some_and(|(_, namespace)| *namespace == claim.rule.key.namespace)
    };
    let (hold, late): (Vec<_>, Vec<_>) = claims.into_iter().partition(holds);
    let mut rules: Vec<_> = hold.into_iter().map(|claim| claim.rule).collect();
    rules.sort_by(|a, b| (&a.host, &a.path, a.exact, &a.key).cmp(&(&b.host, &b.path, b.exact, &b.key)));
    rules.dedup();
    (rules, late)
}

/// Tells each app once that another namespace was there before it.
fn complain(cx: &Context, late: &[Claim], told: &mut BTreeSet<(AppId, String)>) {
    told.retain(|(app, host)| late.iter().any(|claim| claim.app == *app && claim.rule.host == *host));
    for Claim { rule, app, uid, .. } in late {
        if !told.insert((app.clone(), rule.host.clone())) {
            continue;
        }
        // Whose Ingress it is, is nothing that this namespace is told.
        let note = format!(
            "requests for {} on proxies' error paths do not wake it: an older route of another namespace has this host and path",
            rule.host
        );
        tracing::warn!(%app, "{note}");
        cx.events.send_once(app, uid, Reason::WakeFailed, &note);
    }
}

/// A Service, and these Ingresses as far as they lead to it.
pub(crate) fn target_service<'a>(
    namespace: &str,
    service: &SlimService,
    ingresses: impl Iterator<Item = (&'a str, &'a Arc<SlimIngress>)>,
    classes: &Space<SlimIngressClass>,
) -> TargetService {
    let port = |port: &ServicePort| TargetPort {
        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
        number: port.number,
    };
    let mut target = TargetService {
        namespace: namespace.to_owned(),
        name: service.seen.name.clone(),
        ports: service.seen.ports.iter().map(port).collect(),
        ..TargetService::default()
    };
    for (name, ingress) in ingresses {
        add_rules(&mut target, name, ingress, classes);
    }
    target.ingresses.shrink_to_fit();
    target
}

fn add_rules(
    target: &mut TargetService,
    name: &str,
    ingress: &SlimIngress,
    classes: &Space<SlimIngressClass>,
) {
    let rules: Vec<_> = ingress.rules.iter().filter(|rule| rule.service == target.name).collect();
    if rules.is_empty() {
        return;
    }
    target.ingress_ports.extend(rules.iter().map(|rule| rule.port.clone()));
    target.open_hosts |= rules.iter().any(|rule| rule.host.as_ref().is_none_or(|host| host.starts_with('*')));
    target
        .hosts
        .extend(rules.iter().filter_map(|rule| rule.host.as_ref()).map(|host| host.to_ascii_lowercase()));
    target.controllers.extend(controller(ingress, classes));
    target.ingresses.push((target.namespace.clone(), name.to_owned()));
    // Most Services have one, and thousands of apps have a Service each.
    target.ingresses.shrink_to_fit();
}

/// Which proxy serves the Ingress, as far as its class says.
fn controller(ingress: &SlimIngress, classes: &Space<SlimIngressClass>) -> Option<String> {
    let class = match &ingress.class {
        Some(name) => classes.get(name)?,
        None => default_class(classes)?.1,
    };
    Some(class.controller.clone()).filter(|controller| !controller.is_empty())
}

/// The class of Ingresses that name none, with its name. Of several default classes none counts.
pub(crate) fn default_class(classes: &Space<SlimIngressClass>) -> Option<(&str, &SlimIngressClass)> {
    let mut defaults = classes.iter().filter(|(_, class)| class.is_default);
    defaults.next().filter(|_| defaults.next().is_none()).map(|(name, class)| (name, &**class))
}

fn host_rule(rule: &SlimRule, key: DoorKey) -> HostRule {
    let host = rule.host.clone().unwrap_or_else(|| "*".to_owned());
    HostRule { host, path: rule.path.clone(), exact: rule.exact, key }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
    use serde_json::{Value, json};

    use super::*;
    use crate::cluster::slim::Slim as _;

    const TRAEFIK: &str = "traefik.io/ingress-controller";
    const HAPROXY: &str = "haproxy.org/ingress-controller";

    fn classes(of: &[(&str, &str, bool)]) -> Space<SlimIngressClass> {
        let class = |&(name, controller, is_default): &(&str, &str, bool)| {
            let annotation = json!({ "ingressclass.kubernetes.io/is-default-class": is_default.to_string() });
            let class: IngressClass = serde_json::from_value(json!({
                "metadata": { "name": name, "annotations": annotation },
                "spec": { "controller": controller },
            }))
            .unwrap();
            (name.to_owned(), SlimIngressClass::of(class))
        };
        of.iter().map(class).collect()
    }

    fn ingress(annotations: &Value, spec: &Value) -> SlimIngress {
        let ingress = json!({ "metadata": { "name": "web", "annotations": annotations }, "spec": spec });
        SlimIngress::of(serde_json::from_value::<Ingress>(ingress).unwrap())
    }

    fn backend() -> Value {
        json!({ "service": { "name": "web", "port": { "number": 80 } } })
    }

    fn controllers(ingress: &SlimIngress, of: &[(&str, &str, bool)]) -> Vec<String> {
        let mut target = TargetService { name: "web".to_owned(), ..TargetService::default() };
        add_rules(&mut target, "web", ingress, &classes(of));
        target.controllers.to_vec()
    }

    #[test]
    fn the_class_of_an_ingress_tells_its_controller() {
        let both = [("traefik", TRAEFIK, true), ("haproxy", HAPROXY, false)];
        let named =
            |class| ingress(&Value::Null, &json!({ "ingressClassName": class, "defaultBackend": backend() }));
        assert_eq!(controllers(&named("haproxy"), &both), [HAPROXY]);
        assert_eq!(controllers(&named("traefik"), &both), [TRAEFIK]);
        assert!(controllers(&named("unheard-of"), &both).is_empty());
        assert!(controllers(&named("haproxy"), &[]).is_empty());
        let old = json!({ "kubernetes.io/ingress.class": "haproxy" });
        let old = ingress(&old, &json!({ "defaultBackend": backend() }));
        assert_eq!(controllers(&old, &both), [HAPROXY]);
    }

    #[test]
    fn an_ingress_without_a_class_takes_the_default_class_if_there_is_one_only() {
        let open = ingress(&Value::Null, &json!({ "defaultBackend": backend() }));
        let (traefik, haproxy) = (("traefik", TRAEFIK, true), ("haproxy", HAPROXY, true));
        assert_eq!(controllers(&open, &[traefik, ("haproxy", HAPROXY, false)]), [TRAEFIK]);
        assert!(controllers(&open, &[traefik, haproxy]).is_empty());
        assert!(controllers(&open, &[("traefik", TRAEFIK, false)]).is_empty());
    }

    #[test]
    fn a_rule_without_a_host_is_for_every_host_and_an_exact_path_stays_exact() {
        let path = |path: &str, kind: &str| json!({ "path": path, "pathType": kind, "backend": backend() });
        let ingress = ingress(
            &Value::Null,
            &json!({
                "defaultBackend": backend(),
                "rules": [
                    { "http": { "paths": [path("/open", "Prefix")] } },
                    { "host": "", "http": { "paths": [path("/empty", "ImplementationSpecific")] } },
                    { "host": "web.example", "http": { "paths": [path("/a", "Exact")] } },
                ],
            }),
        );
        let key = DoorKey { namespace: "shop".into(), service: "web".into(), port: 80 };
        let hosts: Vec<_> = ingress.rules.iter().map(|rule| host_rule(rule, key.clone())).collect();
        let hosts: Vec<_> =
            hosts.iter().map(|rule| (rule.host.as_str(), rule.path.as_str(), rule.exact)).collect();
        let expected =
            [("*", "/", false), ("*", "/open", false), ("*", "/empty", false), ("web.example", "/a", true)];
        assert_eq!(hosts, expected);
    }

    #[test]
    fn a_host_that_another_namespace_claims_later_stays_with_the_first() {
        let claim = |host: &str, path: &str, namespace: &str, service: &str, since: i64| Claim {
            rule: HostRule {
                host: host.into(),
                path: path.into(),
                exact: false,
                key: DoorKey { namespace: namespace.into(), service: service.into(), port: 80 },
            },
            since: Timestamp::from_second(since).unwrap(),
            app: AppId::new(namespace, service),
            uid: String::new(),
        };
        let claims = vec![
            claim("Shop.example", "/", "thief", "web", 20),
            claim("shop.example", "", "victim", "web", 10),
            claim("shop.example", "/own", "thief", "web", 20),
            // Within a namespace it is for its people to settle; the table of hosts then answers 404.
            claim("two.example", "/", "victim", "a", 10),
            claim("two.example", "/", "victim", "b", 30),
        ];
        let (rules, late) = oldest_win(claims);
        let leads: Vec<_> =
            rules.iter().map(|rule| format!("{}{} {}", rule.host, rule.path, rule.key)).collect();
        assert_eq!(
            leads,
            [
                "shop.example victim/web:80",
                "shop.example/own thief/web:80",
                "two.example/ victim/a:80",
                "two.example/ victim/b:80",
            ]
        );
        let late: Vec<_> = late.iter().map(|claim| format!("{} {}", claim.app, claim.rule.path)).collect();
        assert_eq!(late, ["thief/web /"]);
    }
}
