//! From facts to the one next step, with the reason for it. Total, pure, without a clock.

use std::time::Duration;

use jiff::Timestamp;

use crate::activity::Activity;
use crate::app::AppId;
use crate::breaker::Barred;
use crate::keep_awake::{hook_missing, keep_awake, refusal, service_problem, unsettled};
use crate::policy::{Reading, Wish};
use crate::seen::{HookSeen, Phase, Seen, ServiceSeen, Slice, Trouble, WakePorts};
use crate::situation::{Situation, situation};
use crate::step::{
    HEARD_OF, Step, attached_now, dead, detached_now, mine, slices_missing, stands_in, strays, woken_by_other,
};
use crate::why::Why;

mod here;

pub use here::{Here, QUERY_LAG, Timing};

/// All that a decision rests on.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The time; the only clock that the core knows.
    pub now: Timestamp,
    /// The app.
    pub app: &'a AppId,
    /// What its annotations ask for.
    pub reading: &'a Reading,
    /// Its label is still there.
    pub opted_in: bool,
    /// What the cluster says.
    pub seen: &'a Seen,
    /// What the traffic says.
    pub activity: &'a Activity,
    /// Who is deciding.
    pub here: &'a Here,
    /// A request needs the app: held here now, or come in since it was armed.
    pub asked: bool,
    /// How long this member has seen the app in its present phase and epoch.
    pub in_phase: Duration,
    /// How long this member has seen a wake wait while nothing said why.
    pub waiting: Duration,
    /// How long this member has seen enough members' slices of this epoch; without substitution, the proxy's hook.
    pub substituted_for: Duration,
    /// How long this member has seen [`Seen::told`] unchanged.
    pub told_for: Duration,
    /// Since it was armed a connection to the Service arrived at a member; without substitution, a member answered at
    /// the wake address.
    pub path_proved: bool,
    /// A member answered lately at the wake address, to which proxies' hooks lead.
    pub wake_address_answers: bool,
    /// The pace of naps allows one more.
    pub may_arm: bool,
    /// The wake ports to use, the present ones kept where they can be; none: not enough are free.
    pub ports: Option<WakePorts>,
    /// A wake failed, and the breaker does not let another try through yet.
    pub barred: Option<Barred>,
    /// The breaker lets one try through, and somebody asked since the last one.
    pub push: bool,
    /// Who scaled the app up while it slept, where that was read.
    pub reverter: Option<String>,
    /// The controller's settings.
    pub timing: Timing,
}

/// One step, and why.
#[must_use = "a decision does nothing until its step is carried out"]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do.
    pub step: Step,
    /// Why.
    pub why: Why,
    /// Look again after this long, even if nothing is heard.
    pub look_again: Option<Duration>,
}

/// The next step for one app, as far as this member may take it.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if facts.seen.deployment.deleting {
        return stay(Why::Deleting);
    }
    match situation(&facts.app.name, &facts.reading.policy, facts.seen) {
        Situation::Awake => awake(facts),
        Situation::Drowsy { epoch } => drowsy(facts, epoch),
        Situation::Asleep { epoch, restore, recorded } => asleep(facts, epoch, restore, recorded),
        Situation::Waking { epoch, recorded } => waking(facts, epoch, recorded),
        Situation::OwnersZero => owners_zero(facts),
    }
}

/// Why a wake that is under way does not end: what pods and conditions say, or else that its time is over.
///
/// The time is this member's own, from when it first saw the wake, or last saw what was wrong with it: another member's clock may be wrong, and telling too
/// early that an app never gets ready would refuse those whom it is about to serve.
pub fn trouble(facts: &Facts<'_>) -> Option<Trouble> {
    let late = || facts.waiting >= facts.reading.policy.wake_timeout;
    if facts.seen.ready() {
        return None;
    }
    facts.seen.trouble().or_else(|| late().then_some(Trouble::NotReady))
}

