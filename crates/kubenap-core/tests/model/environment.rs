//! What happens in the model: the actions of members, of Kubernetes' controllers, of people, and of bad luck.

use kubenap_core::seen::Phase;
use stateright::{Model, Property};

use crate::member::Mood;
use crate::protocol::Protocol;
use crate::world::{Answering, Broken, Cached, MEMBERS, NAMES, Note, Op, Pods, What, World};

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A member reads everything and decides.
    Look(usize, Mood),
    /// A member's cache of slices stays behind, as it is now.
    Lag(usize),
    /// It catches up.
    CatchUp(usize),
    /// A member carries out the next write of what it decided, however long ago.
    Write(usize),
    /// A member passes what it held.
    Serve(usize),
    /// The Deployment's controller acts.
    Observe,
    /// The ReplicaSet's controller reads that no pods are wanted.
    Doom,
    /// The ReplicaSet's controller deletes the pods, by what it read.
    Kill,
    /// The ReplicaSet's controller creates pods, or finds nothing to do.
    Create,
    /// The pods become ready.
    Ready,
    /// The deleted pods are gone.
    Gone,
    /// The slice controller shows the pods of a Service as they are.
    Show(usize),
    /// A dead member's Lease lapses.
    Bury(usize),
    /// A living member's Lease lapses, because it could not renew it in time.
    Lapse(usize),
    /// It renews it.
    Renew(usize),
    /// A request arrives at a member.
    Request(usize),
    /// A member dies.
    Crash(usize),
    /// A member dies, with a write on its way.
    CrashSending(usize),
    /// The write of a member that died arrives.
    Land,
    /// A dead member comes back, under the same name or a new one.
    Return(usize, bool),
    /// Somebody scales to three.
    Edit,
    /// A rollout: the annotations as they are now are what an undo brings back.
    Save,
    /// `kubectl rollout undo`.
    Undo,
    /// Somebody takes the proxy's hook away, or puts it back.
    Unhook,
}

impl Action {
    /// Whether it is the world's progress or the protocol's, and not a fault, an edit or a visitor. From every state a
    /// good one must be reachable by these alone.
    ///
    /// That a member comes back counts where none is left.
    pub(crate) fn is_progress(self, world: &World) -> bool {
        match self {
            Self::Request(_)
            | Self::Lapse(_)
            | Self::Crash(_)
            | Self::CrashSending(_)
            | Self::Edit
            | Self::Save
            | Self::Undo
            | Self::Unhook => false,
            Self::Return(..) => world.members.iter().all(|member| !member.alive),
            _ => true,
        }
    }
}

impl Model for Protocol {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World { hook: self.hooked, ..World::new(self.budget, self.processes) }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // A broken promise is the end of the story.
        if world.broken.is_some() {
            return;
        }
        for (index, member) in world.members.iter().enumerate().take(self.processes) {
            if !member.alive {
                actions.push(Action::Return(index, true));
                if world.members.iter().all(|member| member.name < MEMBERS) {
                    actions.push(Action::Return(index, false));
                }
                continue;
            }
            if member.cached.is_some() {
                actions.push(Action::CatchUp(index));
            } else if self.torn && member.pending.is_empty() {
                actions.push(Action::Lag(index));
            }
            if member.pending.is_empty() {
                actions.push(Action::Look(index, Mood::Calm));
                if world.note.phase == Some(Phase::Drowsy) || self.forgets_phase() {
                    actions.extend([Action::Look(index, Mood::Busy), Action::Look(index, Mood::Late)]);
                }
            } else {
                actions.push(Action::Write(index));
            }
            if member.asked && world.pods_ready() && world.note.phase != Some(Phase::Drowsy) {
                actions.push(Action::Serve(index));
            }
            if world.buried[member.name] {
                actions.push(Action::Renew(index));
            } else if world.left.lapses > 0 {
                actions.push(Action::Lapse(index));
            }
            if world.left.crashes > 0 {
                actions.push(Action::Crash(index));
                if !member.pending.is_empty() && world.in_flight.is_none() {
                    actions.push(Action::CrashSending(index));
                }
            }
            let listed = world.slices[member.name].iter().flatten();
            let listed = listed.filter(|slice| !slice.leaving && slice.life == member.life).count() > 0;
            let turned_to = !self.substitute && world.hook && !world.pods_ready() && !world.dying;
            if world.left.requests > 0 && (listed || turned_to) && !member.asked {
                actions.push(Action::Request(index));
            }
        }
        self.cluster_actions(world, actions);
        if world.in_flight.is_some() {
            actions.push(Action::Land);
        }
        if world.left.edits > 0 && world.replicas != 3 {
            actions.push(Action::Edit);
        }
        if world.left.hooks > 0 && !self.substitute {
            actions.push(Action::Unhook);
        }
        if world.left.undos > 0 && world.saved != world.note {
            actions.push(Action::Undo);
            if world.saved == Note::default() {
                actions.push(Action::Save);
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        match action {
            Action::Look(index, mood) => {
                self.confirm(&mut next, index);
                next.members[index].pending = self.look(&next, index, mood);
                if next == *world {
                    return None;
                }
            }
            Action::Write(index) => {
                let op = next.members[index].pending.remove(0);
                if !self.write(&mut next, index, op) {
                    next.members[index].pending.clear();
                }
            }
            Action::Lag(index) => {
                let now = |entry| Cached { entry, stale: false };
                next.members[index].cached = Some(world.slices.map(|slices| slices.map(now)));
            }
            Action::CatchUp(index) => next.members[index].cached = None,
            Action::Lapse(index) => {
                next.left.lapses -= 1;
                next.buried[next.members[index].name] = true;
            }
            Action::Renew(index) => next.buried[next.members[index].name] = false,
            Action::Serve(index) => next.members[index].asked = false,
            Action::Request(index) => {
                next.left.requests -= 1;
                next.members[index].asked = true;
            }
            Action::Land => {
                if let Some(op) = next.in_flight.take() {
                    next.carry_out(op);
                }
            }
            Action::Crash(index) | Action::CrashSending(index) => {
                next.left.crashes -= 1;
                if action == Action::CrashSending(index) {
                    next.in_flight = next.members[index].pending.first().copied();
                }
                let member = &mut next.members[index];
                (member.alive, member.asked) = (false, false);
                (member.memory, member.cached) = (None, None);
                (member.emptied, member.confirmed) = (None, None);
                member.pending.clear();
            }
            Action::Return(index, same) => {
                let member = &mut next.members[index];
                (member.alive, member.life) = (true, member.life + 1);
                if same {
                    next.buried[member.name] = false;
                } else {
                    member.name = MEMBERS;
                }
            }
            Action::Edit => {
                next.left.edits -= 1;
                (next.replicas, next.desired) = (3, 3);
                next.deployment_written();
            }
            Action::Unhook => {
                next.left.hooks -= 1;
                next.hook = !next.hook;
            }
            Action::Save => next.saved = next.note,
            Action::Undo => {
                next.left.undos -= 1;
                // Epochs may be used again: history was rewritten.
                (next.note, next.woken) = (next.saved, 0);
                next.copies = [next.copies[1], Note::default()];
                next.deployment_written();
                self.forget_wake(&mut next);
            }
            _ => self.cluster_acts(&mut next, action),
        }
        settle(&mut next);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("somebody answers", |model: &Self, world: &World| {
                (0..model.services).all(|service| model.answering(world, service) != Answering::Nobody)
            }),
            Property::always("the count is never lost", |model: &Self, world: &World| {
                world.broken != Some(Broken::WrongCount) && model.remembers(world)
            }),
            Property::always("one scale-up an epoch", |_, world: &World| {
                world.broken != Some(Broken::WokenTwice)
            }),
            Property::always("a wake never lowers, a nap never raises", |_, world: &World| {
                !matches!(world.broken, Some(Broken::WakeLowered | Broken::NapRaised))
            }),
        ]
    }
}

