//! A member of the model: it reads the world as the shipped code does, and decides with the shipped code.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use kubenap_core::activity::Activity;
use kubenap_core::app::key;
use kubenap_core::decide::{Facts, Here, Timing, decide};
use kubenap_core::policy::Texts;
use kubenap_core::seen::{
    DeploymentSeen, Family, HookGap, HookSeen, Phase, Pieces, PodSeen, Record, Reverts, Seen, ServicePort,
    ServiceSeen, Slice, Stamp, WakePorts, remembered,
};
use kubenap_core::situation::{Situation, situation};
use kubenap_core::step::{Step, slice_name, writes};
use kubenap_core::write::{DeploymentPatch, Write};

use crate::protocol::{DYING, LIVING, Precaution, Protocol, SERVICE_NAMES, endpoints};
use crate::world::{Change, Emptied, Entry, NAMES, Note, Op, What, World};

/// The time of every decision.
const NOW: Timestamp = Timestamp::constant(1_000_000, 0);

/// What a member's sources and clock say; anything, at any time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// Quiet, and every window has passed.
    Calm,
    /// There was traffic, or the sources do not know.
    Busy,
    /// The app has been in its phase for too long.
    Late,
}

const VERSION: &str = "7";
const UID: &str = "slice-uid";
const NAMES_OF_MEMBERS: [&str; NAMES] = ["kubenap-0", "kubenap-1", "kubenap-2"];
const WAKE_PORT: u16 = 16_000;

impl Protocol {
    /// What a member would write, by what it reads now.
    pub(crate) fn look(&self, world: &World, index: usize, mood: Mood) -> Vec<Op> {
        let Some(cached) = world.members[index].cached else {
            return self.look_at(world, index, mood).0;
        };
        let behind = World { slices: cached.map(|slices| slices.map(|slice| slice.entry)), ..world.clone() };
        let (mut ops, step) = self.look_at(&behind, index, mood);
        // These rest on a live reading.
        if matches!(step, Step::Arm { .. } | Step::ScaleDown { .. }) {
            return self.look_at(world, index, mood).0;
        }
        for op in &mut ops {
            if let What::Mark(name, service) | What::Delete(name, service) = op.what {
                op.stale = cached[name][service].stale;
            }
        }
        ops
    }

    fn look_at(&self, world: &World, index: usize, mood: Mood) -> (Vec<Op>, Step) {
        let member = &world.members[index];
        let now = NOW;
        let seen = self.seen(world, Some(index));
        let last = if mood == Mood::Busy { now } else { now - Duration::from_secs(3_600) };
        let timing = Timing::default();
        let abandoned = mood == Mood::Late && self.has(Precaution::Repair);
        let living = NAMES_OF_MEMBERS.iter().enumerate().filter(|(name, _)| {
            let existed = world.members.iter().any(|member| member.name == *name) || *name < 2;
            existed && (*name == member.name || !world.buried[*name])
        });
        let facts = Facts {
            now,
            app: &self.app,
            reading: &self.reading,
            opted_in: true,
            seen: &seen,
            activity: &Activity::seen(last, now),
            here: &Here {
                name: NAMES_OF_MEMBERS[member.name].to_owned(),
                addresses: BTreeSet::from([[10, 0, u8_of(member.name), member.life].into()]),
                leading: self.leaders[index],
                listening: true,
                living: living.map(|(_, name)| (*name).to_owned()).collect(),
            },
            asked: member.asked,
            in_phase: if abandoned { timing.abandoned(&self.reading.policy) * 2 } else { timing.drowsy * 3 },
            waiting: timing.drowsy,
            substituted_for: timing.drowsy,
            told_for: timing.drowsy,
            path_proved: true,
            wake_address_answers: true,
            may_arm: world.left.naps > 0,
            ports: Some(self.wake_ports()),
            barred: None,
            push: false,
            reverter: None,
            timing,
        };
        let decision = self.bend_decision(&facts, decide(&facts));
        let ops = writes(&facts, &decision).iter().map(|write| op_of(write, &seen)).collect();
        (self.bend_ops(ops), decision.step)
    }

