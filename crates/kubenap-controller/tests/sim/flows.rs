//! What an app goes through: each flow begins somewhere, is set off by somebody, and has an end.
#![expect(clippy::unwrap_used, reason = "a flow that cannot be set off has failed")]

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use jiff::SignedDuration;
use kubenap_controller::nap::by_hand::Progress;
use serde_json::json;

use crate::sim::{APP, COUNT, Sim};
use crate::world::SPACE;

/// Where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    Awake,
    Asleep,
    /// Armed, and somebody else's turn.
    Drowsy,
}

/// Where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Awake,
    Asleep,
    /// Awake, and no trace of KubeNap.
    Untouched,
}

pub(crate) struct Flow {
    pub(crate) name: &'static str,
    pub(crate) members: u8,
    pub(crate) from: From,
    pub(crate) to: To,
    pub(crate) begin: for<'a> fn(&'a Sim) -> LocalBoxFuture<'a, ()>,
}

/// All flows.
pub(crate) const FLOWS: &[Flow] = &[
    Flow { name: "nap", members: 1, from: From::Awake, to: To::Asleep, begin: |_| done() },
    Flow { name: "nap by two", members: 2, from: From::Awake, to: To::Asleep, begin: |_| done() },
    Flow { name: "wished nap", members: 1, from: From::Awake, to: To::Asleep, begin: |sim| wish(sim, "nap") },
    Flow {
        name: "forced nap",
        members: 2,
        from: From::Awake,
        to: To::Asleep,
        begin: |sim| wish(sim, "forceNap"),
    },
    Flow { name: "cancel", members: 1, from: From::Drowsy, to: To::Awake, begin: |sim| wish(sim, "wake") },
    Flow { name: "wake by an ask", members: 1, from: From::Asleep, to: To::Awake, begin: ask },
    Flow { name: "wake by an ask, two members", members: 2, from: From::Asleep, to: To::Awake, begin: ask },
    Flow {
        name: "wished wake",
        members: 2,
        from: From::Asleep,
        to: To::Awake,
        begin: |sim| wish(sim, "wake"),
    },
    Flow { name: "opt-out", members: 2, from: From::Asleep, to: To::Untouched, begin: opt_out },
    Flow { name: "restore by hand", members: 1, from: From::Asleep, to: To::Awake, begin: restore },
    Flow { name: "a member leaves", members: 2, from: From::Asleep, to: To::Asleep, begin: leave },
    Flow { name: "a member joins", members: 1, from: From::Asleep, to: To::Asleep, begin: join },
    Flow { name: "rollout undo", members: 2, from: From::Asleep, to: To::Asleep, begin: undo },
    Flow { name: "a zero is adopted", members: 1, from: From::Awake, to: To::Asleep, begin: adopt },
    Flow { name: "ports change", members: 2, from: From::Asleep, to: To::Asleep, begin: ports },
    Flow { name: "the Service goes", members: 1, from: From::Asleep, to: To::Awake, begin: service_goes },
];

fn done<'a>() -> LocalBoxFuture<'a, ()> {
    async {}.boxed_local()
}

fn wish<'a>(sim: &'a Sim, wish: &'static str) -> LocalBoxFuture<'a, ()> {
    sim.world.annotate(APP, "wish", wish);
    done()
}

fn ask(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    drop(sim.ask());
    done()
}

fn opt_out(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    sim.world.edit("deployments", APP, |app| {
        drop(app["metadata"]["labels"].as_object_mut().unwrap().remove("kubenap/enabled"))
    });
    done()
}

fn restore(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    async {
        // By hand means that no controller is there to do it.
        sim.leave(1).await;
        assert_eq!(sim.restore().await, Progress::Done, "{}", sim.world.show());
        sim.join(2, SignedDuration::ZERO).await;
    }
    .boxed_local()
}

fn leave(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    sim.leave(1).boxed_local()
}

fn join(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    sim.join(2, SignedDuration::ZERO).boxed_local()
}

fn undo(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    sim.world.edit("deployments", APP, |app| {
        app["metadata"]["annotations"] = json!({"kubenap/idleAfter": "10s"});
    });
    done()
}

fn adopt(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    sim.world.edit("deployments", APP, |app| {
        app["metadata"]["annotations"]["kubenap/replicaCount"] = COUNT.to_string().into();
        app["spec"]["replicas"] = 0.into();
    });
    done()
}

fn ports(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    sim.world.edit("services", APP, |service| {
        service["spec"]["ports"] = json!([{"name": "http", "port": 80, "targetPort": "http"},
            {"name": "admin", "port": 90, "targetPort": "admin"}]);
    });
    done()
}

fn service_goes(sim: &Sim) -> LocalBoxFuture<'_, ()> {
    sim.world.sandbox.delete("services", SPACE, APP);
    done()
}

impl Flow {
    /// Brings a run to where the flow begins.
    pub(crate) async fn stage(&self) -> Sim {
        let sim = Sim::new(&[]).await;
        for nth in 1..=self.members {
            sim.join(nth, SignedDuration::ZERO).await;
        }
        match self.from {
            From::Awake => {}
            From::Drowsy => sim.until("drowsy", 60, || sim.world.phase(APP) == "drowsy").await,
            From::Asleep => {
                sim.asleep(COUNT.into(), 120).await;
                sim.until("all stand in", 30, || sim.all_stand_in()).await;
            }
        }
        sim
    }

    /// A client's request sets it off.
    pub(crate) fn is_asked(&self) -> bool {
        self.name.starts_with("wake by an ask")
    }

    /// Whether it has come to its end.
    pub(crate) fn is_over(&self, sim: &Sim) -> bool {
        let world = &sim.world;
        match self.to {
            To::Awake => world.phase(APP) == "awake" && sim.is_awake(COUNT.into()),
            To::Untouched => world.note(APP, "phase").is_none() && sim.is_awake(COUNT.into()),
            To::Asleep => {
                world.phase(APP) == "asleep"
                    && world.replicas(APP) == 0
                    && world.note(APP, "restoreReplicas").as_deref() == Some("2")
                    && world.pods(APP) == 0
                    && sim.all_stand_in()
            }
        }
    }

    /// From wherever it ended: asleep when quiet, with its count, and awake when asked, with nothing left over.
    pub(crate) async fn afterwards(&self, sim: &Sim, settles: u64) {
        let world = &sim.world;
        match self.name {
            "the Service goes" => world.put(crate::world::service(APP, APP)),
            "opt-out" => world
                .edit("deployments", APP, |app| app["metadata"]["labels"]["kubenap/enabled"] = "true".into()),
            _ => {}
        }
        sim.asleep(COUNT.into(), settles).await;
        sim.until("all who live stand in", settles, || sim.all_stand_in()).await;
        assert_eq!(sim.ask().await.unwrap(), 200, "{}", world.show());
        let over =
            || world.phase(APP) == "awake" && sim.is_awake(COUNT.into()) && world.slices(APP).is_empty();
        sim.until("awake", settles, over).await;
    }
}
