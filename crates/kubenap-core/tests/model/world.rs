//! The state of the model: one app in a very small cluster, two members, and what may still go wrong.

use kubenap_core::seen::Phase;

/// How many processes of KubeNap there are.
pub(crate) const MEMBERS: usize = 2;
/// How many identities they may have had: one more, for a member that comes back under a new name.
pub(crate) const NAMES: usize = 3;
/// The most Services the app has.
pub(crate) const SERVICES: usize = 2;

/// Everything there is. A `resourceVersion` is only ever compared with the present one, so all that the model keeps of
/// it is whether the object was written since it was read ([`Op::stale`]): the states stay few, and none is lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// `spec.replicas`.
    pub(crate) replicas: u8,
    /// The Deployment's controller has acted on the newest version.
    pub(crate) observed: bool,
    /// KubeNap's annotations.
    pub(crate) note: Note,
    /// The annotations that `kubectl rollout undo` would bring back.
    pub(crate) saved: Note,
    /// The copies of the annotations on the ReplicaSets: before the last undo, and now.
    pub(crate) copies: [Note; 2],
    /// The proxy in front turns to KubeNap where there are no pods; counts only without substitution.
    pub(crate) hook: bool,
    /// The ReplicaSet.
    pub(crate) set: ReplicaSet,
    /// Pods that are not being deleted.
    pub(crate) living: Option<Pods>,
    /// Pods that are being deleted still answer.
    pub(crate) dying: bool,
    /// For each Service: the living pods are shown as ready.
    pub(crate) shown_living: [bool; SERVICES],
    /// For each Service: deleted pods are still shown as ready.
    pub(crate) shown_dying: [bool; SERVICES],
    /// KubeNap's slices, by identity and Service.
    pub(crate) slices: [[Option<Entry>; SERVICES]; NAMES],
    /// The processes.
    pub(crate) members: [Member; MEMBERS],
    /// A write of a member that died, still on its way to the API server.
    pub(crate) in_flight: Option<Op>,
    /// Identities whose Lease is known to have lapsed.
    pub(crate) buried: [bool; NAMES],
    /// What may still happen.
    pub(crate) left: Budget,
    /// How often the hook could be taken away or put back at the start.
    pub(crate) had_hooks: u8,
    /// What the user wants.
    pub(crate) desired: u8,
    /// The last epoch in which a scale-up took effect.
    pub(crate) woken: u8,
    /// The first promise that a write broke.
    pub(crate) broken: Option<Broken>,
}

/// KubeNap's annotations on the Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Note {
    /// `kubenap/phase`.
    pub(crate) phase: Option<Phase>,
    /// `kubenap/epoch`.
    pub(crate) epoch: u8,
    /// `kubenap/restoreReplicas`.
    pub(crate) restore: Option<u8>,
    /// `kubenap/wakePorts` is there.
    pub(crate) ports: bool,
}

/// The ReplicaSet and its controller, which reads and acts at two moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ReplicaSet {
    /// How many pods it wants.
    pub(crate) spec: u8,
    /// Its controller is about to delete the pods, by what it read earlier.
    pub(crate) deletes: bool,
    /// Its controller has acted on the newest `spec`.
    pub(crate) acted: bool,
}

/// The pods that are not being deleted, all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pods {
    /// How many.
    pub(crate) count: u8,
    /// They answer.
    pub(crate) ready: bool,
}

/// One of KubeNap's slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Entry {
    /// The nap it was written for.
    pub(crate) epoch: u8,
    /// The count it remembers.
    pub(crate) restore: u8,
    /// It is marked as terminating.
    pub(crate) leaving: bool,
    /// Which life of the member the address is of.
    pub(crate) life: u8,
}

/// A slice, or none, in a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Cached {
    /// As it was.
    pub(crate) entry: Option<Entry>,
    /// It was written since.
    pub(crate) stale: bool,
}

/// A look at which there were no pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Emptied {
    /// The nap.
    pub(crate) epoch: u8,
    /// How many writes on the Deployment came since; two stand for more.
    pub(crate) writes: u8,
}

