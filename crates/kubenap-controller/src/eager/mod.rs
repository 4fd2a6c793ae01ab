//! Eager passing: a request that is passed need not wait for the kubelet's next look; KubeNap asks the pods itself.
//!
//! A pod is asked only if it is of this wake (W3), and by the very probes that its template declares (`spec`,
//! `probe`). What it says opens the way for requests that are passed to it by its own address. Those that are sent
//! back wait until every member can know of it.

mod probe;
mod spec;

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kubenap_core::app::AppId;
use kubenap_core::seen::ServiceSeen;
use kubenap_core::situation::Situation;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::ClusterError;
use crate::cluster::around::settled_pods;
use crate::cluster::observe;
use crate::cluster::slim::SlimPod;
use crate::decide::Context;
use crate::decide::gather::Gathered;
use crate::decide::memory::{Eager, Wake};

pub use probe::until_ready;
pub use spec::{HttpGet, NamedPorts, ProbeSpec, Readiness, TargetPort};

/// How many pods are asked at the same moment, over all apps.
pub const ASKING: usize = 64;
/// How many pods of one app are asked: one that answers is enough.
const PODS: usize = 3;
/// How often it is looked whether it still makes sense to ask.
const LOOK: Duration = Duration::from_millis(250);

/// Begins to ask the pods of a wake for which requests wait that will be passed.
pub async fn look(cx: &Arc<Context>, gathered: &Gathered) -> Result<(), ClusterError> {
    let Some(wake) = wake_of(gathered) else {
        cx.memories.with(&gathered.app, |memory| memory.eager = None);
        return Ok(());
    };
    // Of several apps behind one Service each has its own wake: that is left to their kubelets.
    if gathered.seen.ready() || !gathered.seen.peers.is_empty() || cx.doors.asks(&gathered.app).to_pass == 0 {
        return Ok(());
    }
    let Some(readiness) = gathered.around.deployment.readiness.clone() else { return Ok(()) };
    let Some(ports) = target_ports(gathered) else { return Ok(()) };
    let known = cx.memories.with(&gathered.app, |memory| memory.eager.clone());
    let asked = known.filter(|eager| eager.wake == wake).map(|eager| eager.asked).unwrap_or_default();
    let mut fresh: Vec<_> = own_pods(gathered).filter(|(_, pod, _)| !asked.contains(&pod.seen.uid)).collect();
    fresh.truncate(PODS.saturating_sub(asked.len()));
    if fresh.is_empty() {
        return Ok(());
    }
    let confirmed = cx.memories.with(&gathered.app, |memory| memory.confirmed == Some(wake));
    if !confirmed {
        let deployment = &gathered.seen.deployment;
        let settled = if deployment.observed_generation >= deployment.generation {
            settled_pods(&cx.cluster, &gathered.around.deployment).await?
        } else {
            None
        };
        let Some(settled) = settled else {
            cx.queue.add_after(&gathered.app, LOOK);
            return Ok(());
        };
        let stays = |uid: &str| settled.values().any(|pod| pod.seen.uid == uid && !pod.seen.deleting);
        fresh.retain(|(_, pod, _)| stays(&pod.seen.uid));
    }
    for (name, pod, address) in fresh {
        let uid = pod.seen.uid.clone();
        let new = cx.memories.with(&gathered.app, |memory| {
            let eager = memory.eager.get_or_insert_with(|| Box::new(Eager::of(wake)));
            if eager.wake != wake {
                **eager = Eager::of(wake);
            }
            // Its kubelet was faster than the EndpointSlice.
            if pod.seen.ready {
                eager.ready.insert(uid.clone());
            }
            eager.asked.insert(uid.clone())
        });
        if new && !pod.seen.ready {
            let question = Question {
                app: gathered.app.clone(),
                wake,
                pod: name.to_owned(),
                uid,
                address,
                deadline: Instant::now() + gathered.reading.policy.wake_timeout,
            };
            tokio::spawn(ask(Arc::clone(cx), question, Arc::clone(&readiness), ports.clone()));
        }
    }
    Ok(())
}

/// The addresses behind a Service port of those pods that said that they are ready, and stay. None: nobody yet.
pub fn pods(
    cx: &Context,
    gathered: &Gathered,
    service: &ServiceSeen,
    port: u16,
) -> Option<Arc<[SocketAddr]>> {
    let wake = wake_of(gathered)?;
    let ready = cx.memories.with(&gathered.app, |memory| {
        memory.eager.as_ref().filter(|eager| eager.wake == wake).map(|eager| eager.ready.clone())
    })?;
    if ready.is_empty() || !gathered.seen.peers.is_empty() {
        return None;
    }
    let target = target_port(gathered, service, port)?;
    let stay = own_pods(gathered).filter(|(_, pod, _)| ready.contains(&pod.seen.uid));
    let addresses: Arc<[SocketAddr]> = stay.map(|(_, _, address)| SocketAddr::new(address, target)).collect();
    (!addresses.is_empty()).then_some(addresses)
}

