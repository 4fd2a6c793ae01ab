//! The invariants, each a function of what happened; nothing here knows how KubeNap works inside.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use serde_json::Value;

use crate::history::{History, ends, epoch, is_ours, member, note, replicas, service_of};
use crate::wire::{ENDLESS, Sent};

/// An invariant's number and name, and its judge: everything that goes against it.
pub(crate) struct Law {
    pub(crate) id: &'static str,
    pub(crate) says: &'static str,
    pub(crate) judge: fn(&History) -> Vec<String>,
}

/// All that are judged by the history of a run.
pub(crate) const LAWS: &[Law] = &[
    Law { id: "I1", says: "somebody answers after every single write", judge: i1_always_reachable },
    Law {
        id: "I2",
        says: "the count is remembered, and is what the owner asked for last",
        judge: i2_restore,
    },
    Law { id: "I3", says: "no nap without fresh and healthy evidence", judge: i3_evidence },
    Law { id: "I4", says: "a cancelled nap scales nothing down", judge: i4_cancelled },
    Law { id: "I6", says: "one scale-up for one nap", judge: i6_one_wake },
    Law {
        id: "I7",
        says: "a wake never lowers, a nap never raises, and only replicas and kubenap/* change",
        judge: i7_one_way,
    },
    Law { id: "I8", says: "epochs only grow, and each has one scale-down at most", judge: i8_epochs },
    Law {
        id: "I10",
        says: "members write their own slices only, with the Service's ports",
        judge: i10_slices,
    },
    Law { id: "I11", says: "every request ends, once, in time", judge: i11_requests },
    Law { id: "I14", says: "a zero of the owner's stays", judge: i14_owners_zero },
    Law { id: "I16", says: "awake for a while before the next nap", judge: i16_min_awake },
    Law { id: "I17", says: "an app that is not ready does not nap", judge: i17_ready },
    Law { id: "I18", says: "nothing happens, nothing is written", judge: i18_still },
    Law { id: "I20", says: "no member is refused for not having read its own write", judge: i20_own_writes },
    Law { id: "I21", says: "as many Asleep Events as scale-downs", judge: i21_events },
];

/// A member that has just begun must first find out what sleeps; so must those that live on after a death.
const FINDS_OUT: SignedDuration = SignedDuration::from_secs(20);
/// What the evidence of a scale-down may be old at most.
const EVIDENCE: SignedDuration = SignedDuration::from_secs(45);
/// No request takes longer: the wake's limit, a second to answer, and what the client itself waits for a connection.
const LONGEST: SignedDuration = SignedDuration::from_secs(130);

fn i1_always_reachable(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    history.replay(|change, moment, _| {
        for service in moment.all("services") {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            let Some(app) = moment.all("deployments").find(|app| app["metadata"]["name"] == name) else {
                continue;
            };
            let opted_in = app["metadata"]["labels"]["kubenap/enabled"] == "true";
            let phase = note(Some(app), "phase");
            if !opted_in && phase.is_none()
                || moment.others_zero.contains(name)
                || phase.is_none() && replicas(Some(app)) == Some(0)
            {
                continue;
            }
            // A Service that was made this very second gets its endpoints within the next.
            let made = service["metadata"]["creationTimestamp"]
                .as_str()
                .and_then(|text| text.parse::<jiff::Timestamp>().ok());
            if made.is_some_and(|made| change.time.duration_since(made) < SignedDuration::from_secs(2)) {
                continue;
            }
            // With nobody alive, or only those who have begun just now, there is nobody whose promise it could be.
            let settled = moment.living.values().any(|since| change.time.duration_since(*since) > FINDS_OUT);
            let slices = || moment.all("endpointslices").filter(|slice| service_of(slice) == name);
            let ours = slices().filter(|slice| is_ours(slice)).any(|slice| {
                moment.living.contains_key(member(slice))
                    && ends(slice).any(|end| end["conditions"]["serving"] != false)
            });
            let pods = slices().filter(|slice| !is_ours(slice)).flat_map(ends).any(|end| {
                let pod = end["targetRef"]["name"].as_str().unwrap_or_default().to_owned();
                end["conditions"]["serving"] != false && moment.objects.contains_key(&("pods", pod))
            });
            if settled && !ours && !pods {
                broken.push(format!("{} v{}: nobody answers for {name}", change.time, change.version));
            }
        }
    });
    broken
}