/// A process of KubeNap.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Member {
    /// Its identity.
    pub(crate) name: usize,
    /// It runs.
    pub(crate) alive: bool,
    /// How often it was started before; each life has an address of its own.
    pub(crate) life: u8,
    /// A request came here that needs the app.
    pub(crate) asked: bool,
    /// The writes that it is about to make, decided on what it read earlier.
    pub(crate) pending: Vec<Op>,
    /// It saw the app asleep and without pods; so many writes on the Deployment ago.
    pub(crate) emptied: Option<Emptied>,
    /// The wake of which it knows, from the controllers of Deployment and ReplicaSet, that pods that live now stay.
    pub(crate) confirmed: Option<u8>,
    /// The slices as its cache shows them, where that is behind, and which of them were written since.
    pub(crate) cached: Option<[[Cached; SERVICES]; NAMES]>,
    /// Only for a protocol that does not persist the phase: what it remembers instead.
    pub(crate) memory: Option<(Phase, u8)>,
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Budget {
    /// Naps that are armed.
    pub(crate) naps: u8,
    /// Requests that arrive at a member.
    pub(crate) requests: u8,
    /// Members that die.
    pub(crate) crashes: u8,
    /// Edits of the replica count to three.
    pub(crate) edits: u8,
    /// Annotations replaced by old ones.
    pub(crate) undos: u8,
    /// Leases of living members that lapse all the same.
    pub(crate) lapses: u8,
    /// The proxy's hook is taken away, or put back.
    pub(crate) hooks: u8,
}

/// A promise that a single write can break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Broken {
    /// A wake did not restore what the user wanted.
    WrongCount,
    /// A wake lowered the replicas.
    WakeLowered,
    /// A nap raised the replicas.
    NapRaised,
    /// Two scale-ups took effect in one epoch.
    WokenTwice,
}

/// A write, as far as the model can tell writes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Op {
    /// What it does.
    pub(crate) what: What,
    /// It has a precondition.
    pub(crate) guarded: bool,
    /// Its object was written since it was read.
    pub(crate) stale: bool,
}

/// What a write does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum What {
    /// Patches the Deployment.
    Patch(Change),
    /// Creates or replaces a slice.
    Put(usize, usize, Entry),
    /// Marks a slice as terminating.
    Mark(usize, usize),
    /// Deletes a slice.
    Delete(usize, usize),
}

/// A patch of the Deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Change {
    /// The new `spec.replicas`.
    pub(crate) replicas: Option<u8>,
    /// The new phase.
    pub(crate) phase: Option<Phase>,
    /// The new epoch.
    pub(crate) epoch: Option<u8>,
    /// The new count to restore.
    pub(crate) restore: Option<u8>,
    /// The count to restore is taken away.
    pub(crate) forgets: bool,
    /// Wake ports are written.
    pub(crate) ports: bool,
}

/// Who answers for a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    /// A pod, or a living member.
    Somebody,
    /// Only addresses of members that died: excused, the promise is about living ones.
    OnlyTheDead,
    /// The proxy's hook was taken away while the app slept: its owner's doing.
    Unhooked,
    /// Nobody: a hole.
    Nobody,
}

impl World {
    /// Awake with two replicas, and nothing of KubeNap's there.
    pub(crate) fn new(left: Budget, processes: usize) -> Self {
        let member = |name| Member {
            name,
            alive: name < processes,
            life: 0,
            asked: false,
            pending: Vec::new(),
            emptied: None,
            confirmed: None,
            cached: None,
            memory: None,
        };
        Self {
            replicas: 2,
            observed: true,
            note: Note::default(),
            saved: Note::default(),
            copies: [Note::default(); 2],
            hook: true,
            set: ReplicaSet { spec: 2, deletes: false, acted: true },
            living: Some(Pods { count: 2, ready: true }),
            dying: false,
            shown_living: [true; SERVICES],
            shown_dying: [false; SERVICES],
            slices: [[None; SERVICES]; NAMES],
            members: [member(0), member(1)],
            in_flight: None,
            buried: [false, processes < MEMBERS, false],
            left,
            had_hooks: left.hooks,
            desired: 2,
            woken: 0,
            broken: None,
        }
    }

    /// The living process of that name.
    pub(crate) fn alive(&self, name: usize) -> Option<&Member> {
        self.members.iter().find(|member| member.alive && member.name == name)
    }

    /// Whether the living pods answer.
    pub(crate) fn pods_ready(&self) -> bool {
        self.living.is_some_and(|pods| pods.ready)
    }

    /// Whether it was ever armed.
    pub(crate) fn is_after_a_nap(&self) -> bool {
        self.note.epoch > 0
    }

    /// Who answers a request that follows the endpoints of a Service as they are shown now.
    pub(crate) fn answering(&self, service: usize) -> Answering {
        let pods = self.shown_living[service] && self.pods_ready() || self.shown_dying[service] && self.dying;
        let listed = || {
            self.slices.iter().enumerate().filter_map(move |(name, slices)| {
                slices[service].filter(|slice| !slice.leaving).map(|slice| (name, slice))
            })
        };
        let member =
            listed().any(|(name, slice)| self.alive(name).is_some_and(|member| member.life == slice.life));
        match (pods || member, listed().next()) {
            (true, _) => Answering::Somebody,
            (false, Some(_)) => Answering::OnlyTheDead,
            (false, None) => Answering::Nobody,
        }
    }