    /// What the cluster says of the app.
    pub(crate) fn seen(&self, world: &World, reader: Option<usize>) -> Seen {
        let pods = world.living.map_or(0, |pods| u32::from(pods.count));
        let living = world.living.map(|pods| pod(LIVING, pods.ready, false));
        let dying = world.dying.then(|| pod(DYING, true, true));
        let mut seen = Seen {
            deployment: DeploymentSeen {
                uid: "deployment-uid".to_owned(),
                resource_version: VERSION.to_owned(),
                generation: 2,
                observed_generation: if world.observed { 2 } else { 1 },
                replicas: u32::from(world.replicas),
                pods,
                updated: pods,
                ready: if world.pods_ready() { pods } else { 0 },
                paused: false,
                deleting: false,
                refused: None,
                probed: true,
                record: Record {
                    phase: world.note.phase,
                    epoch: u64::from(world.note.epoch),
                    restore: world.note.restore.map(u32::from),
                    // Awake for long; drowsy only just now, unless the mood says otherwise.
                    since: world
                        .note
                        .phase
                        .map(|phase| if phase == Phase::Drowsy { NOW } else { Timestamp::UNIX_EPOCH }),
                    hook_pieces: Pieces::default(),
                    wake_ports: if world.note.ports && self.substitute {
                        self.wake_ports()
                    } else {
                        WakePorts::default()
                    },
                    reverts: Reverts::default(),
                    any: world.note != crate::world::Note::default(),
                },
            },
            services: SERVICE_NAMES.iter().take(self.services).map(|name| service(name)).collect(),
            missing_services: Vec::new(),
            missing_ingresses: Vec::new(),
            slices: self.slices(world),
            hook_refusal: String::new(),
            unapplied: Vec::new(),
            applied: Pieces::default(),
            hook: if world.hook { HookSeen::Declared } else { HookSeen::Missing(HookGap::NotShown) },
            remembered: None,
            counted: 0,
            endpoints: endpoints(world, self.services),
            pods: living.into_iter().chain(dying).collect(),
            pods_confirmed: true,
            scaler: None,
            peers: Vec::new(),
            strangers: Vec::new(),
        };
        self.bend_seen(world, reader, &mut seen);
        if !self.substitute && self.situation(&seen) == Situation::OwnersZero {
            seen.remembered = remembered(&world.copies.map(texts_of));
        }
        if let (Situation::Waking { epoch, .. }, Some(index)) = (self.situation(&seen), reader) {
            let confirmed = world.members[index].confirmed == Some(u8_of(epoch));
            seen.pods_confirmed = confirmed || !self.has(Precaution::DyingPods);
        }
        seen
    }

    /// What a member knows of the pods after one more look.
    ///
    /// Either it saw the app without pods, or the Deployment's and the ReplicaSet's controllers have acted on what is
    /// wanted now: a pod that lives then, stays.
    pub(crate) fn confirm(&self, world: &mut World, index: usize) {
        let seen = self.seen(world, None);
        let settled = world.observed && world.set.acted && !world.set.deletes;
        let empty = world.observed && world.living.is_none();
        let member = &mut world.members[index];
        match self.situation(&seen) {
            Situation::Asleep { epoch, .. } if empty => {
                member.emptied = Some(Emptied { epoch: u8_of(epoch), writes: 0 });
            }
            // Pods of the time before are there again, or still.
            Situation::Asleep { .. } if self.has(Precaution::Forgetting) => member.emptied = None,
            Situation::Waking { epoch, .. } => {
                // One write since: that of this wake, and no other nap in between.
                let emptied = member.emptied.is_some_and(|emptied| {
                    let strict = self.has(Precaution::Forgetting);
                    u64::from(emptied.epoch) == epoch && (emptied.writes == 1 || !strict)
                });
                if emptied || (settled && seen.ready()) {
                    member.confirmed = Some(u8_of(epoch));
                }
            }
            Situation::Asleep { .. }
            | Situation::Awake
            | Situation::Drowsy { .. }
            | Situation::OwnersZero => {}
        }
        let sleeps = matches!(self.situation(&seen), Situation::Asleep { .. });
        if !sleeps && self.has(Precaution::Forgetting) {
            member.emptied = None;
        }
    }

    /// In which state the app is, by what was read.
    pub(crate) fn situation(&self, seen: &Seen) -> Situation {
        situation(&self.app.name, &self.reading.policy, seen)
    }

    fn slices(&self, world: &World) -> Vec<Slice> {
        let mut slices = Vec::new();
        for (name, member) in NAMES_OF_MEMBERS.into_iter().enumerate() {
            for (service, service_name) in SERVICE_NAMES.into_iter().enumerate() {
                let Some(entry) = world.slices[name][service] else { continue };
                let stamp = Stamp { epoch: u64::from(entry.epoch), restore: u32::from(entry.restore) };
                slices.push(Slice {
                    name: slice_name(service_name, member, Family::V4),
                    service: service_name.to_owned(),
                    member: member.to_owned(),
                    uid: UID.to_owned(),
                    resource_version: VERSION.to_owned(),
                    family: Family::V4,
                    addresses: BTreeSet::from([[10, 0, u8_of(name), entry.life].into()]),
                    ports: vec![ServicePort { number: WAKE_PORT + u16::from(u8_of(service)), ..http() }],
                    apps: BTreeMap::from([(self.app.name.clone(), stamp)]),
                    leaving: entry.leaving,
                });
            }
        }
        slices
    }

