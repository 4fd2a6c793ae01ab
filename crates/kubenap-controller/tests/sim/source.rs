//! A scripted source of traffic that knows the truth, tells it or not, and notes what it told.
#![expect(clippy::unwrap_used, reason = "a source that cannot note what it says has failed its run")]

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kubenap_controller::activity::{AppSample, Ask, Samples, SourceError, TrafficMetricsSource};
use kubenap_controller::clock::Clock;
use kubenap_core::activity::{Activity, Blind};

/// How it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    #[default]
    Fine,
    Down,
    /// Its last successful scrape was at this moment.
    Stuck(Timestamp),
    /// It answers, and has never heard of any app.
    Empty,
    /// It says that something happened just now.
    Busy,
}

/// What a healthy answer could know: it was asked then, and had seen everything up to then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) at: Timestamp,
    pub(crate) watermark: Timestamp,
}

/// What really happens, and how it is told.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) visits: Vec<Timestamp>,
    pub(crate) mood: Mood,
    pub(crate) told: Vec<Told>,
    /// How often it changed to a mood in which it does not tell the truth.
    pub(crate) outages: u64,
}

/// The source as one member asks it. A member whose clock is off gets its answers on that clock.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) truth: Arc<Mutex<Truth>>,
    pub(crate) clock: Clock,
    pub(crate) begins: Timestamp,
    pub(crate) skew: SignedDuration,
}

#[async_trait]
impl TrafficMetricsSource for Script {
    fn name(&self) -> &'static str {
        "script"
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let mut truth = self.truth.lock().unwrap();
        let now = self.clock.now();
        let (watermark, busy) = match truth.mood {
            Mood::Fine => (now, false),
            Mood::Busy => (now, true),
            Mood::Stuck(at) => (at, false),
            Mood::Down => return Err(SourceError::NoProxy),
            Mood::Empty => return Ok(Samples::blind(Blind::NoSeries)),
        };
        truth.told.push(Told { at: now, watermark });
        let seen = truth.visits.iter().rev().find(|visit| **visit <= watermark).copied();
        let last = if busy { now } else { seen.unwrap_or(self.begins) };
        let activity = Activity::seen(last + self.skew, watermark + self.skew);
        let sample = AppSample { activity, matched: 1 };
        Ok(ask.targets.iter().map(|target| (target.app.clone(), sample.clone())).collect())
    }
}
