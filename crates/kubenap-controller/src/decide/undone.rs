//! Where a Deployment is at zero and nothing says why: do its ReplicaSets remember a nap that was undone?
//!
//! `kubectl rollout undo` replaces a Deployment's annotations by old ones. KubeNap's slices remember the count where an
//! app is substituted; elsewhere only the copies do that the Deployment's controller keeps on its ReplicaSets.

use kubenap_core::seen::Stamp;
use kubenap_core::situation::Situation;

use super::Context;
use super::gather::Gathered;
use crate::cluster::{ClusterError, around};

/// What ReplicaSets remembered of a Deployment at one generation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remembered {
    /// The Deployment's uid.
    pub uid: String,
    /// Its generation, which grows with its annotations.
    pub generation: i64,
    /// What they said.
    pub stamp: Option<Stamp>,
}

impl Remembered {
    /// What was read of this very Deployment, if it was.
    pub fn of(&self, uid: &str, generation: i64) -> Option<Option<Stamp>> {
        (self.uid == uid && self.generation == generation).then_some(self.stamp)
    }
}

/// Asks the ReplicaSets once for each version of a Deployment that is at zero for no known reason. Whether it did.
pub async fn look(cx: &Context, gathered: &Gathered) -> Result<bool, ClusterError> {
    let seen = &gathered.seen.deployment;
    if gathered.situation() != Situation::OwnersZero || seen.deleting {
        return Ok(false);
    }
    let known = |memory: &mut super::memory::Memory| memory.remembered(&seen.uid, seen.generation).is_some();
    if cx.memories.with(&gathered.app, known) {
        return Ok(false);
    }
    let stamp = around::remembered(&cx.cluster, &gathered.around.deployment).await?;
    let remembered = Remembered { uid: seen.uid.clone(), generation: seen.generation, stamp };
    cx.memories.with(&gathered.app, |memory| memory.remembered = Some(Box::new(remembered)));
    Ok(stamp.is_some())
}