    fn wake_ports(&self) -> WakePorts {
        let port = |(index, name): (usize, &&str)| {
            (((*name).to_owned(), http().number), WAKE_PORT + u16::from(u8_of(index)))
        };
        WakePorts(SERVICE_NAMES.iter().take(self.services).enumerate().map(port).collect())
    }
}

/// A copy of the annotations, as it stands on a ReplicaSet.
fn texts_of(note: Note) -> Texts {
    let mut texts = Texts::from([(key::EPOCH.to_owned(), note.epoch.to_string())]);
    texts.extend(note.phase.map(|phase| (key::PHASE.to_owned(), phase.text().to_owned())));
    texts.extend(note.restore.map(|count| (key::RESTORE.to_owned(), count.to_string())));
    texts
}

fn http() -> ServicePort {
    ServicePort { name: "http".to_owned(), number: 80, app_protocol: None }
}

fn service(name: &str) -> ServiceSeen {
    ServiceSeen {
        name: name.to_owned(),
        uid: format!("{name}-uid"),
        refusal: None,
        ports: vec![http()],
        families: BTreeSet::from([Family::V4]),
    }
}

fn pod(uid: &str, ready: bool, deleting: bool) -> PodSeen {
    PodSeen { uid: uid.to_owned(), ready, deleting, trouble: None }
}

/// A real write as the model's, with its precondition as it stands there.
fn op_of(write: &Write, seen: &Seen) -> Op {
    let guard = |given: Option<&String>, read: &str| {
        assert!(given.is_none_or(|given| given == read), "a precondition that was not read: {given:?}");
        given.is_some()
    };
    let (what, guarded) = match write {
        Write::Deployment(patch) => {
            let read = &seen.deployment.resource_version;
            (What::Patch(change_of(patch)), guard(patch.resource_version.as_ref(), read))
        }
        Write::PutSlice { slice, .. } => {
            let (name, service) = place(&slice.name);
            let stamp = slice.apps.values().next().copied().unwrap_or(Stamp { epoch: 0, restore: 0 });
            let life = slice.addresses.iter().find_map(|address| match address {
                std::net::IpAddr::V4(address) => Some(address.octets()[3]),
                std::net::IpAddr::V6(_) => None,
            });
            let entry = Entry {
                epoch: u8_of(stamp.epoch),
                restore: u8_of(stamp.restore),
                leaving: slice.leaving,
                life: life.unwrap_or(0),
            };
            (What::Put(name, service, entry), false)
        }
        Write::MarkLeaving { slice, resource_version, .. } => {
            let (name, service) = place(&slice.name);
            (What::Mark(name, service), guard(resource_version.as_ref(), VERSION))
        }
        Write::DeleteSlice { name, uid, resource_version, .. } => {
            let (name, service) = place(name);
            let uid = guard(uid.as_ref(), UID);
            // The version alone tells another object apart too, for versions never come back.
            (What::Delete(name, service), guard(resource_version.as_ref(), VERSION) && uid)
        }
        Write::Attach { .. } | Write::Detach { .. } => {
            unreachable!("the model's hook is its administrator's: {write:?}")
        }
    };
    Op { what, guarded, stale: false }
}

fn change_of(patch: &DeploymentPatch) -> Change {
    let set = |key: &str| patch.set.get(key).map(String::as_str);
    Change {
        replicas: patch.replicas.map(u8_of),
        phase: set(key::PHASE).and_then(Phase::parse),
        epoch: set(key::EPOCH).and_then(|text| text.parse().ok()),
        restore: set(key::RESTORE).and_then(|text| text.parse().ok()),
        forgets: patch.clear.contains(key::RESTORE),
        ports: set(key::WAKE_PORTS).is_some(),
    }
}

fn place(slice: &str) -> (usize, usize) {
    for (name, member) in NAMES_OF_MEMBERS.into_iter().enumerate() {
        for (service, service_name) in SERVICE_NAMES.into_iter().enumerate() {
            if slice == slice_name(service_name, member, Family::V4) {
                return (name, service);
            }
        }
    }
    panic!("a slice of nobody's: {slice}")
}

fn u8_of<T: TryInto<u8>>(number: T) -> u8 {
    number.try_into().unwrap_or(u8::MAX)
}
