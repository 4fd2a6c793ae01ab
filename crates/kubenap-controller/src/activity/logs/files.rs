//! Access logs in files, read at each poll and between polls, so that no rotation is missed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use kubenap_core::activity::Blind;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::LogsSetup;
use super::book::{Book, Log, PAST, Reading, Rules};
use super::follow::Follower;
use crate::activity::ledger::{BLINK, Look, Sight};
use crate::activity::preset::Preset;
use crate::activity::verdict::{FRESH, View, samples};
use crate::activity::{Ask, Samples, SourceError, TrafficMetricsSource};

/// Access logs in files.
#[derive(Debug)]
pub(super) struct FilesSource {
    name: String,
    trust_silence: bool,
    every: Duration,
    desk: Arc<Mutex<Desk>>,
    /// Reads between polls, so that no rotation is missed.
    reading: Mutex<Option<AbortOnDropHandle<()>>>,
}

/// The files, and what they have said.
#[derive(Debug)]
struct Desk {
    /// When it was asked last, on the controller's clock and on the process's own.
    asked: Option<(Timestamp, Instant)>,
    files: Vec<OneFile>,
    book: Book,
}

#[derive(Debug)]
struct OneFile {
    follower: Follower,
    name: Arc<str>,
    log: Log,
    error: Option<String>,
}

impl FilesSource {
    pub(super) fn new(name: String, paths: &[PathBuf], setup: &LogsSetup) -> Self {
        let file = |path: &PathBuf| OneFile {
            name: Arc::from(path.to_string_lossy()),
            follower: Follower::new(path.clone()),
            log: Log::new(setup.format),
            error: None,
        };
        let files = paths.iter().map(file).collect();
        let desk = Desk { asked: None, files, book: Book::new(setup.service.clone()) };
        Self {
            name,
            trust_silence: setup.trust_silence,
            every: setup.every,
            desk: Arc::new(Mutex::new(desk)),
            reading: Mutex::default(),
        }
    }

    /// Reads on between polls, from the first one on.
    fn read_on(&self) {
        let mut reading = self.reading.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if reading.is_some() {
            return;
        }
        let (desk, every) = (Arc::downgrade(&self.desk), self.every);
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(every).await;
                let Some(desk) = desk.upgrade() else { return };
                let read = move || lock(&desk).read_meanwhile();
                if tokio::task::spawn_blocking(read).await.is_err() {
                    return;
                }
            }
        });
        *reading = Some(AbortOnDropHandle::new(task));
    }
}

fn lock(desk: &Mutex<Desk>) -> std::sync::MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[async_trait]
impl TrafficMetricsSource for FilesSource {
    fn name(&self) -> &str {
        &self.name
    }

    async fn poll(&self, ask: &Ask) -> Result<Samples, SourceError> {
        let (desk, ask_for, trust) = (Arc::clone(&self.desk), ask.clone(), self.trust_silence);
        let answer = tokio::task::spawn_blocking(move || {
            let mut desk = lock(&desk);
            desk.book.rules = Rules::of(&ask_for.targets);
            desk.asked = Some((ask_for.now, Instant::now()));
            desk.read(ask_for.now);
            desk.answer(&ask_for, trust)
        });
        let answer = answer.await.map_err(|_| SourceError::Crashed)?;
        self.read_on();
        answer
    }
}

impl Desk {
    fn read_meanwhile(&mut self) {
        let Some((asked, then)) = self.asked else { return };
        let passed = SignedDuration::try_from(then.elapsed()).unwrap_or(SignedDuration::MAX);
        self.read(asked.checked_add(passed).unwrap_or(Timestamp::MAX));
    }

    fn read(&mut self, now: Timestamp) {
        let Self { asked: _, files, book } = self;
        for OneFile { follower, name: _, log, error } in files {
            let mut reading = Reading::at(now, log.heard.is_none());
            let step = follower.step(now, &mut |line| log.take(line, &mut reading, book));
            log.end(&reading);
            let ledger = book.ledger(now);
            if reading.first {
                // What was written before the file begins is not known.
                let since = now.checked_sub(PAST).unwrap_or(Timestamp::MIN);
                ledger.begin_again(reading.begins.unwrap_or(now).max(since));
                log.heard = log.heard.or(Some(now));
            }
            match step {
                Ok(step) => {
                    *error = None;
                    if step.lost {
                        ledger.begin_again(now);
                    }
                }
                Err(cause) => *error = Some(format!("cannot read {}: {cause}", follower.path().display())),
            }
        }
    }

    fn answer(&mut self, ask: &Ask, trust_silence: bool) -> Result<Samples, SourceError> {
        let all_fail = self.files.iter().all(|file| file.error.is_some());
        if let Some(error) = self.files.iter().find_map(|file| file.error.as_ref()).filter(|_| all_fail) {
            return Err(SourceError::Files { why: error.clone() });
        }
        let mut look = Look::default();
        let mut blind = BTreeSet::new();
        for file in &self.files {
            if file.error.is_some() {
                look.down.insert(Arc::clone(&file.name));
                blind.insert(Blind::SourceDown);
                continue;
            }
            let silent = || file.log.has_all_until(ask.now);
            let scraped = file.log.heard.filter(|_| !trust_silence).unwrap_or_else(silent);
            let sight = Sight { scraped, started: None, counters: BTreeMap::new() };
            look.live.insert(Arc::clone(&file.name), sight);
            blind.extend(file.log.blind());
        }
        let ledger = self.book.ledger(ask.now);
        ledger.observe(ask.now, look, BLINK);
        let view = View { ledger, live: true, blind, fresh: FRESH };
        Ok(samples(ask, &BTreeMap::from([(Preset::Logs, view)]), &BTreeSet::new()))
    }
}