/// How often a turn that waits for others is repeated.
const SOON: Duration = Duration::from_millis(200);
/// How long a wake waits for the scale-down before it to take hold. A few milliseconds where controllers are well.
const TAKES_HOLD: Duration = Duration::from_millis(500);
/// A sleeping app whose wake ports do not listen on the leader for this long gets others.
const NOT_LISTENING: Duration = Duration::from_secs(5);
/// How often a wake that waits for pods is looked at without any event.
const WAITING: Duration = Duration::from_secs(1);
/// An app is awake for so long before what its proxy was told is taken back: until then its proxy may not have heard of
/// the pods, and with the hook in place it may still ask KubeNap.
const HEARD: Duration = Duration::from_secs(5);

fn awake(facts: &Facts<'_>) -> Decision {
    if !facts.seen.pieces().is_empty() {
        let left = HEARD.saturating_sub(facts.in_phase);
        return if left.is_zero() {
            detach(facts, Why::Detaching)
        } else {
            Decision { look_again: Some(left), ..stay(Why::Detaching) }
        };
    }
    if !facts.opted_in {
        let step = if facts.seen.deployment.record.any { Step::Forget } else { Step::Stay };
        return Decision { step, why: Why::OptedOut, look_again: None };
    }
    let wish = facts.reading.policy.wish;
    let why = match wish {
        Some(wish @ Wish::Wake) => return act(Step::ClearWish, Why::Wished(wish)),
        Some(_) if unsettled(facts).is_some() => return wait(Why::RollingOut),
        Some(wish) => match refusal(facts) {
            Some(why) if facts.here.leading => return act(Step::ClearWish, why),
            Some(why) => return stay(why),
            None => Why::Wished(wish),
        },
        None => match keep_awake(facts) {
            Some(why) => return Decision { look_again: left(&why), ..stay(why) },
            None => Why::Quiet(facts.activity.quiet_since(Timestamp::MIN)),
        },
    };
    match &facts.ports {
        _ if !facts.here.leading => stay(Why::NotLeader),
        None => stay(Why::NoPorts),
        Some(ports) => {
            let epoch = facts.seen.epoch(&facts.app.name).max(facts.seen.counted).saturating_add(1);
            act(Step::Arm { epoch, ports: ports.clone() }, why)
        }
    }
}

/// Takes back what may go now of what the proxy was told.
fn detach(facts: &Facts<'_>, why: Why) -> Decision {
    let (now, _) = detached_now(facts);
    if now.is_empty() {
        return Decision { look_again: Some(until_heard(facts)), ..stay(Why::Detaching) };
    }
    act(Step::Detach, why)
}

/// How much longer the proxy may not have heard of what it was told last.
fn until_heard(facts: &Facts<'_>) -> Duration {
    HEARD_OF.saturating_sub(facts.told_for)
}

fn drowsy(facts: &Facts<'_>, epoch: u64) -> Decision {
    let wish = facts.reading.policy.wish;
    let restore = facts.seen.deployment.replicas;
    if let Some(why) = cancels(facts, wish) {
        return act(Step::Cancel { epoch }, why);
    }
    if !facts.here.listening {
        return wait(Why::NotListening);
    }
    if slices_missing(facts) {
        return act(Step::Substitute, Why::Substituting);
    }
    if !facts.here.leading {
        return stay(Why::NotLeader);
    }
    if let Some(why) = unsettled(facts) {
        return wait(why);
    }
    if attaches(facts) {
        return act(Step::Attach, Why::Attaching);
    }
    if attaches_later(facts) {
        return wait(Why::Attaching);
    }
    if !stands_in(facts) {
        return wait(Why::Substituting);
    }
    match last_look(facts).filter(|_| wish.is_none()) {
        Some(why @ Why::LastLook) => return wait(why),
        Some(why) => return act(Step::Cancel { epoch }, why),
        None => {}
    }
    if facts.substituted_for < facts.timing.drowsy {
        return Decision {
            look_again: Some(facts.timing.drowsy.saturating_sub(facts.substituted_for)),
            ..stay(Why::DrowsyWindow)
        };
    }
    // Where the path cannot be shown, by client-IP affinity for one, twice the window alone counts.
    if !facts.path_proved && facts.substituted_for < facts.timing.drowsy * 2 {
        return wait(Why::Proving);
    }
    if !facts.path_proved && !facts.reading.policy.substitute {
        return act(Step::Cancel { epoch }, Why::WakeAddressSilent);
    }
    if let Some(peer) = facts.seen.peers.iter().find(|peer| peer.phase == Phase::Awake) {
        return wait(Why::PeerAwake(peer.id.to_string()));
    }
    let why = wish.map_or_else(|| Why::Quiet(facts.activity.quiet_since(Timestamp::MIN)), Why::Wished);
    act(Step::ScaleDown { epoch, restore }, why)
}