/// The addresses behind a Service port of the app's own pods that their kubelets call ready. The Service leads there
/// as soon as the EndpointSlice's controller has heard of it, too; a request that is passed need not wait for that.
pub fn ready_pods(gathered: &Gathered, service: &ServiceSeen, port: u16) -> Vec<SocketAddr> {
    let target = || {
        let known = gathered.around.services.get(&service.name)?;
        Some((&known.selector, target_port(gathered, service, port)?))
    };
    // Several apps behind one Service have pods of several templates.
    let Some((selector, target)) = target().filter(|_| gathered.seen.peers.is_empty()) else {
        return Vec::new();
    };
    let ready = own_pods(gathered).filter(|(_, pod, _)| pod.seen.ready && pod.labels.contain(selector));
    ready.map(|(_, _, address)| SocketAddr::new(address, target)).collect()
}

/// Whether each Service port has such pods.
pub fn has_ready_pods(gathered: &Gathered) -> bool {
    let services = &gathered.seen.services;
    !services.is_empty()
        && services.iter().all(|service| {
            service.ports.iter().all(|port| !ready_pods(gathered, service, port.number).is_empty())
        })
}

impl Eager {
    fn of(wake: Wake) -> Self {
        Self { wake, asked: BTreeSet::new(), ready: BTreeSet::new() }
    }
}

/// Which pod is asked, and for what.
struct Question {
    app: AppId,
    wake: Wake,
    pod: String,
    uid: String,
    address: IpAddr,
    deadline: Instant,
}

async fn ask(cx: Arc<Context>, question: Question, readiness: Arc<Readiness>, ports: Vec<u16>) {
    let Question { app, wake, pod, uid, address, deadline } = question;
    let matters = || {
        let there = cx.stores.pods.find(&app.namespace, &pod);
        there.is_some_and(|pod| pod.seen.uid == uid && !pod.seen.deleting && !pod.seen.ready)
            && cx.doors.asks(&app).to_pass > 0
    };
    let pointless = async {
        while matters() {
            sleep(LOOK).await;
        }
    };
    let said_yes = tokio::select! {
        () = until_ready(address, &readiness, &ports, &cx.asking) => true,
        () = pointless => false,
        () = sleep_until(deadline) => false,
    };
    cx.memories.with(&app, |memory| {
        let Some(eager) = memory.eager.as_mut().filter(|eager| eager.wake == wake) else { return };
        if said_yes {
            eager.ready.insert(uid);
        } else {
            // Somebody may come and ask for it again.
            eager.asked.remove(&uid);
        }
    });
    if said_yes {
        cx.queue.add(&app);
    }
}

fn wake_of(gathered: &Gathered) -> Option<Wake> {
    match gathered.situation() {
        Situation::Waking { epoch, .. } => Some((epoch, gathered.seen.deployment.record.since)),
        Situation::Awake | Situation::Drowsy { .. } | Situation::Asleep { .. } | Situation::OwnersZero => {
            None
        }
    }
}

/// The app's own pods that stay and have an address.
fn own_pods(gathered: &Gathered) -> impl Iterator<Item = (&str, &SlimPod, IpAddr)> {
    let own = observe::own_pods(&gathered.around, &gathered.around.deployment);
    own.filter(|(_, pod)| !pod.seen.deleting).filter_map(|(name, pod)| Some((name, &**pod, pod.address?)))
}

/// Every pod's port that a Service port leads to. None: not all are known.
fn target_ports(gathered: &Gathered) -> Option<Vec<u16>> {
    let services = gathered.seen.services.iter();
    let ports = services.flat_map(|service| service.ports.iter().map(move |port| (service, port.number)));
    let targets = ports.map(|(service, port)| target_port(gathered, service, port));
    let targets: BTreeSet<_> = targets.collect::<Option<_>>()?;
    Some(targets.into_iter().collect())
}

fn target_port(gathered: &Gathered, service: &ServiceSeen, port: u16) -> Option<u16> {
    let service = gathered.around.services.get(&service.name)?;
    let (_, target) = service.targets.iter().find(|(number, _)| *number == port)?;
    gathered.around.deployment.ports.port(target)
}
