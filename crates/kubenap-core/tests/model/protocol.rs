//! Which protocol is checked: the shipped one, or the shipped one with one of its precautions taken away.

use kubenap_core::app::AppId;
use kubenap_core::decide::{Decision, Facts};
use kubenap_core::policy::{Defaults, Reading, Texts, read};
use kubenap_core::seen::{EndpointSeen, HookSeen, Phase, Seen, Stamp};
use kubenap_core::situation::{Situation, situation};
use kubenap_core::step::{Step, mine};

use crate::world::{Answering, Budget, Change, Entry, MEMBERS, Op, SERVICES, What, World};

/// What is checked, and how far.
#[derive(Clone, Debug)]
pub(crate) struct Protocol {
    /// What may happen, and how often.
    pub(crate) budget: Budget,
    /// How many Services the app has.
    pub(crate) services: usize,
    /// The app is substituted; if not, a proxy in front turns to KubeNap.
    pub(crate) substitute: bool,
    /// The proxy's hook is there from the start.
    pub(crate) hooked: bool,
    /// How many members KubeNap is run with.
    pub(crate) processes: usize,
    /// Members' caches of slices may be behind those of everything else.
    pub(crate) torn: bool,
    /// Which processes lead, for ever.
    pub(crate) leaders: [bool; MEMBERS],
    /// The precautions that are taken away.
    pub(crate) without: Vec<Precaution>,
    /// The app.
    pub(crate) app: AppId,
    /// What its annotations ask for: nothing.
    pub(crate) reading: Reading,
}

/// A precaution of the shipped protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precaution {
    /// Patches of the Deployment carry the `resourceVersion` that was read.
    DeploymentVersion,
    /// Deletes of a slice carry its uid and version.
    SliceVersion,
    /// A slice is written anew for each nap, and an old one is not reused.
    Rewriting,
    /// Pods go only after members are in their place (N3).
    Substitution,
    /// A pod that is being deleted is not a ready one.
    DyingPods,
    /// What a member knew of the pods of a wake holds for that wake only.
    Forgetting,
    /// The count goes into the same patch as the zero.
    CountWithZero,
    /// The slices remember the count too.
    Mirror,
    /// A nap that nobody finishes is called off.
    Repair,
    /// KubeNap stays an endpoint until the pods answer.
    Readiness,
    /// The phase stands on the Deployment, and not in a member's memory.
    Phase,
    /// Without substitution pods go only where the proxy's hook is in place.
    Hook,
    /// Pods go only when the ReplicaSet has its copy of the arming.
    Settled,
}

impl Protocol {
    /// The shipped protocol with two leaders and one Service.
    pub(crate) fn shipped(budget: Budget) -> Self {
        Self {
            budget,
            services: 1,
            substitute: true,
            hooked: true,
            processes: MEMBERS,
            torn: false,
            leaders: [true; MEMBERS],
            without: Vec::new(),
            app: AppId::new("shop", "web"),
            reading: read(&Texts::new(), &Texts::new(), &Defaults::default()),
        }
    }

    /// The shipped protocol for an app that is not substituted.
    pub(crate) fn behind_a_hook(budget: Budget) -> Self {
        let annotations = Texts::from([("kubenap/substitute".to_owned(), "false".to_owned())]);
        let reading = read(&Texts::new(), &annotations, &Defaults::default());
        Self { substitute: false, reading, ..Self::shipped(budget) }
    }

    /// Who answers a request for a Service.
    pub(crate) fn answering(&self, world: &World, service: usize) -> Answering {
        if self.substitute { world.answering(service) } else { world.answering_behind_a_hook(service) }
    }

    /// The same with these precautions taken away.
    pub(crate) fn without(mut self, precautions: &[Precaution]) -> Self {
        self.without.extend(precautions);
        self
    }

    /// Whether a precaution is in force.
    pub(crate) fn has(&self, precaution: Precaution) -> bool {
        !self.without.contains(&precaution)
    }

    /// Whether members remember the phase in memory only.
    pub(crate) fn forgets_phase(&self) -> bool {
        !self.has(Precaution::Phase)
    }

    /// What is read, where a precaution is missing: `reader` is the process, none is one that only just started.
    pub(crate) fn bend_seen(&self, world: &World, reader: Option<usize>, seen: &mut Seen) {
        if self.forgets_phase() {
            let memory = reader.and_then(|index| world.members[index].memory);
            let remembered = memory.filter(|(_, epoch)| u64::from(*epoch) == seen.deployment.record.epoch);
            seen.deployment.record.phase = remembered.map(|(phase, _)| phase);
        }
        if !self.has(Precaution::Hook) {
            seen.hook = HookSeen::Declared;
        }
        if !self.has(Precaution::Settled) {
            seen.deployment.observed_generation = seen.deployment.generation;
        }
        let record = seen.deployment.record.clone();
        if !self.has(Precaution::DyingPods) {
            for pod in &mut seen.pods {
                pod.deleting = false;
            }
        }
        let drowsy = record.phase == Some(Phase::Drowsy);
        for slice in &mut seen.slices {
            for stamp in slice.apps.values_mut() {
                if !self.has(Precaution::Rewriting) && record.phase.is_some() {
                    let restore = record.restore.unwrap_or(seen.deployment.replicas);
                    *stamp = Stamp { epoch: record.epoch, restore };
                    slice.leaving &= !drowsy;
                }
                if !self.has(Precaution::Mirror) {
                    // A slice without a count reads as what the Deployment says, and as one where that says nothing.
                    let known = record.phase.is_some() && record.epoch >= stamp.epoch;
                    let said = record.restore.unwrap_or(seen.deployment.replicas);
                    stamp.restore = if known { said } else { 1 };
                }
            }
        }
    }

