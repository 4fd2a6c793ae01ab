//! Which state an app is in, derived on every turn from what the cluster says.

use crate::policy::Policy;
use crate::seen::{DeploymentSeen, Phase, Seen, Stamp};

/// The state of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Situation {
    /// Its pods answer, and nothing of KubeNap's is in the way.
    Awake,
    /// Armed: KubeNap is an endpoint or about to be, the pods still run.
    Drowsy {
        /// The nap.
        epoch: u64,
    },
    /// Scaled to zero; KubeNap answers.
    Asleep {
        /// The nap.
        epoch: u64,
        /// How many replicas to restore.
        restore: u32,
        /// The Deployment itself says so. If not, its annotations were replaced, or the zero is adopted.
        recorded: bool,
    },
    /// Replicas are wanted again; KubeNap answers until they do.
    Waking {
        /// The nap that ends.
        epoch: u64,
        /// The Deployment says so, or says that it is asleep. If not, only slices of ours are left over.
        recorded: bool,
    },
    /// At zero by somebody else's will.
    OwnersZero,
}

/// Derives the state of the app called `name`.
///
/// The count and the epoch stand on the Deployment and, mirrored, on KubeNap's slices, because `kubectl rollout undo`
/// replaces a Deployment's annotations by old ones. Of the two the one with the greater epoch is believed.
pub fn situation(name: &str, policy: &Policy, seen: &Seen) -> Situation {
    let record = &seen.deployment.record;
    let epoch = seen.epoch(name);
    let stamp = seen.stamp(name);
    let stale = stamp.is_some_and(|stamp| stamp.epoch > record.epoch);
    let phase = if stale { None } else { record.phase };
    if seen.deployment.replicas > 0 {
        return match phase {
            Some(Phase::Drowsy) if record.epoch == epoch => Situation::Drowsy { epoch },
            Some(Phase::Asleep | Phase::Waking) => Situation::Waking { epoch, recorded: true },
            _ if has_slices(name, seen) => Situation::Waking { epoch, recorded: false },
            _ => Situation::Awake,
        };
    }
    let counted = || policy.replica_count.unwrap_or(1);
    match (phase, stamp) {
        // An older record: what the slices remember counts.
        (None, Some(stamp)) if stale => Situation::Asleep { epoch, restore: stamp.restore, recorded: false },
        (Some(Phase::Asleep), _) => {
            let restore = record.restore.or(stamp.map(|stamp| stamp.restore)).unwrap_or_else(counted);
            Situation::Asleep { epoch, restore, recorded: record.restore.is_some() }
        }
        // Zeroed by somebody while KubeNap was on its way to do so.
        (Some(Phase::Drowsy), Some(stamp)) => {
            Situation::Asleep { epoch, restore: stamp.restore, recorded: false }
        }
        _ if policy.adopts_zero() => {
            Situation::Asleep { epoch: epoch.saturating_add(1), restore: counted(), recorded: false }
        }
        _ => Situation::OwnersZero,
    }
}

impl Situation {
    /// The phase that people are shown.
    pub fn phase(self) -> Phase {
        match self {
            // A zero of the owner's is none of KubeNap's business: awake, with no replicas.
            Self::Awake | Self::OwnersZero => Phase::Awake,
            Self::Drowsy { .. } => Phase::Drowsy,
            Self::Asleep { .. } => Phase::Asleep,
            Self::Waking { .. } => Phase::Waking,
        }
    }
}

/// Whether the count of a nap would be lost with the slices that remember it: the Deployment is at zero and does not
/// tell of that nap, as after a `kubectl rollout undo`.
pub fn only_slices_know(deployment: &DeploymentSeen, stamp: Stamp) -> bool {
    let record = &deployment.record;
    deployment.replicas == 0 && (record.epoch < stamp.epoch || record.restore.is_none())
}

fn has_slices(name: &str, seen: &Seen) -> bool {
    seen.slices.iter().any(|slice| slice.apps.contains_key(name))
}
