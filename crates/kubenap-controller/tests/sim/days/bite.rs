//! The same stories with one precaution taken away: each must break a law, or the days would prove nothing.

use kubenap_core::app::key;
use kubenap_core::decide::Decision;
use kubenap_core::step::Step;
use kubenap_core::write::Write;

/// What is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bent {
    /// Nothing: as shipped.
    No,
    /// Quiet for a second is quiet enough.
    IgnoresIdleAfter,
    /// The count does not go into the patch with the zero.
    LosesCount,
    /// Pods go without anybody in their place.
    StandsInNever,
    /// Slices stay when the app is awake.
    NeverWithdraws,
    /// Naps are numbered from what an undo brought back.
    CountsAnew,
    /// A wake is to one replica, whatever there was.
    WakesToOne,
}

impl Bent {
    /// Everything that can be taken away.
    pub(crate) const ALL: [Self; 6] = [
        Self::IgnoresIdleAfter,
        Self::LosesCount,
        Self::StandsInNever,
        Self::NeverWithdraws,
        Self::CountsAnew,
        Self::WakesToOne,
    ];

    /// The writes of a decision, bent.
    pub(super) fn bend(self, decision: &Decision, mut all: Vec<Write>) -> Vec<Write> {
        match (self, &decision.step) {
            (Self::LosesCount, Step::ScaleDown { .. }) => {
                for write in &mut all {
                    if let Write::Deployment(patch) = write {
                        patch.set.remove(key::RESTORE);
                    }
                }
            }
            (Self::WakesToOne, Step::ScaleUp { .. }) => {
                for write in &mut all {
                    if let Write::Deployment(patch) = write {
                        patch.replicas = Some(1);
                    }
                }
            }
            (Self::StandsInNever, Step::Substitute) => {
                for write in &mut all {
                    if let Write::PutSlice { slice, .. } = write {
                        "nobody".clone_into(&mut slice.member);
                    }
                }
            }
            (Self::NeverWithdraws, Step::Withdraw | Step::MarkLeaving) => all.clear(),
            _ => {}
        }
        all
    }
}
