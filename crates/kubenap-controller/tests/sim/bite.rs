//! A history that was tampered with breaks exactly the invariant that it should: the judges see.
#![expect(clippy::unwrap_used, reason = "a history that cannot be tampered with has failed")]

use std::sync::Arc;

use jiff::SignedDuration;
use kubenap_sandbox::Change;
use serde_json::{Value, json};

use crate::flows::{FLOWS, Flow};
use crate::history::{History, is_ours, replicas};
use crate::invariants::LAWS;
use crate::report::{Counts, Job};
use crate::sim::APP;

/// What is done to a history, and which invariant must then be broken.
type Tampering = (&'static str, &'static str, fn(&mut History));

const TAMPERINGS: &[Tampering] = &[
    ("I1", "the slices are never written", |history| {
        history.changes.retain(|change| !change.after.as_deref().is_some_and(is_ours));
        // The member has lived for long.
        history.lives.iter_mut().for_each(|(at, _, _)| *at -= SignedDuration::from_mins(1));
    }),
    ("I2", "the remembered count is one less", |history| {
        downs(history, |after| after["metadata"]["annotations"]["kubenap/restoreReplicas"] = "1".into());
    }),
    ("I3", "somebody asked just before the nap", |history| {
        let at = history.scale_downs()[0].0.time - SignedDuration::from_secs(9);
        history.visits.push(at);
    }),
    ("I3", "the source never answered", |history| history.told.clear()),
    ("I4", "the nap is cancelled on the way", |history| {
        let (change, sent) = history
            .scale_downs()
            .into_iter()
            .map(|(change, sent)| (change.clone(), sent.clone()))
            .next()
            .unwrap();
        let at = history.changes.iter().position(|known| known.version == change.version).unwrap();
        let mut awake = Value::clone(change.before.as_ref().unwrap());
        awake["metadata"]["annotations"]["kubenap/phase"] = "awake".into();
        history
            .changes
            .insert(at, Change { version: change.version - 1, after: Some(Arc::new(awake)), ..change });
        history.sent.push(crate::wire::Sent { version: None, ..sent });
    }),
    ("I6", "the scale-up comes twice", |history| {
        repeat(history, |change| {
            replicas(change.before.as_deref()) == Some(0) && replicas(change.after.as_deref()) > Some(0)
        })
    }),
    ("I7", "the image is changed too", |history| {
        downs(history, |after| after["spec"]["template"] = json!({}))
    }),
    ("I8", "the scale-down comes twice", |history| {
        repeat(history, |change| {
            replicas(change.before.as_deref()) > Some(0) && replicas(change.after.as_deref()) == Some(0)
        })
    }),
    ("I10", "one member writes the other's slice", |history| {
        history
            .sent
            .iter_mut()
            .filter(|sent| sent.plural == "endpointslices")
            .for_each(|sent| sent.member = "m9".into());
    }),
    ("I11", "a request never ends", |history| history.requests[0].ended = None),
    ("I14", "the zero was the owner's", |history| {
        let first = history.changes.iter().find(|change| change.plural == "deployments").unwrap().clone();
        let zero = |count: u64| {
            let mut app = Value::clone(first.after.as_ref().unwrap());
            app["spec"]["replicas"] = count.into();
            app["metadata"]["annotations"] = json!({});
            Some(Arc::new(app))
        };
        let (time, version) =
            (history.changes.last().unwrap().time, history.changes.last().unwrap().version + 1_000);
        let change = |version, before, after| Change {
            version,
            time,
            before: zero(before),
            after: zero(after),
            ..first.clone()
        };
        history.changes.extend([change(version + 1, 2, 0), change(version + 2, 0, 2)]);
        let sent = crate::wire::Sent { version: Some(version + 2), ..history.sent[0].clone() };
        history.sent.push(sent);
    }),
    ("I16", "it woke just before", |history| {
        let at = history
            .changes
            .iter()
            .position(|change| crate::history::note(change.after.as_deref(), "phase") == Some("drowsy"))
            .unwrap();
        let change = &mut history.changes[at];
        let mut before = Value::clone(change.before.as_ref().unwrap());
        before["metadata"]["annotations"]["kubenap/phase"] = "awake".into();
        before["metadata"]["annotations"]["kubenap/since"] =
            (change.time - SignedDuration::from_secs(2)).to_string().into();
        change.before = Some(Arc::new(before));
    }),
    ("I17", "no pod was ready", |history| {
        let version = history.scale_downs()[0].0.version;
        let change = history.changes.iter_mut().find(|change| change.version == version).unwrap();
        let mut before = Value::clone(change.before.as_ref().unwrap());
        before["status"]["readyReplicas"] = 0.into();
        change.before = Some(Arc::new(before));
    }),
    ("I18", "it was to be still", |history| {
        let all = (history.changes[0].time, history.changes.last().unwrap().time);
        history.still.push(all);
    }),
    ("I20", "its second write is refused", |history| {
        let own: Vec<_> = history.sent.iter().filter(|sent| sent.plural == "deployments").cloned().collect();
        let refused = crate::wire::Sent { time: own[0].time, status: 409, version: None, ..own[0].clone() };
        let at = history.sent.iter().position(|sent| *sent == own[0]).unwrap();
        history.sent.insert(at + 1, refused);
        let version = own[0].version.unwrap();
        // Nobody else wrote in between.
        history.changes.retain(|change| change.plural != "deployments" || change.version <= version);
    }),
    ("I21", "no Event was sent", |history| history.sent.retain(|sent| sent.plural != "events")),
];