fn i2_restore(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    history.replay(|change, moment, sent| {
        if change.plural != "deployments" || sent.is_none() {
            return;
        }
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let restore = note(after, "restoreReplicas").and_then(|text| text.parse().ok());
        let wanted = moment.wanted.get(&change.name).copied();
        if replicas(before) > Some(0) && replicas(after) == Some(0) && restore != replicas(before) {
            broken.push(format!(
                "{}: scaled from {:?} to 0, remembered {restore:?}",
                change.time,
                replicas(before)
            ));
        }
        if replicas(before) == Some(0)
            && replicas(after) > Some(0)
            && replicas(after) < wanted
            && note(after, "replicaCount").is_none()
        {
            broken.push(format!("{}: woken to {:?}, wanted were {wanted:?}", change.time, replicas(after)));
        }
    });
    broken
}

/// A person's wish needs no evidence.
fn was_wished(before: Option<&Value>) -> bool {
    note(before, "wish").is_some()
}

fn i3_evidence(history: &History) -> Vec<String> {
    let judged =
        history.scale_downs().into_iter().filter(|(change, _)| !was_wished(change.before.as_deref()));
    judged
        .filter(|(change, _)| {
            !history.told.iter().any(|told| {
                let fresh = told.at <= change.time && change.time.duration_since(told.at) <= EVIDENCE;
                let newest = history.visits.iter().filter(|visit| **visit <= told.watermark).max();
                fresh
                    && newest.is_none_or(|visit| told.watermark.duration_since(*visit) >= history.idle_after)
            })
        })
        .map(|(change, _)| format!("{}: scaled down without evidence", change.time))
        .collect()
}

fn i4_cancelled(history: &History) -> Vec<String> {
    let mut cancelled: BTreeSet<u64> = BTreeSet::new();
    let mut broken = Vec::new();
    for (change, sent) in history.of_deployments() {
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        if note(after, "phase").is_none() || sent.is_none() && epoch(after) < epoch(before) {
            // Annotations that were replaced by old ones begin to count again from there.
            cancelled.clear();
        }
        if note(before, "phase") == Some("drowsy") && note(after, "phase") == Some("awake") {
            cancelled.insert(epoch(after));
        }
        if sent.is_some()
            && replicas(before) > Some(0)
            && replicas(after) == Some(0)
            && cancelled.contains(&epoch(after))
        {
            broken.push(format!("{}: nap {} was cancelled and went on", change.time, epoch(after)));
        }
    }
    broken
}

fn i6_one_wake(history: &History) -> Vec<String> {
    let mut woken = BTreeSet::new();
    let mut broken = Vec::new();
    for (change, sent) in history.of_deployments() {
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let others = sent.is_none() && (replicas(before) != replicas(after) || epoch(before) != epoch(after));
        if others || note(after, "phase").is_none() {
            woken.clear();
        }
        let up = replicas(before) == Some(0) && replicas(after) > Some(0);
        if sent.is_some() && up && !woken.insert(epoch(after)) {
            broken.push(format!("{}: nap {} was ended twice", change.time, epoch(after)));
        }
    }
    broken
}

fn i7_one_way(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    for (change, sent) in history.of_deployments() {
        let (Some(sent), Some(before), Some(after)) = (sent, &change.before, &change.after) else { continue };
        let (was, is) = (replicas(Some(before)), replicas(Some(after)));
        if is < was && is != Some(0) || is > was && was != Some(0) {
            broken.push(format!("{}: {} changed replicas from {was:?} to {is:?}", change.time, sent.member));
        }
        if others(before) != others(after) {
            broken.push(format!("{}: {} changed more than its own", change.time, sent.member));
        }
    }
    broken
}

