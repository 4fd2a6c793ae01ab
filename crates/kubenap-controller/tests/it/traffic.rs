//! A source of traffic that says what a story wants it to.
#![expect(clippy::unwrap_used, reason = "a story that cannot set its scene has failed")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use kubenap_controller::activity::{AppSample, Ask, Samples, SourceError, TrafficMetricsSource};
use kubenap_core::activity::{Activity, Blind};

/// What the source is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It sees everything up to now.
    #[default]
    Fine,
    /// It does not answer.
    Down,
    /// It answers, and is blind.
    Blind(Blind),
    /// What it knows ends here.
    Stuck(Timestamp),
    /// It answers, and has never heard of any app.
    Empty,
}

/// The source. Every member asks the same one.
#[derive(Debug)]
pub(crate) struct Traffic {
    name: String,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    mood: Mood,
    begins: Timestamp,
    last: BTreeMap<String, Timestamp>,
}

impl Traffic {
    pub(crate) fn new(name: &str, begins: Timestamp) -> Arc<Self> {
        let inner = Mutex::new(Inner { mood: Mood::Fine, begins, last: BTreeMap::new() });
        Arc::new(Self { name: name.to_owned(), inner })
    }

    pub(crate) fn mood(&self, mood: Mood) {
        self.inner.lock().unwrap().mood = mood;
    }

    /// Somebody used the app.
    pub(crate) fn visit(&self, app: &str, at: Timestamp) {
        self.inner.lock().unwrap().last.insert(app.to_owned(), at);
    }
}

#[async_trait]
impl TrafficMetricsSource for Traffic {
    fn name(&self) -> &str {
        &self.name
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let inner = self.inner.lock().unwrap();
        let watermark = match inner.mood {
            Mood::Fine => ask.now,
            Mood::Stuck(at) => at,
            Mood::Down => return Err(SourceError::NoProxy),
            Mood::Blind(why) => return Ok(Samples::blind(why)),
            Mood::Empty => return Ok(Samples::from_iter([])),
        };
        let sample = |name: &str| {
            let last = inner.last.get(name).copied().unwrap_or(inner.begins);
            AppSample { activity: Activity::seen(last, watermark), matched: 1 }
        };
        Ok(ask.targets.iter().map(|target| (target.app.clone(), sample(&target.app.name))).collect())
    }
}
