//! What happened in a run, and the cluster as it was after each single change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kubenap_sandbox::Change;
use serde_json::Value;

use crate::source::Told;
use crate::wire::Sent;

/// A request of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) begun: Timestamp,
    pub(crate) ended: Option<Timestamp>,
    /// Zero: the connection was refused or broken.
    pub(crate) status: u16,
}

/// Everything that invariants are judged by.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) changes: Vec<Change>,
    pub(crate) sent: Vec<Sent>,
    /// A member begins to live, or ceases to.
    pub(crate) lives: Vec<(Timestamp, String, bool)>,
    pub(crate) told: Vec<Told>,
    pub(crate) visits: Vec<Timestamp>,
    pub(crate) requests: Vec<Asked>,
    /// At which moments a member had last seen an ask when it sent a scale-down: (sent, ask).
    pub(crate) idle_after: SignedDuration,
    pub(crate) min_awake: SignedDuration,
    /// Nothing was done to the run: stricter rules hold.
    pub(crate) undisturbed: bool,
    /// Stretches in which nothing happens and nobody may write.
    pub(crate) still: Vec<(Timestamp, Timestamp)>,
}

/// The objects of the apps' namespace after a change.
#[derive(Clone, Debug, Default)]
pub(crate) struct Moment {
    pub(crate) objects: BTreeMap<(&'static str, String), Arc<Value>>,
    pub(crate) living: BTreeMap<String, Timestamp>,
    /// The last count of at least one that somebody other than KubeNap asked for, by app.
    pub(crate) wanted: BTreeMap<String, u64>,
    /// The zero of an app is somebody else's.
    pub(crate) others_zero: BTreeSet<String>,
}

impl History {
    /// Which member made a version.
    pub(crate) fn by(&self) -> BTreeMap<u64, &Sent> {
        self.sent.iter().filter_map(|sent| Some((sent.version?, sent))).collect()
    }

    /// Goes through all changes; `look` sees each with the state after it and the member that made it.
    pub(crate) fn replay<'a>(&'a self, mut look: impl FnMut(&'a Change, &Moment, Option<&'a Sent>)) {
        let by = self.by();
        let mut moment = Moment::default();
        let mut lives = self.lives.iter().peekable();
        for change in &self.changes {
            while let Some((at, member, lives_on)) = lives.next_if(|(at, _, _)| *at <= change.time) {
                if *lives_on {
                    moment.living.insert(member.clone(), *at);
                } else {
                    moment.living.remove(member);
                }
            }
            let sent = by.get(&change.version).copied();
            moment.apply(change, sent);
            look(change, &moment, sent);
        }
    }

    /// The changes of Deployments, each with the member that made it.
    pub(crate) fn of_deployments(&self) -> impl Iterator<Item = (&Change, Option<&Sent>)> {
        let by = self.by();
        self.changes
            .iter()
            .filter(|change| change.plural == "deployments")
            .map(move |change| (change, by.get(&change.version).copied()))
    }

    pub(crate) fn scale_downs(&self) -> Vec<(&Change, &Sent)> {
        let down = |(change, sent): (_, Option<_>)| Some((change, sent?));
        let to_zero = |(change, _): &(&Change, &Sent)| {
            replicas(change.before.as_deref()) > Some(0) && replicas(change.after.as_deref()) == Some(0)
        };
        self.of_deployments().filter_map(down).filter(to_zero).collect()
    }
}

impl Moment {
    fn apply(&mut self, change: &Change, sent: Option<&Sent>) {
        let key = (change.plural, change.name.clone());
        match &change.after {
            Some(after) => self.objects.insert(key, Arc::clone(after)),
            None => self.objects.remove(&key),
        };
        if change.plural == "deployments" {
            let (before, after) = (replicas(change.before.as_deref()), replicas(change.after.as_deref()));
            if before != after && sent.is_none() {
                match after {
                    Some(0) => drop(self.others_zero.insert(change.name.clone())),
                    Some(count) => drop(self.wanted.insert(change.name.clone(), count)),
                    None => {}
                }
            }
            if after != Some(0) || note(change.after.as_deref(), "phase") == Some("asleep") {
                self.others_zero.remove(&change.name);
            }
        }
    }

    pub(crate) fn all<'a>(&'a self, plural: &'static str) -> impl Iterator<Item = &'a Value> {
        let from = (plural, String::new());
        self.objects.range(from..).take_while(move |((of, _), _)| *of == plural).map(|(_, object)| &**object)
    }
}

pub(crate) fn replicas(object: Option<&Value>) -> Option<u64> {
    object?["spec"]["replicas"].as_u64()
}

/// One of KubeNap's annotations.
pub(crate) fn note<'a>(object: Option<&'a Value>, key: &str) -> Option<&'a str> {
    object?["metadata"]["annotations"][format!("kubenap/{key}")].as_str()
}

pub(crate) fn epoch(object: Option<&Value>) -> u64 {
    note(object, "epoch").and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub(crate) fn is_ours(slice: &Value) -> bool {
    slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"] == "kubenap.dev"
}

pub(crate) fn member(slice: &Value) -> &str {
    slice["metadata"]["annotations"]["kubenap/member"].as_str().unwrap_or_default()
}

pub(crate) fn service_of(slice: &Value) -> &str {
    slice["metadata"]["labels"]["kubernetes.io/service-name"].as_str().unwrap_or_default()
}

pub(crate) fn ends(slice: &Value) -> impl Iterator<Item = &Value> {
    slice["endpoints"].as_array().into_iter().flatten()
}