/// What KubeNap has no business with.
fn others(object: &Value) -> Value {
    let mut rest = object.clone();
    rest["spec"]["replicas"] = Value::Null;
    let metadata = &mut rest["metadata"];
    for field in ["resourceVersion", "generation", "managedFields"] {
        metadata[field] = Value::Null;
    }
    if let Some(notes) = metadata["annotations"].as_object_mut() {
        notes.retain(|key, _| !key.starts_with("kubenap/"));
    }
    rest
}

fn i8_epochs(history: &History) -> Vec<String> {
    let mut downs = BTreeSet::new();
    let mut broken = Vec::new();
    for (change, sent) in history.of_deployments() {
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        if sent.is_none() {
            if epoch(before) != epoch(after) {
                downs.clear();
            }
            continue;
        }
        // Once every trace is taken away, counting begins anew.
        if note(after, "phase").is_some() && epoch(after) < epoch(before) {
            broken.push(format!("{}: from epoch {} to {}", change.time, epoch(before), epoch(after)));
        }
        if note(after, "phase").is_none() {
            downs.clear();
        }
        let down = replicas(before) > Some(0) && replicas(after) == Some(0);
        if down && !downs.insert(epoch(after)) {
            broken.push(format!("{}: a second scale-down of nap {}", change.time, epoch(after)));
        }
    }
    broken
}

fn i10_slices(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    history.replay(|change, moment, sent| {
        let (Some(sent), "endpointslices") = (sent, change.plural) else { return };
        let Some(slice) = &change.after else { return };
        let foreign = change.before.as_ref().is_some_and(|before| !is_ours(before)) || !is_ours(slice);
        if foreign || member(slice) != sent.member {
            broken.push(format!("{}: {} wrote {}", change.time, sent.member, change.name));
        }
        if ends(slice).count() > 100 {
            broken.push(format!("{}: {} is too large", change.time, change.name));
        }
        let names = |list: &Value| -> BTreeSet<String> {
            let list = list.as_array().into_iter().flatten();
            list.map(|port| port["name"].as_str().unwrap_or("").to_owned()).collect()
        };
        let service = moment.objects.get(&("services", service_of(slice).to_owned()));
        let leaving = ends(slice).all(|end| end["conditions"]["ready"] == false);
        if let Some(service) = service.filter(|_| history.undisturbed && !leaving)
            && names(&service["spec"]["ports"]) != names(&slice["ports"])
        {
            broken.push(format!("{}: {} has other ports than its Service", change.time, change.name));
        }
    });
    broken
}

fn i11_requests(history: &History) -> Vec<String> {
    // What a member held when it died, its client has to ask for again.
    let lost = |request: &crate::history::Asked| {
        let ended = request.ended.unwrap_or(jiff::Timestamp::MAX);
        history.lives.iter().any(|(at, _, lives)| !lives && request.begun <= *at && *at <= ended)
    };
    let over = |request: &&crate::history::Asked| {
        let late = request.ended.is_none_or(|ended| ended.duration_since(request.begun) > LONGEST);
        late && !lost(request) || history.undisturbed && request.status != 200
    };
    history.requests.iter().filter(over).map(|request| format!("{request:?}")).collect()
}

