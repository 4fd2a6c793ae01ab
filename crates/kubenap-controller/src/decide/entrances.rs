//! Keeps this member's doors in line with an app: which wake ports listen, and what those who wait may expect.

use std::collections::BTreeSet;
use std::time::Duration;

use kubenap_core::answer::OwnedManners;
use kubenap_core::app::AppId;
use kubenap_core::decide::trouble;
use kubenap_core::policy::Policy;
use kubenap_core::seen::{PortKey, ServiceSeen, Slice, Trouble};
use kubenap_core::situation::Situation;

use super::Context;
use super::gather::Gathered;
use crate::cluster::observe;
use crate::eager;
use crate::wake::{DoorKey, DoorSpec, DoorState};

/// Wake ports listen on for this long after a wake, for proxies that have not heard of it.
const LINGER: Duration = Duration::from_secs(30);
/// When it is worth asking again for an app that its owner scaled to zero.
const RETRY: Duration = Duration::from_secs(10);

/// Opens what must be open. Whether all of the app's wake ports listen here.
pub fn open(cx: &Context, gathered: &Gathered) -> bool {
    // Without substitution only those who follow a slice that is about to go.
    let own =
        |slice: &Slice| slice.member == cx.settings.identity && slice.apps.contains_key(&gathered.app.name);
    let wanted_here = gathered.reading.policy.substitute || gathered.seen.slices.iter().any(own);
    let needed = match gathered.situation() {
        Situation::Drowsy { .. } | Situation::Asleep { .. } | Situation::Waking { .. } => wanted_here,
        Situation::Awake | Situation::OwnersZero => false,
    };
    let record = &gathered.seen.deployment.record.wake_ports;
    let mut listening = true;
    for service in &gathered.seen.services {
        for port in &service.ports {
            let key = key_of(&gathered.app, service, port.number);
            let wanted = record.of(&service.name, port.number).filter(|_| needed);
            for open in cx.doors.ports_of(&key) {
                if Some(open) != wanted {
                    cx.doors.close(open, LINGER);
                }
            }
            let Some(wake_port) = wanted else {
                listening &= !needed;
                continue;
            };
            if let Err(error) = cx.doors.open(wake_port, spec(gathered, key)) {
                tracing::warn!(app = %gathered.app, %error, "a wake port does not listen");
                listening = false;
            }
        }
    }
    listening
}

/// Closes ports that no Deployment's annotations name any more: its app, or its Service, is gone.
pub fn close_unclaimed(cx: &Context) {
    let open = cx.doors.open_ports();
    if open.is_empty() {
        return;
    }
    let spaces = cx.stores.deployments.all();
    let claimed: BTreeSet<(&str, &PortKey, u16)> = spaces
        .values()
        .flat_map(|space| space.values())
        .flat_map(|app| app.seen.record.wake_ports.0.iter().map(|(of, port)| (&*app.id.namespace, of, *port)))
        .collect();
    for (port, key) in open {
        if !claimed.contains(&(&*key.namespace, &(key.service.to_string(), key.port), port)) {
            cx.doors.close(port, LINGER);
        }
    }
}

/// Tells those who wait what to expect.
pub fn tell(cx: &Context, gathered: &Gathered) {
    let situation = gathered.situation();
    let up = gathered.seen.pods_confirmed && eager::has_ready_pods(gathered);
    let trouble = trouble(&gathered.facts(cx));
    let retry_after = cx.memories.with(&gathered.app, |memory| memory.breaker.retry_after());
    let failed = |trouble: Trouble| DoorState::Failed {
        reason: trouble.label(),
        sentence: format!("the app cannot start: {}", trouble.sentence()),
        retry_after,
    };
    for service in &gathered.seen.services {
        for port in &service.ports {
            let targets = || gathered.seen.targets(&service.name, &port.name);
            let state = match situation {
                Situation::Awake | Situation::Drowsy { .. } => DoorState::Ready(targets().into()),
                Situation::Waking { .. } if gathered.seen.ready() => DoorState::Ready(targets().into()),
                Situation::Waking { .. } if up => {
                    DoorState::Up(eager::ready_pods(gathered, service, port.number).into())
                }
                Situation::Waking { .. }
                    if let Some(pods) = eager::pods(cx, gathered, service, port.number) =>
                {
                    DoorState::Early(pods)
                }
                Situation::Waking { .. } => trouble.map_or(DoorState::Waking, failed),
                Situation::Asleep { .. } => {
                    gathered.barred().map_or(DoorState::Waiting, |barred| failed(barred.trouble))
                }
                Situation::OwnersZero => DoorState::Failed {
                    reason: "owners-zero",
                    sentence: "its owner scaled the app to zero".to_owned(),
                    retry_after: RETRY,
                },
            };
            let key = key_of(&gathered.app, service, port.number);
            // An app that is awake and that nobody came for needs no door.
            if situation == Situation::Awake && !cx.doors.is_made(&key) {
                continue;
            }
            cx.doors.set_state(&key, state);
        }
    }
}

/// Closes the doors of an app that is gone.
pub fn forget(cx: &Context, app: &AppId, services: impl Fn(&str) -> bool) {
    for (port, key) in cx.doors.open_ports() {
        if *key.namespace == *app.namespace && services(&key.service) {
            cx.doors.close(port, LINGER);
        }
    }
}

/// How requests at the app's doors are answered.
pub fn manners(policy: &Policy) -> OwnedManners {
    OwnedManners {
        mode: policy.wake,
        hold_for: policy.hold_for,
        wake_timeout: policy.wake_timeout,
        ignore_paths: policy.ignore_paths.clone(),
        ignore_user_agents: policy.ignore_user_agents.clone(),
    }
}

/// A door for one Service port: one ask there is an ask for every Deployment behind the Service.
pub fn spec(gathered: &Gathered, key: DoorKey) -> DoorSpec {
    let mut apps = observe::peers_of(&gathered.around, &gathered.reading.policy);
    apps.push(gathered.app.clone());
    apps.sort();
    DoorSpec { key, apps, manners: manners(&gathered.reading.policy) }
}

/// The door of one of the app's Service ports.
pub fn key_of(app: &AppId, service: &ServiceSeen, port: u16) -> DoorKey {
    DoorKey { namespace: app.namespace.as_str().into(), service: service.name.as_str().into(), port }
}