    /// Who answers a request that comes through a proxy, whose hook turns to KubeNap where it finds no pod.
    pub(crate) fn answering_behind_a_hook(&self, service: usize) -> Answering {
        let pods = self.shown_living[service] && self.pods_ready() || self.shown_dying[service] && self.dying;
        match (pods, self.hook, self.members.iter().any(|member| member.alive)) {
            (true, ..) | (false, true, true) => Answering::Somebody,
            (false, true, false) => Answering::OnlyTheDead,
            (false, false, _) if self.left.hooks < self.had_hooks => Answering::Unhooked,
            (false, false, _) => Answering::Nobody,
        }
    }

    /// The Deployment's controller copies its annotations to the current ReplicaSet, and takes none away there.
    pub(crate) fn copy_note(&mut self) {
        let (note, copy) = (self.note, &mut self.copies[1]);
        copy.phase = note.phase.or(copy.phase);
        copy.epoch = if note == Note::default() { copy.epoch } else { note.epoch };
        copy.restore = note.restore.or(copy.restore);
        copy.ports |= note.ports;
    }

    /// The Deployment was written: what rests on an older reading of it is stale.
    pub(crate) fn deployment_written(&mut self) {
        self.observed = false;
        for emptied in self.members.iter_mut().filter_map(|member| member.emptied.as_mut()) {
            emptied.writes = (emptied.writes + 1).min(2);
        }
        self.outdate(|what| matches!(what, What::Patch(_)));
    }

    /// A slice was written, or is another object now.
    pub(crate) fn slice_written(&mut self, name: usize, service: usize) {
        self.outdate(|what| match what {
            What::Mark(n, s) | What::Delete(n, s) => (n, s) == (name, service),
            What::Patch(_) | What::Put(..) => false,
        });
        for cached in self.members.iter_mut().filter_map(|member| member.cached.as_mut()) {
            cached[name][service].stale = true;
        }
    }

    fn outdate(&mut self, concerned: impl Fn(What) -> bool) {
        let pending = self.members.iter_mut().flat_map(|member| &mut member.pending);
        for op in pending.chain(&mut self.in_flight).filter(|op| concerned(op.what)) {
            op.stale = true;
        }
    }

    /// Carries out one write as an API server does; `false` is a refusal.
    pub(crate) fn carry_out(&mut self, op: Op) -> bool {
        match op.what {
            What::Put(name, service, entry) => {
                self.slices[name][service] = Some(entry);
                self.slice_written(name, service);
                true
            }
            // What is gone already need not be deleted.
            What::Delete(name, service) if self.slices[name][service].is_none() => true,
            _ if op.guarded && op.stale => false,
            What::Delete(name, service) => {
                self.slices[name][service] = None;
                self.slice_written(name, service);
                true
            }
            What::Mark(name, service) => {
                let Some(slice) = &mut self.slices[name][service] else { return false };
                slice.leaving = true;
                self.slice_written(name, service);
                true
            }
            What::Patch(change) => {
                self.patch(change);
                true
            }
        }
    }

    fn patch(&mut self, change: Change) {
        let before = self.replicas;
        if let Some(replicas) = change.replicas {
            let epoch = change.epoch.unwrap_or(0);
            let broken = match change.phase {
                Some(Phase::Waking) if replicas < before => Some(Broken::WakeLowered),
                Some(Phase::Waking) if self.woken == epoch => Some(Broken::WokenTwice),
                Some(Phase::Waking) if replicas != self.desired => Some(Broken::WrongCount),
                Some(Phase::Asleep) if replicas > before => Some(Broken::NapRaised),
                _ => None,
            };
            self.broken = self.broken.or(broken);
            if change.phase == Some(Phase::Waking) {
                self.woken = epoch;
            }
            self.replicas = replicas;
        }
        if change.phase == Some(Phase::Drowsy) {
            self.left.naps = self.left.naps.saturating_sub(1);
        }
        self.note.phase = change.phase.or(self.note.phase);
        self.note.epoch = change.epoch.unwrap_or(self.note.epoch);
        self.note.ports |= change.ports;
        self.note.restore = change.restore.or(self.note.restore.filter(|_| !change.forgets));
        self.deployment_written();
    }
}