fn downs(history: &mut History, change: impl Fn(&mut Value)) {
    let versions: Vec<_> = history.scale_downs().iter().map(|(change, _)| change.version).collect();
    for known in history.changes.iter_mut().filter(|change| versions.contains(&change.version)) {
        let mut after = Value::clone(known.after.as_ref().unwrap());
        change(&mut after);
        known.after = Some(Arc::new(after));
    }
}

fn repeat(history: &mut History, which: impl Fn(&Change) -> bool) {
    let known = history.by();
    let found = history
        .changes
        .iter()
        .position(|change| {
            change.plural == "deployments" && known.contains_key(&change.version) && which(change)
        })
        .unwrap();
    let change = history.changes[found].clone();
    history.changes.insert(found + 1, change);
}

/// Every tampering that no judge, or not the right one, noticed.
pub(crate) fn all() -> Vec<(String, String)> {
    let flow: &'static Flow = FLOWS.iter().find(|flow| flow.name == "wake by an ask").unwrap();
    let job = Job::new("a whole history".to_owned(), move || async move {
        let sim = flow.stage().await;
        *sim.undisturbed.borrow_mut() = true;
        (flow.begin)(&sim).await;
        sim.world.awake(APP, 2).await;
        (sim.history(), Counts::new())
    });
    let history = match job.run() {
        Ok((history, _)) => history,
        Err(why) => return vec![("a whole history".to_owned(), why)],
    };
    let broken =
        |history: &History, id: &str| LAWS.iter().any(|law| law.id == id && !(law.judge)(history).is_empty());
    let mut failures = Vec::new();
    for (id, what, tamper) in TAMPERINGS {
        let mut tampered = history.clone();
        tamper(&mut tampered);
        if broken(&history, id) || !broken(&tampered, id) {
            failures.push((format!("{id}: {what}"), "not noticed".to_owned()));
        }
    }
    for law in LAWS.iter().filter(|law| TAMPERINGS.iter().all(|(id, ..)| *id != law.id)) {
        failures.push((law.id.to_owned(), "nothing shows that it can fail".to_owned()));
    }
    failures
}

/// How many.
pub(crate) fn count() -> usize {
    TAMPERINGS.len()
}
