//! The steps of a nap and a wake, and the writes that each of them is.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::Value;

use crate::app::key;
use crate::decide::{Decision, Facts};
use crate::policy::Wish;
use crate::seen::{Family, Phase, PieceId, Pieces, ServicePort, ServiceSeen, Slice, Stamp, WakePorts};
use crate::situation::{Situation, situation};
use crate::write::{DeploymentPatch, Write};

/// One step. Each is idempotent, and leaves somebody who answers for the app.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Nothing.
    Stay,
    /// N2: from here KubeNap is on its way in. The leader's.
    Arm {
        /// The new nap.
        epoch: u64,
        /// The members' ports for it.
        ports: WakePorts,
    },
    /// N3: this member puts its addresses into the app's Services.
    Substitute,
    /// N3 without substitution: what the proxy in front lacks of its hook is written down, then put in place. The
    /// leader's.
    Attach,
    /// What KubeNap put in place of the hook is taken back, and then forgotten.
    Detach,
    /// N6: replicas to zero, with the count in the same patch. The leader's.
    ScaleDown {
        /// The nap.
        epoch: u64,
        /// The count to remember.
        restore: u32,
    },
    /// The nap is off.
    Cancel {
        /// The nap.
        epoch: u64,
    },
    /// Writes down that it sleeps, where the Deployment does not say so.
    Record {
        /// The nap.
        epoch: u64,
        /// The count to remember.
        restore: u32,
        /// The members' ports.
        ports: WakePorts,
    },
    /// W2: replicas again.
    ScaleUp {
        /// The nap that ends.
        epoch: u64,
        /// To how many.
        replicas: u32,
    },
    /// Kubernetes is made to try again at once to create the pods of this wake. The leader is not needed.
    Push,
    /// W5: this member's endpoints are marked as terminating.
    MarkLeaving,
    /// W5: this member's slices are deleted.
    Withdraw,
    /// This member's slices of Services that are the app's no more are deleted.
    WithdrawStrays,
    /// A dead member's slices are deleted.
    SweepDead,
    /// W7: awake, the count forgotten.
    FinishWake {
        /// The nap that ended.
        epoch: u64,
    },
    /// The wish is carried out or refused.
    ClearWish,
    /// Every trace is taken off a Deployment that is no longer opted in.
    Forget,
}

impl Step {
    /// It gives the app wake ports, of which no two apps may have the same.
    pub fn takes_ports(&self) -> bool {
        matches!(self, Self::Arm { .. } | Self::Record { .. })
    }

    /// Putting apps to sleep needs the leader; waking them never does.
    pub fn needs_leader(&self) -> bool {
        match self {
            Self::Arm { .. } | Self::Attach | Self::ScaleDown { .. } => true,
            Self::Stay
            | Self::Substitute
            | Self::Detach
            | Self::Cancel { .. }
            | Self::Record { .. }
            | Self::ScaleUp { .. }
            | Self::Push
            | Self::MarkLeaving
            | Self::Withdraw
            | Self::WithdrawStrays
            | Self::SweepDead
            | Self::FinishWake { .. }
            | Self::ClearWish
            | Self::Forget => false,
        }
    }
}