impl Protocol {
    fn cluster_actions(&self, world: &World, actions: &mut Vec<Action>) {
        let set = world.set;
        if !world.observed {
            actions.push(Action::Observe);
        }
        if set.deletes {
            actions.push(Action::Kill);
        } else if !set.acted {
            let doomed = set.spec == 0 && world.living.is_some();
            actions.push(if doomed { Action::Doom } else { Action::Create });
        }
        if world.living.is_some_and(|pods| !pods.ready) {
            actions.push(Action::Ready);
        }
        if world.dying {
            actions.push(Action::Gone);
        }
        for service in 0..self.services {
            if world.shown_living[service] != world.pods_ready() || world.shown_dying[service] {
                actions.push(Action::Show(service));
            }
        }
        for name in 0..NAMES {
            let existed = name < MEMBERS || world.members.iter().any(|member| member.name == name);
            if existed && world.alive(name).is_none() && !world.buried[name] {
                actions.push(Action::Bury(name));
            }
        }
    }

    fn cluster_acts(&self, world: &mut World, action: Action) {
        match action {
            Action::Observe => {
                world.observed = true;
                if !self.substitute {
                    world.copy_note();
                }
                world.set.acted &= world.set.spec == world.replicas;
                world.set.spec = world.replicas;
            }
            Action::Doom => world.set.deletes = true,
            Action::Kill => {
                (world.living, world.dying) = (None, true);
                for service in 0..self.services {
                    world.shown_dying[service] |= world.shown_living[service];
                    world.shown_living[service] = false;
                }
                (world.set.deletes, world.set.acted) = (false, world.set.spec == 0);
            }
            Action::Create => {
                let ready = world.pods_ready();
                world.living = (world.set.spec > 0).then_some(Pods { count: world.set.spec, ready });
                world.set.acted = true;
            }
            Action::Ready => {
                if let Some(pods) = &mut world.living {
                    pods.ready = true;
                }
            }
            Action::Gone => world.dying = false,
            Action::Show(service) => {
                world.shown_living[service] = world.pods_ready();
                world.shown_dying[service] = false;
            }
            Action::Bury(name) => world.buried[name] = true,
            _ => {}
        }
    }
}

/// A write that is sure to be refused is as good as refused: the member reads again.
fn settle(world: &mut World) {
    world.in_flight = world.in_flight.filter(|op| !(op.guarded && op.stale));
    for member in &mut world.members {
        let gone = |op: &Op| match op.what {
            What::Delete(name, service) => world.slices[name][service].is_none(),
            What::Patch(_) | What::Put(..) | What::Mark(..) => false,
        };
        if member.pending.first().is_some_and(|op| op.guarded && op.stale && !gone(op)) {
            member.pending.clear();
        }
    }
}
