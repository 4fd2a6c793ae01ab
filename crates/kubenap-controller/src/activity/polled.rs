//! What all sources said in their last polls, and what they know of an app together.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kubenap_core::activity::{Activity, Blind};
use kubenap_core::app::AppId;

use super::{AppSample, Samples};

/// What was learned from all sources, as of their last polls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Polled {
    /// When this was put together.
    pub at: Timestamp,
    /// Each source's state, by its name.
    pub per_source: BTreeMap<String, SourceState>,
}

/// How one source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceState {
    /// Whether it counts for apps that do not choose.
    pub by_default: bool,
    /// What it counts.
    pub counters: PartState,
    /// What it says of the apps that bring a query of their own; none: it asks none.
    pub queries: Option<PartState>,
}

/// How one loop of a source is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartState {
    /// Whether its last poll was answered.
    pub up: bool,
    /// Since when it is up, or down.
    pub since: Timestamp,
    /// Why the last poll failed, with a hint.
    pub error: Option<String>,
    /// What it said.
    pub samples: Arc<Samples>,
}

impl SourceState {
    /// Whether all that it was asked last was answered.
    pub fn up(&self) -> bool {
        self.parts().all(|part| part.up)
    }

    /// Since when it is up, or something of it is down.
    pub fn since(&self) -> Timestamp {
        let down = self.parts().filter(|part| !part.up).map(|part| part.since).min();
        let up = self.parts().map(|part| part.since).max();
        down.or(up).unwrap_or(self.counters.since)
    }

    /// Why something was not answered last, with a hint.
    pub fn error(&self) -> Option<String> {
        let queries = self.queries.as_ref().and_then(|part| part.error.as_ref());
        self.counters.error.clone().or(queries.map(|error| format!("apps' queries cannot be asked: {error}")))
    }

    fn parts(&self) -> impl Iterator<Item = &PartState> {
        std::iter::once(&self.counters).chain(&self.queries)
    }

    /// Every app that it speaks of, with the answer to its query where it is asked.
    pub fn each(&self) -> impl Iterator<Item = (&Samples, &AppId, &AppSample)> {
        let asked = self.queries.as_ref().map(|part| &*part.samples);
        let samples = &*self.counters.samples;
        let counted =
            samples.iter().filter(move |(app, _)| asked.is_none_or(|asked| asked.detail(app).is_none()));
        let counted = counted.map(move |(app, sample)| (samples, app, sample));
        let queries =
            asked.into_iter().flat_map(|asked| asked.iter().map(move |(app, sample)| (asked, app, sample)));
        counted.chain(queries)
    }
}

impl Polled {
    /// What the sources together know about an app: those that count by default, or those that are `chosen` by name.
    /// A chosen source that does not exist is a blind spot. An app that `brings` a query is known by it at the sources that
    /// ask it, and one must; the others tell what else they see of it.
    pub fn activity(&self, app: &AppId, chosen: Option<&[String]>, brings: bool) -> Activity {
        match chosen {
            None => {
                let states = self.per_source.values().filter(|state| state.by_default);
                together(states.map(Some), app, brings)
            }
            Some(names) => together(names.iter().map(|name| self.per_source.get(name)), app, brings),
        }
    }
}

fn together<'a>(
    states: impl Iterator<Item = Option<&'a SourceState>>,
    app: &AppId,
    brings: bool,
) -> Activity {
    let mut asks = !brings;
    let known = Activity::join_all(states.map(|state| match state {
        None => Activity::blind(Blind::NoSource),
        Some(SourceState { queries: Some(queries), .. }) if brings => {
            asks = true;
            queries.samples.of(app)
        }
        Some(SourceState { counters, .. }) if brings => beside(counters.samples.of(app)),
        Some(SourceState { counters, .. }) => counters.samples.of(app),
    }));
    if asks { known } else { Activity::blind(Blind::NoSource) }
}

/// What a source that does not ask an app's query knows of it: that it has no series of the app's own is no doubt then.
fn beside(mut known: Activity) -> Activity {
    if known.blind.remove(&Blind::NoSeries) {
        known.watermark = Timestamp::MAX;
    }
    known
}

impl PartState {
    /// Before its first poll.
    pub(super) fn starting(now: Timestamp) -> Self {
        let samples = Arc::new(Samples::blind(Blind::Starting));
        Self { up: false, since: now, error: None, samples }
    }

    pub(super) fn is_starting(&self) -> bool {
        !self.up && self.error.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_that_brings_a_query_is_known_by_who_asks_it_and_the_others_only_add() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let of = |activity| PartState {
            up: true,
            since: at(0),
            error: None,
            samples: Arc::new(Samples::from_iter([(
                AppId::new("shop", "web"),
                AppSample { activity, matched: 1 },
            )])),
        };
        let state = |counted, queries: Option<Activity>| SourceState {
            by_default: true,
            counters: of(counted),
            queries: queries.map(of),
        };
        let known =
            |states: &[SourceState]| together(states.iter().map(Some), &AppId::new("shop", "web"), true);
        let quiet = Activity::seen(at(10), at(100));
        let asks = |queries: &Activity| state(Activity::blind(Blind::SourceDown), Some(queries.clone()));
        assert_eq!(known(&[asks(&quiet)]), quiet, "what proxies count there is no matter");
        assert_eq!(known(&[state(quiet.clone(), None)]), Activity::blind(Blind::NoSource));
        let lost = known(&[asks(&Activity::blind(Blind::NoSeries)), state(quiet.clone(), None)]);
        assert!(lost.blind.contains(&Blind::NoSeries));
        assert_eq!(known(&[asks(&quiet), state(Activity::blind(Blind::NoSeries), None)]), quiet);
        let both = known(&[asks(&quiet), state(Activity::seen(at(50), at(80)), None)]);
        assert_eq!(both, Activity::seen(at(50), at(80)));
        let down = known(&[asks(&quiet), state(Activity::blind(Blind::SourceDown), None)]);
        assert!(down.blind.contains(&Blind::SourceDown));
    }
}
