//! The same stories with one precaution taken away: each must break the law that it should, or the days prove nothing.

use kubenap_core::app::key;
use kubenap_core::decide::Decision;
use kubenap_core::seen::Seen;
use kubenap_core::step::Step;
use kubenap_core::write::{DeploymentPatch, Write};

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bent {
    /// Nothing: as shipped.
    No,
    /// Quiet for a second is quiet enough.
    IgnoresIdleAfter,
    /// The count does not go into the patch with the zero.
    LosesCount,
    /// A wake is to one replica, whatever there was.
    WakesToOne,
    /// A member is gone from the Service as soon as it has asked for pods.
    LeavesTooSoon,
    /// Slices are in the name of somebody who is not there.
    NeverStandsIn,
    /// Slices stay when the app is awake.
    NeverWithdraws,
    /// Writes have no preconditions.
    Unguarded,
    /// Naps are numbered from what an undo brought back.
    CountsAnew,
}

impl Bent {
    /// Everything that can be taken away, and the law that this breaks; empty: one or the other.
    pub(crate) const ALL: [(Self, &'static str); 8] = [
        (Self::IgnoresIdleAfter, "I3"),
        (Self::LosesCount, "I2"),
        (Self::WakesToOne, "I2"),
        (Self::LeavesTooSoon, "I1"),
        (Self::NeverStandsIn, "L1"),
        (Self::NeverWithdraws, "L2"),
        (Self::Unguarded, ""),
        (Self::CountsAnew, ""),
    ];

    /// The writes of a decision of the member called `name`, bent.
    pub(super) fn bend(
        self,
        name: &str,
        seen: &Seen,
        decision: &Decision,
        mut all: Vec<Write>,
    ) -> Vec<Write> {
        match (self, &decision.step) {
            (Self::LosesCount, Step::ScaleDown { .. }) => {
                patches(&mut all).for_each(|patch| drop(patch.set.remove(key::RESTORE)));
            }
            (Self::WakesToOne, Step::ScaleUp { .. }) => {
                patches(&mut all).for_each(|patch| patch.replicas = Some(1));
            }
            (Self::LeavesTooSoon, Step::ScaleUp { .. }) => {
                let own = seen.slices.iter().filter(|slice| slice.member == name);
                all.extend(own.map(|slice| Write::DeleteSlice {
                    namespace: "shop".to_owned(),
                    name: slice.name.clone(),
                    uid: None,
                    resource_version: None,
                }));
            }
            (Self::NeverStandsIn, Step::Substitute) => {
                for write in &mut all {
                    if let Write::PutSlice { slice, .. } = write {
                        slice.member = "nobody".to_owned();
                    }
                }
            }
            (Self::NeverWithdraws, Step::Withdraw | Step::MarkLeaving) => all.clear(),
            _ => {}
        }
        all
    }
}

fn patches(all: &mut [Write]) -> impl Iterator<Item = &mut DeploymentPatch> {
    all.iter_mut().filter_map(|write| match write {
        Write::Deployment(patch) => Some(patch),
        Write::PutSlice { .. }
        | Write::MarkLeaving { .. }
        | Write::DeleteSlice { .. }
        | Write::Attach { .. }
        | Write::Detach { .. } => None,
    })
}
