//! What KubeNap itself wrote on a Deployment, read back and written.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::app::key;
use crate::policy::Texts;
use crate::seen::{Pieces, Reverts, Stamp};

/// KubeNap's own annotations on a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// The phase that was written last; none: never, or not understood.
    pub phase: Option<Phase>,
    /// The number of the nap.
    pub epoch: u64,
    /// The replica count to restore.
    pub restore: Option<u32>,
    /// Since when the phase holds.
    pub since: Option<Timestamp>,
    /// The members' port for each Service port.
    pub wake_ports: WakePorts,
    /// Who scaled it up while it slept, and when.
    pub reverts: Reverts,
    /// The pieces of its proxy's hook that KubeNap put in place itself, or was about to.
    pub hook_pieces: Pieces,
    /// Some annotation of KubeNap's own is there.
    pub any: bool,
}

/// The four phases of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Its pods answer, alone.
    Awake,
    /// KubeNap is an endpoint already, the pods still run.
    Drowsy,
    /// No pods; KubeNap answers.
    Asleep,
    /// Pods are on their way; KubeNap answers until they do.
    Waking,
}

/// A Service port: the Service's name and the port's number.
pub type PortKey = (String, u16);

/// The port on every member for each Service port.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WakePorts(pub BTreeMap<PortKey, u16>);

impl Record {
    /// Reads the annotations. What is not understood is as if it were not there.
    pub fn read(annotations: &Texts) -> Self {
        let text = |name: &str| annotations.get(name).map(String::as_str);
        Self {
            phase: text(key::PHASE).and_then(Phase::parse),
            epoch: text(key::EPOCH).and_then(|text| text.parse().ok()).unwrap_or(0),
            restore: text(key::RESTORE).and_then(|text| text.parse().ok()).filter(|count| *count > 0),
            since: text(key::SINCE).and_then(|text| text.parse().ok()),
            wake_ports: text(key::WAKE_PORTS).and_then(WakePorts::parse).unwrap_or_default(),
            reverts: text(key::REVERTS).map(Reverts::parse).unwrap_or_default(),
            hook_pieces: text(key::HOOK_PIECES).map(Pieces::parse).unwrap_or_default(),
            any: key::STATE.iter().any(|name| annotations.contains_key(*name)),
        }
    }
}

/// What the copies of a Deployment's annotations on its ReplicaSets remember of a nap that has not ended.
///
/// The Deployment's controller copies annotations to the current ReplicaSet before it says that it has observed them,
/// and takes none away there; `kubectl rollout undo` brings old ones back on the Deployment alone. Of each nap the copy
/// that has come furthest counts: what woke again, under whichever template, is remembered no more.
pub fn remembered<'a>(copies: impl IntoIterator<Item = &'a Texts>) -> Option<Stamp> {
    let copies = copies.into_iter().map(Record::read);
    let newest = copies.max_by_key(|copy| (copy.epoch, copy.phase.map(Phase::order)))?;
    let tells = match newest.phase? {
        Phase::Asleep => true,
        // Without substitution, for which no port was given, the count was written with the arming; otherwise the one
        // that stands there is of an older nap.
        Phase::Drowsy => newest.wake_ports.0.is_empty(),
        Phase::Awake | Phase::Waking => false,
    };
    let restore = newest.restore.filter(|_| tells)?;
    Some(Stamp { epoch: newest.epoch, restore })
}

/// The greatest epoch in the copies of a Deployment's annotations on its ReplicaSets.
///
/// A nap gets a greater one. Otherwise annotations that an undo brings back could tell of a later nap than the one that
/// the app is in, be believed, and leave it at zero or wake it to an old count.
pub fn counted<'a>(copies: impl IntoIterator<Item = &'a Texts>) -> u64 {
    copies.into_iter().map(|copy| Record::read(copy).epoch).max().unwrap_or(0)
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Awake, Self::Drowsy, Self::Asleep, Self::Waking];

    /// Reads the annotation's value.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.text() == text)
    }

    /// The place within one nap, which ends with the app awake.
    fn order(self) -> u8 {
        match self {
            Self::Drowsy => 0,
            Self::Asleep => 1,
            Self::Waking => 2,
            Self::Awake => 3,
        }
    }

    /// The annotation's value.
    pub fn text(self) -> &'static str {
        match self {
            Self::Awake => "awake",
            Self::Drowsy => "drowsy",
            Self::Asleep => "asleep",
            Self::Waking => "waking",
        }
    }
}

impl WakePorts {
    /// Reads `web:80=16000,web:9090=16001`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut ports = BTreeMap::new();
        for item in text.split(',').filter(|item| !item.is_empty()) {
            let (from, to) = item.split_once('=')?;
            let (service, number) = from.rsplit_once(':')?;
            ports.insert(
                (service.to_owned(), number.parse().ok()?),
                to.parse().ok().filter(|port| *port > 0)?,
            );
        }
        // One port can stand for one Service port only, or it could not be told whom a request is for.
        let distinct: BTreeSet<_> = ports.values().collect();
        (distinct.len() == ports.len()).then_some(Self(ports))
    }

    /// The annotation's value.
    pub fn text(&self) -> String {
        let items: Vec<_> =
            self.0.iter().map(|((service, number), port)| format!("{service}:{number}={port}")).collect();
        items.join(",")
    }

    /// The port that stands for a Service port.
    pub fn of(&self, service: &str, number: u16) -> Option<u16> {
        self.0.get(&(service.to_owned(), number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(phase: Phase, epoch: u64, restore: Option<u32>) -> Texts {
        let mut texts = Texts::from([
            (key::PHASE.to_owned(), phase.text().to_owned()),
            (key::EPOCH.to_owned(), epoch.to_string()),
        ]);
        texts.extend(restore.map(|count| (key::RESTORE.to_owned(), count.to_string())));
        texts
    }

    #[test]
    fn replica_sets_remember_the_newest_nap_that_has_not_ended() {
        use Phase::{Asleep, Awake, Drowsy, Waking};
        let some = |epoch, restore| Some(Stamp { epoch, restore });
        for (copies, expected) in [
            (vec![], None),
            (vec![Texts::new()], None),
            (vec![copy(Asleep, 4, Some(2))], some(4, 2)),
            (vec![copy(Drowsy, 4, Some(2))], some(4, 2)),
            (vec![copy(Asleep, 4, None)], None),
            // Counts are never taken away from a ReplicaSet, so that they alone say nothing.
            (vec![copy(Awake, 4, Some(2))], None),
            (vec![copy(Waking, 4, Some(2))], None),
            // Edited while it slept, and woken under the new template.
            (vec![copy(Asleep, 4, Some(2)), copy(Awake, 4, Some(2))], None),
            (vec![copy(Awake, 3, None), copy(Asleep, 4, Some(2)), copy(Asleep, 2, Some(9))], some(4, 2)),
            (vec![copy(Asleep, 4, Some(2)), copy(Awake, 5, None)], None),
        ] {
            assert_eq!(remembered(&copies), expected, "{copies:?}");
        }
    }
}
