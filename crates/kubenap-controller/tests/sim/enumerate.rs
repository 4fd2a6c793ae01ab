//! Every flow with every write struck in every way, and every event of a watch dropped, late, repeated or stale.
#![expect(clippy::unwrap_used, reason = "a run that cannot be set up has failed")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::SignedDuration;
use kubenap_sandbox::{Effect, Fault};

use crate::flows::{FLOWS, Flow, To};
use crate::report::{Counts, Job};
use crate::sim::{APP, Plan, Sim};
use crate::wire::Blow;

/// What befalls one event.
const EVENT_EFFECTS: [(Effect, &str); 4] = [
    (Effect::DropEvent, "events dropped"),
    (Effect::DelayEvent(Duration::from_secs(7)), "events delayed"),
    (Effect::RepeatEvent, "events repeated"),
    (Effect::StaleEvent, "events stale"),
];
/// The kinds whose events an app's turns rest on.
const WATCHED: [&str; 4] = ["deployments", "endpointslices", "pods", "services"];
/// How long after the last fault the end may take.
const SETTLES: u64 = 120;
/// And when an event was lost for good, of which only the next list tells, ten minutes later at most.
const LISTED: u64 = 780;

/// What one undisturbed run of a flow consists of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Writes of each member; 0 is a person.
    pub(crate) writes: BTreeMap<u8, u64>,
    /// Events that watches had to send, by kind.
    pub(crate) events: BTreeMap<&'static str, u64>,
}

/// Runs a flow and what comes after it; `strike` is called when it begins.
async fn run(
    flow: &'static Flow,
    plan: Option<Plan>,
    strike: impl Fn(&Sim),
    calm: bool,
    settles: u64,
) -> (Sim, Shape) {
    let sim = flow.stage().await;
    *sim.undisturbed.borrow_mut() = calm;
    let before = sim.world.sandbox.watch_events();
    sim.plan(plan);
    strike(&sim);
    (flow.begin)(&sim).await;
    let end = sim.world.elapsed() + Duration::from_secs(settles);
    while !flow.is_over(&sim) || !sim.struck().is_empty() {
        assert!(sim.world.elapsed() < end, "{}: not over\n{}", flow.name, sim.world.show());
        for nth in sim.struck() {
            sim.crash(nth);
            tokio::time::sleep(Duration::from_secs(3)).await;
            // Now and then the same pod comes back, now and then another one.
            let next = if plan.is_some_and(|plan| plan.nth % 2 == 0) { nth } else { 3 };
            sim.join(next, SignedDuration::ZERO).await;
            if flow.is_asked() {
                // What the dead member held is lost; its client tries again.
                drop(sim.ask());
            }
        }
        if flow.to != To::Asleep {
            // Used as it is, it does not fall asleep again at once.
            sim.visit();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let after = sim.world.sandbox.watch_events();
    let count = |kind: &'static str| (kind, after.get(kind).unwrap_or(&0) - before.get(kind).unwrap_or(&0));
    let shape = Shape { writes: sim.writes(), events: WATCHED.map(count).into() };
    sim.plan(None);
    flow.afterwards(&sim, settles).await;
    (sim, shape)
}

/// The flow as it is when nothing is in its way; the stricter invariants hold.
pub(crate) fn calm(flow: &'static Flow) -> Job<Shape> {
    Job::new(format!("{}, undisturbed", flow.name), move || async move {
        let (sim, shape) = run(flow, None, |_| {}, flow.to != To::Untouched, SETTLES).await;
        let spec = &sim.world.deployment(APP)["spec"];
        assert_eq!(spec["replicas"], 2, "a nap and a wake leave the spec as it was");
        let checks = sim.judge();
        (shape, Counts::from([("flows", 1), ("checks", checks), seconds(&sim)]))
    })
}

/// Every write of a flow struck in every way.
pub(crate) fn struck(flow: &'static Flow, shape: &Shape) -> Vec<Job<()>> {
    let mut jobs = Vec::new();
    for (member, writes) in shape.writes.clone() {
        for nth in 0..writes {
            for (what, blow) in Blow::CRASHES
                .map(|blow| ("crash points", blow))
                .into_iter()
                .chain(Blow::FAILURES.map(|blow| ("write faults", blow)))
            {
                let plan = Plan { member, nth, blow };
                jobs.push(Job::new(format!("{}, {plan:?}", flow.name), move || async move {
                    let (sim, _) = run(flow, Some(plan), |_| {}, false, SETTLES).await;
                    let checks = sim.judge();
                    ((), Counts::from([(what, 1), ("checks", checks), seconds(&sim)]))
                }));
            }
        }
    }
    jobs
}

/// Every event of a flow dropped, late, repeated and stale, and every watch begun anew from a list that is old.
pub(crate) fn unheard(flow: &'static Flow, shape: &Shape) -> Vec<Job<()>> {
    let mut faults = Vec::new();
    for (kind, events) in shape.events.clone() {
        for nth in 0..events {
            for (effect, what) in EVENT_EFFECTS {
                faults.push((what, vec![Fault::new(effect).resource(kind).after(nth).times(1)]));
            }
        }
        let list = Fault::new(Effect::StaleList(9)).verb("list").resource(kind).times(1);
        faults.push((
            "lists stale",
            vec![Fault::new(Effect::Gone).verb("watch").resource(kind).times(1), list],
        ));
    }
    let job = |(what, faults): (&'static str, Vec<Fault>)| {
        Job::new(format!("{}, {what}, {faults:?}", flow.name), move || {
            let faults = faults.clone();
            let settles = if what == "events dropped" || what == "events stale" { LISTED } else { SETTLES };
            async move {
                let strike = |sim: &Sim| {
                    faults.iter().for_each(|fault| sim.world.sandbox.faults().inject(fault.clone()))
                };
                let (sim, _) = run(flow, None, strike, false, settles).await;
                let checks = sim.judge();
                ((), Counts::from([(what, 1), ("checks", checks), seconds(&sim)]))
            }
        })
    };
    faults.into_iter().map(job).collect()
}

fn seconds(sim: &Sim) -> (&'static str, u64) {
    ("simulated seconds", sim.world.elapsed().as_secs())
}

/// The names of all flows, for the report.
pub(crate) fn names() -> Vec<&'static str> {
    FLOWS.iter().map(|flow| flow.name).collect()
}