fn i14_owners_zero(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    let mut owners: BTreeMap<&str, bool> = BTreeMap::new();
    for (change, sent) in history.of_deployments() {
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let up = replicas(before) == Some(0) && replicas(after) > Some(0);
        let adopts = note(before, "replicaCount").is_some() || note(before, "adoptZero") == Some("true");
        if sent.is_some()
            && up
            && owners.get(&*change.name) == Some(&true)
            && !adopts
            && note(before, "wish") != Some("wake")
        {
            broken.push(format!("{}: {} was its owner's zero", change.time, change.name));
        }
        if sent.is_none() && replicas(before) != replicas(after) {
            let was_awake = note(before, "phase").is_none_or(|phase| phase == "awake");
            owners.insert(&change.name, replicas(after) == Some(0) && was_awake);
        }
    }
    broken
}

fn i16_min_awake(history: &History) -> Vec<String> {
    let mut broken = Vec::new();
    for (change, sent) in history.of_deployments() {
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let arms = note(before, "phase") == Some("awake") && note(after, "phase") == Some("drowsy");
        let since = note(before, "since").and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if let (Some(sent), true, Some(since)) = (sent, arms && !was_wished(before), since) {
            // On the clock of a member that is minutes off the moment says nothing here.
            let awake = change.time.duration_since(since);
            if awake.abs() < SignedDuration::from_mins(2) && awake < history.min_awake {
                broken.push(format!("{}: {} arms after {awake:?} awake", change.time, sent.member));
            }
        }
    }
    broken
}

fn i17_ready(history: &History) -> Vec<String> {
    let unready = |change: &kubenap_sandbox::Change| {
        let Some(before) = &change.before else { return false };
        before["status"]["readyReplicas"].as_u64().unwrap_or(0)
            < before["spec"]["replicas"].as_u64().unwrap_or(0)
    };
    let downs = history.scale_downs().into_iter().filter(|(change, _)| unready(change));
    downs.map(|(change, _)| format!("{}: scaled down while not ready", change.time)).collect()
}

fn i18_still(history: &History) -> Vec<String> {
    let inside = |at| history.still.iter().any(|(from, to)| *from <= at && at <= *to);
    let writes = history
        .sent
        .iter()
        .enumerate()
        .filter(|(_, sent)| sent.status == ENDLESS || sent.plural != "leases" && inside(sent.time));
    let last = |at: usize| &history.sent[at.saturating_sub(6)..at];
    let show =
        |sent: &Sent| format!("{} {} {} {} {}", sent.member, sent.method, sent.name, sent.status, sent.body);
    writes
        .map(|(at, sent)| match sent.status {
            ENDLESS => {
                format!("{}: a loop of {:#?}", sent.time, last(at).iter().map(show).collect::<Vec<_>>())
            }
            _ => format!("{}: {} wrote {}", sent.time, sent.member, sent.name),
        })
        .collect()
}

fn i20_own_writes(history: &History) -> Vec<String> {
    if !history.undisturbed {
        return Vec::new();
    }
    let mut broken = Vec::new();
    let mut last: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let by = history.by();
    let mut changes = history.changes.iter().peekable();
    for sent in history.sent.iter().filter(|sent| sent.plural == "deployments") {
        while let Some(change) = changes.next_if(|change| {
            change.time <= sent.time && sent.version.is_none_or(|version| change.version < version)
        }) {
            let who = by.get(&change.version).map_or("", |sent| &*sent.member);
            last.insert((change.plural, &change.name), who);
        }
        if sent.status == 409 && last.get(&("deployments", &*sent.name)) == Some(&&*sent.member) {
            broken.push(format!("{}: {} met its own write on {}", sent.time, sent.member, sent.name));
        }
    }
    broken
}

fn i21_events(history: &History) -> Vec<String> {
    let asleep =
        |sent: &&Sent| sent.plural == "events" && sent.body["reason"] == "Asleep" && sent.status < 300;
    let told = history
        .sent
        .iter()
        .filter(asleep)
        .filter(|sent| sent.body["note"].as_str().is_some_and(|note| note.contains("scaled from")))
        .count();
    let downs = history.scale_downs().len();
    if history.undisturbed && told != downs {
        vec![format!("{told} Events, {downs} scale-downs")]
    } else {
        Vec::new()
    }
}
