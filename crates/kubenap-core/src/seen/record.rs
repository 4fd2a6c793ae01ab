//! What KubeNap itself wrote on a Deployment, read back and written.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::app::key;
use crate::policy::Texts;
use crate::seen::Reverts;

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
            any: key::STATE.iter().any(|name| annotations.contains_key(*name)),
        }
    }
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 4] = [Self::Awake, Self::Drowsy, Self::Asleep, Self::Waking];

    /// Reads the annotation's value.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|phase| phase.text() == text)
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