/// The writes of a decision, each with what must still hold for it.
pub fn writes(facts: &Facts<'_>, decision: &Decision) -> Vec<Write> {
    let patch =
        |replicas, set, clear| vec![Write::Deployment(deployment(facts, decision, replicas, set, clear))];
    match &decision.step {
        Step::Stay => Vec::new(),
        Step::Arm { epoch, ports } => {
            let mut set = phase(Phase::Drowsy, *epoch, [(key::WAKE_PORTS, ports.text())]);
            let mut clear = Vec::new();
            if facts.reading.policy.substitute {
                clear.push(key::RESTORE);
            } else {
                // Its ReplicaSet gets a copy before the zero is written, and so the count outlives an undo.
                set.insert(key::RESTORE, facts.seen.deployment.replicas.to_string());
                if !facts.seen.unapplied.is_empty() {
                    set.insert(key::HOOK_PIECES, facts.seen.wanted_pieces().text());
                }
            }
            let reverts = &facts.seen.deployment.record.reverts;
            if !reverts.is_empty() && reverts.lately(facts.now).is_empty() {
                clear.push(key::REVERTS);
            }
            patch(None, set, clear)
        }
        Step::ScaleDown { epoch, restore } => {
            let restore = (key::RESTORE, restore.to_string());
            patch(Some(0), phase(Phase::Asleep, *epoch, [restore]), vec![key::WISH])
        }
        Step::Record { epoch, restore, ports } => {
            let extra = [(key::RESTORE, restore.to_string()), (key::WAKE_PORTS, ports.text())];
            patch(None, phase(Phase::Asleep, *epoch, extra), Vec::new())
        }
        Step::ScaleUp { epoch, replicas } => {
            patch(Some(*replicas), phase(Phase::Waking, *epoch, []), vec![key::WISH])
        }
        Step::Push => {
            // Each annotation is copied to the ReplicaSet, whose controller acts on any change of it.
            let text = format!("{}; tried again at {}", reason(decision), facts.now);
            patch(None, BTreeMap::from([(key::REASON, text)]), Vec::new())
        }
        Step::Cancel { epoch } => patch(None, phase(Phase::Awake, *epoch, []), vec![key::RESTORE, key::WISH]),
        Step::FinishWake { epoch } => {
            // A nap that a person asked for meanwhile is still to come.
            let granted = facts.reading.policy.wish == Some(Wish::Wake);
            let clear = if granted { vec![key::RESTORE, key::WISH] } else { vec![key::RESTORE] };
            let mut set = phase(Phase::Awake, *epoch, []);
            if woken_by_other(facts) {
                let reverts = &facts.seen.deployment.record.reverts;
                set.insert(key::REVERTS, reverts.and(facts.reverter.as_deref(), facts.now).text());
            }
            patch(None, set, clear)
        }
        Step::ClearWish => {
            let set = BTreeMap::from([(key::REASON, reason(decision))]);
            patch(None, set, vec![key::WISH])
        }
        Step::Forget => patch(None, BTreeMap::new(), [&key::STATE[..], &[key::WISH]].concat()),
        Step::Substitute => {
            wanted(facts).into_iter().map(|(slice, owner)| put(facts, slice, owner)).collect()
        }
        // Written down first: whoever takes it back must know of it.
        Step::Attach if facts.seen.unrecorded() => {
            let pieces = (key::HOOK_PIECES, facts.seen.wanted_pieces().text());
            patch(None, BTreeMap::from([pieces]), Vec::new())
        }
        Step::Attach => {
            let attach = |object: &Value| Write::Attach { app: facts.app.clone(), object: object.clone() };
            attached_now(facts).into_iter().map(attach).collect()
        }
        Step::Detach => {
            let epoch = facts.seen.epoch(&facts.app.name);
            let (now, later) = detached_now(facts);
            let detach = |piece| Write::Detach { app: facts.app.clone(), epoch, piece };
            let record = if later.is_empty() {
                patch(None, BTreeMap::new(), vec![key::HOOK_PIECES])
            } else {
                patch(None, BTreeMap::from([(key::HOOK_PIECES, later.text())]), Vec::new())
            };
            now.0.into_iter().rev().map(detach).chain(record).collect()
        }
        Step::MarkLeaving => {
            mine(facts).filter(|slice| slice.is_open()).map(|slice| mark(facts, slice)).collect()
        }
        Step::Withdraw => mine(facts).map(|slice| delete(facts, slice)).collect(),
        Step::WithdrawStrays => strays(facts).map(|slice| delete(facts, slice)).collect(),
        Step::SweepDead => dead(facts).into_iter().map(|slice| delete(facts, slice)).collect(),
    }
}

/// How long a proxy may take to hear of an object, or that it is gone. Traefik hears of Ingresses and of its own kinds on
/// different ways, on each within two seconds, and answers 404 for a route whose middleware it does not know.
pub const HEARD_OF: Duration = Duration::from_secs(3);