fn cancels(facts: &Facts<'_>, wish: Option<Wish>) -> Option<Why> {
    let waking = |peer: &&crate::seen::Peer| peer.phase == Phase::Waking;
    if facts.asked && wish != Some(Wish::ForceNap) {
        return Some(Why::AskedWhileDrowsy);
    }
    if !facts.opted_in {
        return Some(Why::OptedOut);
    }
    if wish == Some(Wish::Wake) {
        return Some(Why::Wished(Wish::Wake));
    }
    // Annotations that were replaced by old ones may say drowsy of a nap that is long over.
    let since = facts.seen.deployment.record.since.map(|since| facts.now.duration_since(since));
    let abandoned = facts.timing.abandoned(&facts.reading.policy);
    let old = since.is_some_and(|age| Duration::try_from(age).is_ok_and(|age| age > abandoned));
    if facts.in_phase > abandoned || (old && facts.here.leading) {
        return Some(Why::NapAbandoned);
    }
    if let Some(peer) = facts.seen.peers.iter().find(waking) {
        return Some(Why::PeerAwake(peer.id.to_string()));
    }
    if armed_otherwise(facts) {
        return Some(Why::ArmedOtherwise);
    }
    // Only the leader looks at proxies' objects, and shows that the wake address answers before the pods go: what the
    // others do not know of either ends no nap.
    let known = |why: &Why| facts.here.leading || !matches!(why, Why::HookUnknown | Why::WakeAddressSilent);
    if unsettled(facts).is_some() { None } else { refusal(facts).filter(known) }
}

/// Whether the proxy is to be told, or that it was is to be written down, by this member.
fn attaches(facts: &Facts<'_>) -> bool {
    let seen = facts.seen;
    let wanted = match seen.hook {
        HookSeen::Attachable => seen.unrecorded() || !attached_now(facts).is_empty(),
        HookSeen::Seen => seen.unrecorded(),
        HookSeen::Unknown | HookSeen::Missing(_) | HookSeen::Declared => false,
    };
    !facts.reading.policy.substitute && facts.here.leading && wanted
}

/// Whether it is to be told the rest as soon as it has heard of what it was told so far.
fn attaches_later(facts: &Facts<'_>) -> bool {
    let seen = facts.seen;
    let is_some = seen.hook == HookSeen::Attachable && !seen.unapplied.is_empty();
    !facts.reading.policy.substitute && facts.here.leading && is_some
}

/// Whether what the arming wrote down does not fit any more. Without substitution the count goes into that patch, so
/// that its ReplicaSet knows it before the zero is written.
fn armed_otherwise(facts: &Facts<'_>) -> bool {
    let deployment = &facts.seen.deployment;
    if facts.reading.policy.substitute {
        !ports_cover(facts)
    } else {
        deployment.record.restore != Some(deployment.replicas) || mine(facts).next().is_some()
    }
}

/// Whether there is a wake port for every port through which the app is substituted.
fn ports_cover(facts: &Facts<'_>) -> bool {
    let record = &facts.seen.deployment.record.wake_ports;
    let covers = |service: &ServiceSeen| {
        service.ports.iter().all(|port| record.of(&service.name, port.number).is_some())
    };
    !facts.reading.policy.substitute || facts.seen.services.iter().all(covers)
}