    /// What is decided, where a precaution is missing.
    pub(crate) fn bend_decision(&self, facts: &Facts<'_>, decision: Decision) -> Decision {
        let here = situation(&facts.app.name, &facts.reading.policy, facts.seen);
        let step =
            match here {
                Situation::Drowsy { epoch } if !self.has(Precaution::Substitution) => {
                    Step::ScaleDown { epoch, restore: facts.seen.deployment.replicas }
                }
                Situation::Waking { .. }
                    if !self.has(Precaution::Readiness) && mine(facts).next().is_some() =>
                {
                    if mine(facts).all(|slice| slice.leaving) { Step::Withdraw } else { Step::MarkLeaving }
                }
                _ => return decision,
            };
        Decision { step, ..decision }
    }

    /// The writes of a decision, where a precaution is missing.
    pub(crate) fn bend_ops(&self, mut ops: Vec<Op>) -> Vec<Op> {
        let mut later = Vec::new();
        for op in &mut ops {
            op.guarded &= match op.what {
                What::Patch(_) => self.has(Precaution::DeploymentVersion),
                What::Delete(..) => self.has(Precaution::SliceVersion),
                What::Put(..) | What::Mark(..) => true,
            };
            let What::Patch(change) = &mut op.what else { continue };
            if change.replicas == Some(0) && !self.has(Precaution::CountWithZero) {
                let count = Change { restore: change.restore.take(), ..Change::default() };
                later.push(Op { what: What::Patch(count), guarded: false, stale: false });
            }
        }
        ops.extend(later);
        ops
    }

    /// Carries out one write of a member's; `false` is a refusal.
    pub(crate) fn write(&self, world: &mut World, index: usize, op: Op) -> bool {
        // A member goes on only when it sees its own write.
        world.members[index].cached = None;
        match op.what {
            What::Put(name, service, _)
                if !self.has(Precaution::Rewriting) && world.slices[name][service].is_some() =>
            {
                true
            }
            What::Patch(change) => {
                let done = world.carry_out(op);
                if done && change.phase.is_some() {
                    self.forget_wake(world);
                }
                if done && self.forgets_phase() {
                    world.note.phase = None;
                    world.members[index].memory = change.phase.zip(change.epoch);
                }
                done
            }
            What::Put(..) | What::Mark(..) | What::Delete(..) => world.carry_out(op),
        }
    }

    /// What members know of the pods of a wake holds for that wake only. They tell it from others by epoch and `since`:
    /// an epoch alone comes again when annotations are undone.
    pub(crate) fn forget_wake(&self, world: &mut World) {
        if self.has(Precaution::Forgetting) {
            for member in &mut world.members {
                member.confirmed = None;
            }
        }
    }

    /// While the replicas are at zero, a member that only just started knows how many to restore.
    pub(crate) fn remembers(&self, world: &World) -> bool {
        if world.replicas > 0 {
            return true;
        }
        let seen = self.seen(world, None);
        match self.situation(&seen) {
            Situation::Asleep { restore, .. } => restore == u32::from(world.desired),
            _ => false,
        }
    }

    /// Awake without a trace, or asleep with every living member in place; and nothing under way.
    pub(crate) fn is_good(&self, world: &World) -> bool {
        if world.members.iter().any(|member| member.asked || !member.pending.is_empty()) {
            return false;
        }
        let seen = self.seen(world, None);
        match self.situation(&seen) {
            Situation::Awake => {
                let shown = (0..self.services).all(|service| world.shown_living[service]);
                world.replicas == world.desired && world.pods_ready() && shown
            }
            Situation::Asleep { restore, .. } if !self.substitute => {
                let slices = world.slices.iter().flatten().any(Option::is_some);
                world.hook && !slices && restore == u32::from(world.desired)
            }
            Situation::Asleep { epoch, restore, .. } => {
                let right = |slice: Option<Entry>, life| {
                    slice.is_some_and(|slice| {
                        !slice.leaving
                            && slice.life == life
                            && u64::from(slice.epoch) == epoch
                            && u32::from(slice.restore) == restore
                    })
                };
                world.slices.iter().enumerate().all(|(name, slices)| match world.alive(name) {
                    Some(member) => slices.iter().take(self.services).all(|slice| right(*slice, member.life)),
                    None => slices.iter().all(Option::is_none),
                })
            }
            Situation::Drowsy { .. } | Situation::Waking { .. } | Situation::OwnersZero => false,
        }
    }
}

/// The endpoints of the app's own pods, as the slice controller shows them.
pub(crate) fn endpoints(world: &World, services: usize) -> Vec<EndpointSeen> {
    let shown = |service: usize, pod: &str, port: u16| EndpointSeen {
        service: SERVICE_NAMES[service].to_owned(),
        port: "http".to_owned(),
        address: ([10, 1, 0, 1], port).into(),
        pod: pod.to_owned(),
        ready: true,
    };
    let mut endpoints = Vec::new();
    for service in 0..services {
        if world.shown_living[service] {
            endpoints.push(shown(service, LIVING, 8080));
        }
        if world.shown_dying[service] {
            endpoints.push(shown(service, DYING, 8081));
        }
    }
    endpoints
}

/// The Services' names.
pub(crate) const SERVICE_NAMES: [&str; SERVICES] = ["web", "web-internal"];
/// The uid of the pods that are not being deleted.
pub(crate) const LIVING: &str = "living";
/// The uid of those that are.
pub(crate) const DYING: &str = "dying";