/// What of the hook is put in place now: whole objects at once, and what leads to them when the proxy has heard of them.
pub fn attached_now<'a>(facts: &Facts<'a>) -> Vec<&'a Value> {
    let is_whole = |object: &&Value| PieceId::of(object).is_whole();
    let (whole, fields): (Vec<_>, Vec<_>) = facts.seen.unapplied.iter().partition(is_whole);
    if !whole.is_empty() {
        return whole;
    }
    if facts.told_for < HEARD_OF { Vec::new() } else { fields }
}

/// What of it is taken back now, and what later: first what leads to whole objects, and these when the proxy has heard of
/// it.
pub fn detached_now(facts: &Facts<'_>) -> (Pieces, Pieces) {
    let (whole, fields): (Vec<_>, Vec<_>) = facts.seen.pieces().0.into_iter().partition(PieceId::is_whole);
    if !fields.is_empty() {
        return (Pieces(fields), Pieces(whole));
    }
    if facts.told_for < HEARD_OF {
        return (Pieces::default(), Pieces(whole));
    }
    (Pieces(whole), Pieces::default())
}

/// Somebody else scaled the app up: KubeNap writes the phase in the same patch as the count.
pub fn woken_by_other(facts: &Facts<'_>) -> bool {
    let deployment = &facts.seen.deployment;
    deployment.replicas > 0 && deployment.record.phase == Some(Phase::Asleep)
}

/// This member's slices that stand in for the app.
pub fn mine<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = &'a Slice> {
    let of_app = |slice: &&Slice| slice.member == facts.here.name && slice.apps.contains_key(&facts.app.name);
    facts.seen.slices.iter().filter(of_app)
}

/// Those of them that must not be: their Service is the app's no more, or the app is not substituted any more.
pub fn strays<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = &'a Slice> {
    let substitute = facts.reading.policy.substitute;
    mine(facts).filter(move |slice| {
        !substitute || facts.seen.services.iter().all(|service| service.name != slice.service)
    })
}

/// The slices of members that no longer live.
pub fn dead<'a>(facts: &'a Facts<'_>) -> Vec<&'a Slice> {
    facts.seen.slices.iter().filter(|slice| !facts.here.living.contains(&slice.member)).collect()
}

/// Whether a slice that this member must have is not there as it must be.
pub fn slices_missing(facts: &Facts<'_>) -> bool {
    wanted(facts).iter().any(|(wanted, _)| !facts.seen.slices.iter().any(|slice| same(slice, wanted)))
}

/// N3: enough members are in the Services, or without substitution the proxy's hook is in place.
pub fn stands_in(facts: &Facts<'_>) -> bool {
    if facts.reading.policy.substitute {
        substituted(facts) >= facts.here.living.len().min(2)
    } else {
        facts.seen.hook.in_place()
    }
}

/// How many living members, this one among them, have a right slice for every Service; zero if this one has not.
fn substituted(facts: &Facts<'_>) -> usize {
    let Some(stamp) = own_stamp(facts) else { return 0 };
    let right = |member: &String| {
        facts.seen.services.iter().all(|service| {
            service.families.iter().all(|family| {
                facts.seen.slices.iter().any(|slice| {
                    slice.member == *member
                        && slice.service == service.name
                        && slice.family == *family
                        && slice.is_open()
                        && slice.apps.get(&facts.app.name) == Some(&stamp)
                })
            })
        })
    };
    if right(&facts.here.name) { facts.here.living.iter().filter(|member| right(member)).count() } else { 0 }
}

/// What this member's slices must be, each with the uid of the Service that owns it.
fn wanted(facts: &Facts<'_>) -> Vec<(Slice, String)> {
    let Some(stamp) = own_stamp(facts) else { return Vec::new() };
    let peers = facts.seen.peers.iter().filter(|peer| peer.id.namespace == facts.app.namespace);
    let mut apps: BTreeMap<_, _> =
        peers.filter_map(|peer| Some((peer.id.name.clone(), peer.stamp?))).collect();
    apps.insert(facts.app.name.clone(), stamp);
    let mut slices = Vec::new();
    for service in &facts.seen.services {
        let Some(ports) = wake_ports(facts, service) else { continue };
        for family in &service.families {
            let addresses: BTreeSet<_> = facts
                .here
                .addresses
                .iter()
                .copied()
                .filter(|address| Family::of(*address) == *family)
                .collect();
            if addresses.is_empty() {
                continue;
            }
            let slice = Slice {
                name: slice_name(&service.name, &facts.here.name, *family),
                service: service.name.clone(),
                member: facts.here.name.clone(),
                uid: String::new(),
                resource_version: String::new(),
                family: *family,
                addresses,
                ports: ports.clone(),
                apps: apps.clone(),
                leaving: false,
            };
            slices.push((slice, service.uid.clone()));
        }
    }
    slices
}