/// One more poll with a watermark past the arming, and still quiet.
fn last_look(facts: &Facts<'_>) -> Option<Why> {
    let armed = facts.seen.deployment.record.since.unwrap_or(facts.now);
    if !facts.activity.blind.is_empty() {
        return Some(Why::Blind(facts.activity.blind.clone()));
    }
    let idle_after = facts.reading.policy.idle_after;
    let quiet = facts.activity.quiet_since(Timestamp::MIN);
    if facts.activity.watermark < armed {
        return Some(Why::LastLook);
    }
    (quiet < idle_after).then(|| Why::HadTraffic(idle_after.saturating_sub(quiet)))
}

fn asleep(facts: &Facts<'_>, epoch: u64, restore: u32, recorded: bool) -> Decision {
    let wake = wakes(facts);
    let barred = wake.as_ref().and(facts.barred.as_ref());
    if let (Some(why), None) = (wake, barred) {
        // The scale-down takes hold first, so that no pod that answers after the wake is one that was told to stop.
        let old_pods = facts.seen.pods.iter().any(|pod| !pod.deleting);
        if old_pods && recorded && facts.in_phase < TAKES_HOLD {
            return Decision { look_again: Some(TAKES_HOLD.saturating_sub(facts.in_phase)), ..stay(why) };
        }
        return act(Step::ScaleUp { epoch, replicas: wake_to(facts, restore) }, why);
    }
    let remembered = facts.seen.stamp(&facts.app.name).is_some();
    if !recorded || !ports_cover(facts) {
        let why = match (recorded, remembered) {
            (true, _) => Why::PortsChanged,
            (false, true) => Why::RecordLost,
            (false, false) => Why::ZeroAdopted,
        };
        // Taking over a zero is a nap of sorts, and wake ports are the leader's to give.
        return match &facts.ports {
            _ if !facts.here.leading => stay(Why::NotLeader),
            None => stay(Why::NoPorts),
            Some(ports) => act(Step::Record { epoch, restore, ports: ports.clone() }, why),
        };
    }
    if !facts.here.listening {
        // Somebody else has the port: the leader gives the app others.
        return match &facts.ports {
            Some(ports) if facts.here.leading && facts.in_phase >= NOT_LISTENING => {
                act(Step::Record { epoch, restore, ports: ports.clone() }, Why::NotListening)
            }
            _ => Decision { look_again: Some(NOT_LISTENING), ..stay(Why::NotListening) },
        };
    }
    if slices_missing(facts) {
        return act(Step::Substitute, Why::Sleeps);
    }
    if attaches(facts) {
        return act(Step::Attach, Why::Sleeps);
    }
    // Where substitution was switched off meanwhile, its slices go when somebody answers on the other way.
    let other_way =
        facts.reading.policy.substitute || (facts.wake_address_answers && facts.seen.hook.in_place());
    if other_way && strays(facts).next().is_some() {
        return act(Step::WithdrawStrays, Why::Leftover);
    }
    if !dead(facts).is_empty() {
        return act(Step::SweepDead, Why::MemberDead);
    }
    match (barred, facts.reading.policy.wish) {
        (Some(barred), _) => bar(barred),
        (None, Some(wish)) => act(Step::ClearWish, Why::Wished(wish)),
        (None, None) if attaches_later(facts) => {
            Decision { look_again: Some(until_heard(facts)), ..stay(Why::Sleeps) }
        }
        (None, None) => stay(Why::Sleeps),
    }
}

