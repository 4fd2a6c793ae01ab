//! Every reason that KubeNap has: one sentence and one label, the same for every audience.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use crate::activity::Blind;
use crate::decide::QUERY_LAG;
use crate::duration;
use crate::policy::Wish;
use crate::seen::{HookGap, MOST_REVERTS as MOST, ServiceRefusal, Trouble};

/// Why the next step is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing to do: it sleeps.
    Sleeps,
    /// It was quiet long enough.
    Quiet(Duration),
    /// A person asked for it.
    Wished(Wish),
    /// A request needs the app.
    Asked,
    /// A request needed the app while it was drowsy.
    AskedWhileDrowsy,
    /// The label was taken away.
    OptedOut,
    /// An annotation is wrong.
    BadAnnotation(String),
    /// No Service selects its pods.
    NoService,
    /// A Service that is named does not exist.
    ServiceMissing(String),
    /// An Ingress that is named does not exist.
    IngressMissing(String),
    /// A Service is of a kind that KubeNap cannot stand in for.
    ServiceRefused(String, ServiceRefusal),
    /// Not substituted, and nothing shows that the proxy in front turns to KubeNap.
    HookMissing(HookGap),
    /// Not substituted, and KubeNap cannot put the hook in place itself.
    HookUnmanaged(String),
    /// Not substituted, and nobody has looked yet whether the proxy in front turns to KubeNap.
    HookUnknown,
    /// Not substituted, and no member answers where proxies are told to turn to.
    WakeAddressSilent,
    /// What it was armed for has changed since.
    ArmedOtherwise,
    /// A Deployment that is not opted in shares a Service.
    SharedWith(String),
    /// Being deleted.
    Deleting,
    /// Paused.
    Paused,
    /// A rollout is in progress.
    RollingOut,
    /// Not all its replicas are ready.
    NotReady,
    /// Somebody else scales it to zero.
    ScaledByOther(String),
    /// This field manager keeps scaling it up while it sleeps.
    Reverted(String),
    /// It woke only just now; this long to go.
    WokeRecently(Duration),
    /// The sources cannot tell.
    Blind(BTreeSet<Blind>),
    /// What its own query shows is so old that a nap could not be finished.
    Behind(Duration),
    /// It was used; this much longer quiet and it naps.
    HadTraffic(Duration),
    /// An app behind the same Service is kept awake.
    PeerAwake(String),
    /// Enough naps for now.
    Paced,
    /// More apps are asked for than may wake at once.
    WakePaced,
    /// Not the leader.
    NotLeader,
    /// No wake port is free.
    NoPorts,
    /// The members are putting themselves into the Services.
    Substituting,
    /// The proxy in front is being told of KubeNap.
    Attaching,
    /// What the proxy in front was told is taken back.
    Detaching,
    /// The network path to KubeNap is being proved.
    Proving,
    /// The drowsy window is not over.
    DrowsyWindow,
    /// The last look at the sources is not in yet.
    LastLook,
    /// Drowsy for too long: whoever armed it is gone.
    NapAbandoned,
    /// The wake ports do not listen here.
    NotListening,
    /// Its annotations were replaced by older ones; what KubeNap's slices remember is written back.
    RecordLost,
    /// A Service got other ports while it sleeps.
    PortsChanged,
    /// Somebody else scaled it to zero, and it says to how many replicas to wake.
    ZeroAdopted,
    /// At zero by its owner's will.
    OwnersZero,
    /// Its pods are not ready yet.
    PodsComing,
    /// A pod says why it cannot start.
    CannotStart(Trouble),
    /// The API server refuses to scale it up, and says why.
    WakeDenied(String),
    /// Its pods answer again.
    PodsReady,
    /// Somebody else, by the name of the field manager, ended its sleep by scaling it up.
    WokenByOther(String),
    /// A dead member's addresses are taken out.
    MemberDead,
    /// Addresses of KubeNap's that no longer belong there are taken out.
    Leftover,
}