fn wake_ports(facts: &Facts<'_>, service: &ServiceSeen) -> Option<Vec<ServicePort>> {
    let record = &facts.seen.deployment.record.wake_ports;
    let port = |port: &ServicePort| {
        Some(ServicePort { number: record.of(&service.name, port.number)?, ..port.clone() })
    };
    service.ports.iter().map(port).collect()
}

fn own_stamp(facts: &Facts<'_>) -> Option<Stamp> {
    if !facts.reading.policy.substitute {
        return None;
    }
    let deployment = &facts.seen.deployment;
    let (epoch, restore) = match situation(&facts.app.name, &facts.reading.policy, facts.seen) {
        Situation::Drowsy { epoch } => (epoch, deployment.replicas),
        Situation::Asleep { epoch, restore, recorded: _ } => (epoch, restore),
        Situation::Waking { epoch, recorded: _ } => {
            (epoch, deployment.record.restore.unwrap_or(deployment.replicas))
        }
        Situation::Awake | Situation::OwnersZero => return None,
    };
    Some(Stamp { epoch, restore })
}

/// What slices must say of the app now; none while it is awake, or if it is not substituted.
pub fn stamp(facts: &Facts<'_>) -> Option<Stamp> {
    own_stamp(facts)
}

fn same(slice: &Slice, wanted: &Slice) -> bool {
    slice.name == wanted.name
        && slice.service == wanted.service
        && slice.member == wanted.member
        && slice.family == wanted.family
        && slice.addresses == wanted.addresses
        && slice.ports == wanted.ports
        && slice.apps == wanted.apps
        && slice.leaving == wanted.leaving
}

/// The name of a member's slice: the same on every turn, different for every member.
pub fn slice_name(service: &str, member: &str, family: Family) -> String {
    // FNV-1a: stable over builds, which the standard library's hasher does not promise.
    let hash = member.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let family = match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    };
    format!("kubenap-{service}-{hash:016x}-{family}")
}

fn put(facts: &Facts<'_>, slice: Slice, owner: String) -> Write {
    Write::PutSlice { namespace: facts.app.namespace.clone(), slice, owner }
}

fn mark(facts: &Facts<'_>, slice: &Slice) -> Write {
    Write::MarkLeaving {
        namespace: facts.app.namespace.clone(),
        slice: Slice { leaving: true, ..slice.clone() },
        resource_version: Some(slice.resource_version.clone()),
    }
}

fn delete(facts: &Facts<'_>, slice: &Slice) -> Write {
    Write::DeleteSlice {
        namespace: facts.app.namespace.clone(),
        name: slice.name.clone(),
        uid: Some(slice.uid.clone()),
        resource_version: Some(slice.resource_version.clone()),
    }
}

type Set = BTreeMap<&'static str, String>;

fn phase<const N: usize>(phase: Phase, epoch: u64, extra: [(&'static str, String); N]) -> Set {
    let mut set = Set::from(extra);
    set.insert(key::PHASE, phase.text().to_owned());
    set.insert(key::EPOCH, epoch.to_string());
    set
}

fn deployment(
    facts: &Facts<'_>,
    decision: &Decision,
    replicas: Option<u32>,
    mut set: Set,
    clear: Vec<&'static str>,
) -> DeploymentPatch {
    if set.contains_key(key::PHASE) {
        set.insert(key::SINCE, facts.now.to_string());
        set.insert(key::REASON, reason(decision));
    }
    DeploymentPatch {
        app: facts.app.clone(),
        resource_version: Some(facts.seen.deployment.resource_version.clone()),
        replicas,
        set,
        clear: clear.into_iter().collect(),
    }
}

fn reason(decision: &Decision) -> String {
    format!("{}: {}", decision.why.label(), decision.why)
}