fn wakes(facts: &Facts<'_>) -> Option<Why> {
    let up = |peer: &&crate::seen::Peer| matches!(peer.phase, Phase::Awake | Phase::Waking);
    if !facts.opted_in {
        return Some(Why::OptedOut);
    }
    if facts.asked {
        return Some(Why::Asked);
    }
    if facts.reading.policy.wish == Some(Wish::Wake) {
        return Some(Why::Wished(Wish::Wake));
    }
    // Without a Service that KubeNap can stand in for, or a hook, no request could wake it.
    if let Some(why) = service_problem(facts) {
        return Some(why);
    }
    if let Some(gap) = facts.seen.hook.gap().filter(|_| !facts.reading.policy.substitute) {
        return Some(hook_missing(gap, facts));
    }
    facts.seen.peers.iter().find(up).map(|peer| Why::PeerAwake(peer.id.to_string()))
}

fn wake_to(facts: &Facts<'_>, restore: u32) -> u32 {
    let least = facts.seen.scaler.as_ref().map_or(1, |scaler| scaler.least);
    facts.reading.policy.replica_count.unwrap_or(restore).max(least).max(1)
}

fn waking(facts: &Facts<'_>, epoch: u64, recorded: bool) -> Decision {
    if !facts.seen.ready() {
        if recorded && facts.here.listening && slices_missing(facts) {
            return act(Step::Substitute, Why::PodsComing);
        }
        let trouble = trouble(facts);
        let why = trouble.map_or(Why::PodsComing, Why::CannotStart);
        if recorded && facts.push && trouble.is_some_and(Trouble::needs_a_push) {
            return act(Step::Push, why);
        }
        return Decision { look_again: Some(WAITING), ..stay(why) };
    }
    let mut own = mine(facts).peekable();
    if own.peek().is_some() {
        let step = if own.any(Slice::is_open) { Step::MarkLeaving } else { Step::Withdraw };
        return act(step, Why::PodsReady);
    }
    if !dead(facts).is_empty() {
        return act(Step::SweepDead, Why::MemberDead);
    }
    if !recorded {
        return wait(Why::PodsReady);
    }
    let other = || facts.reverter.clone().unwrap_or_else(|| "somebody".to_owned());
    let why = if woken_by_other(facts) { Why::WokenByOther(other()) } else { Why::PodsReady };
    act(Step::FinishWake { epoch }, why)
}

fn owners_zero(facts: &Facts<'_>) -> Decision {
    if !facts.seen.pieces().is_empty() {
        return detach(facts, Why::Leftover);
    }
    // A slice that names another app too is that app's business.
    let alone = |slice: &Slice| slice.apps.keys().all(|name| *name == facts.app.name);
    if mine(facts).next().is_some() && mine(facts).all(alone) {
        return act(Step::Withdraw, Why::Leftover);
    }
    if !dead(facts).is_empty() {
        return act(Step::SweepDead, Why::MemberDead);
    }
    if !facts.opted_in {
        let step = if facts.seen.deployment.record.any { Step::Forget } else { Step::Stay };
        return Decision { step, why: Why::OptedOut, look_again: None };
    }
    match facts.reading.policy.wish {
        Some(wish @ Wish::Wake) => {
            if let Some(barred) = &facts.barred {
                return bar(barred);
            }
            let restore = facts.seen.deployment.record.restore.unwrap_or(1);
            let epoch = facts.seen.epoch(&facts.app.name);
            act(Step::ScaleUp { epoch, replicas: wake_to(facts, restore) }, Why::Wished(wish))
        }
        Some(_) => act(Step::ClearWish, Why::OwnersZero),
        None => stay(Why::OwnersZero),
    }
}

fn bar(barred: &Barred) -> Decision {
    Decision { look_again: Some(barred.left), ..stay(barred.why()) }
}

fn act(step: Step, why: Why) -> Decision {
    Decision { step, why, look_again: None }
}

fn stay(why: Why) -> Decision {
    Decision { step: Step::Stay, why, look_again: None }
}

fn wait(why: Why) -> Decision {
    Decision { step: Step::Stay, why, look_again: Some(SOON) }
}

fn left(why: &Why) -> Option<Duration> {
    match why {
        // The quiet that is known grows with each poll only: what is left of it may stay as short as it is.
        Why::WokeRecently(left) | Why::HadTraffic(left) => Some((*left).max(SOON)),
        _ => None,
    }
}