impl Why {
    /// The reason as a metric label and annotation value: few, fixed, lower case.
    pub fn label(&self) -> &'static str {
        self.facts().0
    }

    /// Every label with its sentence's first words, for the reference page.
    pub fn reference() -> Vec<(&'static str, String)> {
        Self::examples().iter().map(|why| (why.label(), why.to_string())).collect()
    }

    fn facts(&self) -> (&'static str, String) {
        let show = |span: &Duration| duration::show(Duration::from_secs(span.as_secs()));
        match self {
            Self::Sleeps => ("asleep", "it sleeps, and KubeNap answers for it".into()),
            Self::Quiet(span) => ("quiet", format!("it was quiet for {}", show(span))),
            Self::Wished(wish) => ("wished", format!("a person asked for it ({wish})")),
            Self::Asked => ("asked", "a request needs it".into()),
            Self::AskedWhileDrowsy => ("asked-while-drowsy", "a request came while it was drowsy".into()),
            Self::OptedOut => ("opted-out", "the label kubenap/enabled was taken away".into()),
            Self::BadAnnotation(what) => ("bad-annotation", what.clone()),
            Self::NoService => {
                ("no-service", "no Service selects its pods, so no request could wake it".into())
            }
            Self::ServiceMissing(name) => ("service-missing", missing("service", name, "Services")),
            Self::IngressMissing(name) => ("ingress-missing", missing("ingress", name, "Ingresses")),
            Self::ServiceRefused(name, why) => (
                "service-refused",
                format!("its Service {name} {}, which KubeNap cannot stand in for", why.sentence()),
            ),
            Self::HookMissing(gap) => (
                "hook-missing",
                format!("it is not substituted, and no hook of a proxy is known to lead to KubeNap: {}", gap.sentence()),
            ),
            Self::HookUnmanaged(said) => (
                "hook-unmanaged",
                format!("it is not substituted, and KubeNap cannot put its proxy's hook in place: {said}"),
            ),
            Self::HookUnknown => {
                ("hook-unknown", "it is not substituted, and its proxy's hook could not be looked for yet".into())
            }
            Self::WakeAddressSilent => (
                "wake-address-silent",
                "it is not substituted, and no member of KubeNap answers at --wake-service, where its proxy turns to".into(),
            ),
            Self::ArmedOtherwise => (
                "armed-otherwise",
                "its replicas, its Services or its way to KubeNap changed while it was drowsy".into(),
            ),
            Self::SharedWith(name) => {
                ("shared-service", format!("it shares a Service with {name}, which is not opted in"))
            }
            Self::Deleting => ("deleting", "it is being deleted".into()),
            Self::Paused => ("paused", "its rollout is paused".into()),
            Self::RollingOut => ("rolling-out", "a rollout is in progress".into()),
            Self::NotReady => ("not-ready", "not all of its replicas are ready".into()),
            Self::ScaledByOther(name) => ("scaled-by-other", format!("{name} scales it to zero by itself")),
            Self::Reverted(manager) => (
                "reverted",
                format!(
                    "{manager} scaled it up while it slept, {MOST} times within an hour, so it does not nap; let {manager} \
                     leave spec.replicas alone (docs/guide/gitops.md), or take the label kubenap/enabled away"
                ),
            ),
            Self::WokeRecently(left) => {
                ("woke-recently", format!("it has not been awake for long; {} to go", show(left)))
            }
            Self::Blind(why) => {
                let parts: Vec<_> = why.iter().map(|blind| blind.sentence()).collect();
                ("blind", format!("its traffic is not known: a source {}", parts.join(", a source ")))
            }
            Self::Behind(lag) => (
                "behind",
                format!(
                    "what its query shows may be {} old, and it naps only where that is {} at most; is a target of Prometheus down, or scraped seldom?",
                    show(lag),
                    show(&QUERY_LAG)
                ),
            ),
            Self::HadTraffic(left) => ("had-traffic", format!("it was used; {} of quiet to go", show(left))),
            Self::PeerAwake(name) => {
                ("peer-awake", format!("{name}, behind the same Service, is kept awake"))
            }
            Self::Paced => ("paced", "enough apps are falling asleep for now".into()),
            Self::WakePaced => {
                ("wake-paced", "a request needs it, but more apps are asked for than may wake at once".into())
            }
            Self::NotLeader => ("not-leader", "only the leader puts apps to sleep".into()),
            Self::NoPorts => ("no-ports", "no wake port is free; widen --wake-ports".into()),
            Self::Substituting => ("substituting", "members are putting themselves into its Services".into()),
            Self::Attaching => ("attaching", "its proxy is being told of KubeNap".into()),
            Self::Detaching => ("detaching", "what its proxy was told of KubeNap is taken back".into()),
            Self::Proving => ("proving", "the network path to KubeNap is being proved".into()),
            Self::DrowsyWindow => ("drowsy-window", "KubeNap and its pods both answer for a moment".into()),
            Self::LastLook => ("last-look", "the sources are asked one last time".into()),
            Self::NapAbandoned => ("nap-abandoned", "nobody finished its nap".into()),
            Self::NotListening => ("not-listening", "its wake ports do not listen here".into()),
            Self::RecordLost => ("record-lost", "its annotations were replaced by older ones".into()),
            Self::PortsChanged => ("ports-changed", "its Services have other ports than before".into()),
            Self::ZeroAdopted => {
                ("zero-adopted", "somebody scaled it to zero, and it says how to wake".into())
            }
            Self::OwnersZero => ("owners-zero", "its owner scaled it to zero".into()),
            Self::PodsComing => ("pods-coming", "its pods are not ready yet".into()),
            Self::CannotStart(trouble) => {
                ("cannot-start", format!("it cannot start: {}", trouble.sentence()))
            }
            Self::WakeDenied(said) => {
                ("wake-denied", format!("it cannot start: {}: {said}", Trouble::Denied.sentence()))
            }
            Self::PodsReady => ("pods-ready", "its pods answer".into()),
            Self::WokenByOther(manager) => {
                ("woken-by-other", format!("{manager} scaled it up while it slept"))
            }
            Self::MemberDead => ("member-dead", "a dead member's addresses are taken out".into()),
            Self::Leftover => ("leftover", "KubeNap's addresses no longer belong there".into()),
        }
    }

    fn examples() -> Vec<Self> {
        let minute = Duration::from_secs(60);
        vec![
            Self::Sleeps,
            Self::Quiet(minute),
            Self::Wished(Wish::Nap),
            Self::Asked,
            Self::AskedWhileDrowsy,
            Self::OptedOut,
            Self::BadAnnotation("kubenap/idleAfter: \"1d\" is not a duration; accepted: …".into()),
            Self::NoService,
            Self::ServiceMissing("web".into()),
            Self::IngressMissing("web".into()),
            Self::ServiceRefused("web".into(), ServiceRefusal::Headless),
            Self::HookMissing(HookGap::NoProxy),
            Self::HookMissing(HookGap::NotShown),
            Self::HookMissing(HookGap::NoRoute),
            Self::HookUnmanaged("conflict with \"helm\": .metadata.annotations.a of Ingress shop/web".into()),
            Self::HookUnknown,
            Self::WakeAddressSilent,
            Self::ArmedOtherwise,
            Self::SharedWith("shop/other".into()),
            Self::Deleting,
            Self::Paused,
            Self::RollingOut,
            Self::NotReady,
            Self::ScaledByOther("HorizontalPodAutoscaler web".into()),
            Self::Reverted("argocd-controller".into()),
            Self::WokeRecently(minute),
            Self::Blind(BTreeSet::from([Blind::SourceDown])),
            Self::Behind(minute * 6),
            Self::HadTraffic(minute),
            Self::PeerAwake("shop/other".into()),
            Self::Paced,
            Self::WakePaced,
            Self::NotLeader,
            Self::NoPorts,
            Self::Substituting,
            Self::Attaching,
            Self::Detaching,
            Self::Proving,
            Self::DrowsyWindow,
            Self::LastLook,
            Self::NapAbandoned,
            Self::NotListening,
            Self::RecordLost,
            Self::PortsChanged,
            Self::ZeroAdopted,
            Self::OwnersZero,
            Self::PodsComing,
            Self::CannotStart(Trouble::Image),
            Self::WakeDenied("deployments.apps \"web\" is forbidden: not on Fridays".into()),
            Self::PodsReady,
            Self::WokenByOther("argocd-controller".into()),
            Self::MemberDead,
            Self::Leftover,
        ]
    }
}

fn missing(key: &str, name: &str, kind: &str) -> String {
    format!("kubenap/{key}: \"{name}\" does not exist; accepted: names of {kind} of its namespace")
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.facts().1)
    }
}
