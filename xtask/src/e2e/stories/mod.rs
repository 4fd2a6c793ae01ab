//! The stories: what `KubeNap` promises, tried on a real Kubernetes with real traffic.

mod broken;
mod contract;
mod owners;
mod install;
mod account;
mod s1;
mod s2;
mod s3;
mod s4;
mod s5;
mod s6;
mod s7;
mod s8;
mod s9;
mod rolled;
mod killed;
mod leader;
mod away;
mod lies;
mod clock;
mod undone;
mod managed;
mod proxies;
mod sources;
mod influx;

use anyhow::Result;
use futures::future::LocalBoxFuture;

use self::proxies::{clients, gateway, hooks, pace};
use super::world::Space;

/// What a story counted, for the table at the end.
pub(crate) type Counts = Vec<(&'static str, u64)>;

/// One story.
pub(crate) struct Story {
    /// Its name, for `--only`; its namespace begins with it too.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) sentence: &'static str,
    /// Whether `KubeNap` runs while it is told.
    pub(crate) with_kubenap: bool,
    /// Tells it.
    pub(crate) run: for<'a> fn(&'a Space) -> LocalBoxFuture<'a, Result<Counts>>,
}

macro_rules! story {
    ($module:ident, $with_kubenap:literal, $sentence:literal) => {
        Story {
            name: stringify!($module),
            sentence: $sentence,
            with_kubenap: $with_kubenap,
            run: |space| Box::pin($module::run(space)),
        }
    };
}

/// Those that are told with `--all` only, or by name.
pub(crate) const LONG: &[&str] = &[
    "rolled", "killed", "leader", "away", "lies", "clock", "undone", "managed", "gateway", "pace", "clients",
    "influx",
];

/// All stories, in the order in which they run.
pub(crate) const STORIES: &[Story] = &[
    story!(contract, false, "the sandbox's contract holds on the real API server"),
    story!(
        install,
        false,
        "KubeNap is installed, used, upgraded and uninstalled as the README says, and leaves nothing behind"
    ),
    story!(account, true, "KubeNap's account can do what KubeNap does, and not more"),
    story!(s1, true, "a quiet app naps by itself, and the next visitor's request wakes it as it was"),
    story!(s2, true, "callers inside the cluster wake an app with any kind of request, and see no redirect"),
    story!(s3, true, "an app with traffic never naps, and while it is awake nothing passes through KubeNap"),
    story!(
        s4,
        true,
        "no request is lost in fifty naps and wakes under traffic, and none is redirected twice"
    ),
    story!(s5, true, "two hundred requests at once wake an app once, and all are answered"),
    story!(s6, true, "what people do to an app in the middle of a nap is respected"),
    story!(s7, true, "while Prometheus is silent nobody naps, and when it is back naps go on"),
    story!(s8, true, "a wrong annotation or an unfit Service keeps the app awake, and says so"),
    story!(s9, true, "members leave, die and are missing, and no app is stranded"),
    story!(broken, true, "an app that cannot start is told so at once, and wakes when it is healed"),
    story!(
        owners,
        true,
        "GitOps that sets replicas back is noticed and named, and an autoscaler is respected"
    ),
    story!(
        proxies,
        true,
        "through every proxy a sleeping app is woken by any kind of request, and an awake one is left alone"
    ),
    story!(hooks, true, "the same by the proxies' own error paths, without substitution"),
    story!(pace, true, "an awake app answers through each proxy as quickly with its plugin as without"),
    story!(clients, true, "the clients that people use are answered by an app that slept behind any proxy"),
    story!(gateway, true, "the same through Envoy Gateway, with substitution and without"),
    story!(rolled, true, "KubeNap is rolled while apps sleep and 400 requests are held, and none is lost"),
    story!(
        killed,
        true,
        "a member dies without a goodbye, and an ordinary client's retry gets 99 of 100 requests answered"
    ),
    story!(leader, true, "the leader dies in each step of a nap, and the app is never without an answer"),
    story!(away, true, "the API server hangs and is gone for 20 s, and no request is lost"),
    story!(lies, true, "whatever lies Prometheus and the ingress tell, nobody naps"),
    story!(
        clock,
        true,
        "a member whose clock is five minutes off neither naps too early nor fights for the lead"
    ),
    story!(
        sources,
        true,
        "apps nap and wake by one source alone: Prometheus, the proxies' own metrics, and access logs of each proxy"
    ),
    story!(influx, true, "apps nap and wake by what stands in InfluxDB alone, asked in Flux and in InfluxQL"),
    story!(
        managed,
        true,
        "KubeNap tells Traefik itself while an app sleeps, and nothing of it is there while the app is awake"
    ),
    story!(
        undone,
        true,
        "label, restore and namespace: what ends KubeNap's work leaves nothing of it behind"
    ),
];
