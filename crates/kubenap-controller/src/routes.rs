//! What sources are asked about, and which hosts lead to which app: both follow Services and Ingresses.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kubenap_core::policy;
use tokio::sync::watch;

use crate::activity::{Target, TargetPort, TargetService, Watched};
use crate::cluster::around::Around;
use crate::cluster::observe;
use crate::cluster::slim::SlimIngress;
use crate::decide::{Context, entrances};
use crate::wake::{DoorKey, DoorSpec, HostRule};

/// How often routes are read from the stores again.
const PERIOD: Duration = Duration::from_secs(1);

/// Keeps targets and hosts in line with the stores.
pub async fn follow(cx: Arc<Context>, targets: watch::Sender<Watched>) {
    let mut known: Vec<HostRule> = Vec::new();
    loop {
        let (watched, hosts) = read(&cx);
        if known != hosts {
            cx.doors.set_hosts(hosts.clone());
            known = hosts;
        }
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
pub fn read(cx: &Context) -> (Watched, Vec<HostRule>) {
    let mut targets = Vec::new();
    let mut hosts = Vec::new();
    let mut history = cx.settings.idle_after;
    for app in cx.stores.apps() {
        let Some(around) = Around::cached(&cx.stores, &app) else { continue };
        if !policy::opted_in(&around.deployment.labels) {
            continue;
        }
        let reading = observe::reading(&around.deployment, &cx.defaults);
        history = history.max(reading.policy.idle_after);
        let (services, _) = observe::services_of(&around, &around.deployment, &reading.policy);
        let ingresses = cx.stores.ingresses.within(&app.namespace);
        let chosen =
            |name: &String| reading.policy.ingresses.as_ref().is_none_or(|names| names.contains(name));
        let mut apps = observe::peers_of(&around, &reading.policy);
        apps.push(app.clone());
        apps.sort();
        let mut seen = Vec::new();
        for service in &services {
            let mut target = TargetService {
                namespace: app.namespace.clone(),
                name: service.seen.name.clone(),
                ports: service
                    .seen
                    .ports
                    .iter()
                    .map(|port| TargetPort {
                        name: Some(port.name.clone()).filter(|name| !name.is_empty()),
                        number: port.number,
                    })
                    .collect(),
                ..TargetService::default()
            };
            for (name, ingress) in ingresses.iter().filter(|(name, _)| chosen(name)) {
                add_rules(&mut target, name, ingress);
                for rule in ingress.rules.iter().filter(|rule| rule.service == service.seen.name) {
                    let number = service.seen.ports.iter().find(|port| {
                        port.number.to_string() == rule.port
                            || (!port.name.is_empty() && port.name == rule.port)
                    });
                    let (Some(host), Some(port)) = (&rule.host, number) else { continue };
                    let key = DoorKey {
                        namespace: app.namespace.clone(),
                        service: service.seen.name.clone(),
                        port: port.number,
                    };
                    let manners = entrances::manners(&reading.policy);
                    cx.doors.declare(DoorSpec { key: key.clone(), apps: apps.clone(), manners });
                    hosts.push(HostRule { host: host.clone(), path: rule.path.clone(), key });
                }
            }
            seen.push(target);
        }
        let pods: BTreeSet<_> = around
            .pods
            .iter()
            .filter(|(_, pod)| around.deployment.selector.takes(&pod.labels) && !pod.seen.deleting)
            .map(|(name, _)| name.clone())
            .collect();
        targets.push(Target { app, services: seen, pods: Some(pods) });
    }
    hosts.sort_by(|a, b| (&a.host, &a.path, &a.key).cmp(&(&b.host, &b.path, &b.key)));
    hosts.dedup();
    (Watched { targets: targets.into(), history }, hosts)
}

fn add_rules(target: &mut TargetService, name: &str, ingress: &SlimIngress) {
    let rules: Vec<_> = ingress.rules.iter().filter(|rule| rule.service == target.name).collect();
    if rules.is_empty() {
        return;
    }
    target.ingress_ports.extend(rules.iter().map(|rule| rule.port.clone()));
    target.open_hosts |= rules.iter().any(|rule| rule.host.as_ref().is_none_or(|host| host.starts_with('*')));
    target.ingresses.push((target.namespace.clone(), name.to_owned()));
}
